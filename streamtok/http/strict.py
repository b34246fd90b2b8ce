"""What h11 lets pass and RFC 9112 does not: bytes are checked here on their way to h11. No IO.

A server and any proxy in front of it must cut a connection's bytes into the same messages, or one
of them takes part of a body for a request (request smuggling). So this guard accepts one spelling
of everything: lines end with CR LF, a body has one length, a chunk size is hexadecimal digits and
nothing else. It holds input back until a line is complete, passes on what is good, and stops at the
end of each message, so that an error in the next one is reported after this one is answered.

h11 still does the framing: what comes out here is what goes in there, byte for byte.

Read next: `streamtok.http.request`.
"""

import re
from enum import Enum, auto

from streamtok.config import ConnectionConfig
from streamtok.errors import BodyTooLarge, InvalidRequest, RequestError

TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])" % TOKEN)
FIELD = re.compile(rb"(%b):[ \t]*([\t \x21-\x7e\x80-\xff]*?)[ \t]*" % TOKEN)
# RFC 9112 section 7.1.1; the size has no white space around it
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]+)((?:;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*)" % (TOKEN, TOKEN, QUOTED)
)
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[-._~!$&'()*+;=%0-9A-Za-z]+)(?::[0-9]*)?")
TARGET = re.compile(rb"/[^#]*|https?://[^/?#@]+(?:[/?][^#]*)?", re.IGNORECASE)

CHUNK_LINE_BYTES = 1024  # a chunk's size with its extensions
# What a chunked body may have besides its data, beyond as much again: a chunk costs work however
# little it holds, and a size line may carry extensions that nobody reads (Go's CVE-2023-39326).
CHUNK_OVERHEAD_BYTES = 16 * 1024
LINES_AT_ONCE = 256  # after which `take` returns, so that other connections have their turn
SIZE_DIGITS = 16  # of a chunk size: more could not be held anywhere
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
HEAD = re.compile(rb"\s*HEAD(?![-!#$%&'*+.^_`|~0-9A-Za-z])")


class Malformed(InvalidRequest):
    """What was received is not HTTP/1.1 as RFC 9112 has it; `status` says how it is answered."""

    default_code = "malformed_http"

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(f"malformed HTTP: {message}")
        self.status = status


class TooLarge(RequestError):
    """414 or 431: a request line or header section above the server's limits."""

    type = "invalid_request_error"
    default_code = "request_too_large"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Phase(Enum):
    """Where in a message the next byte stands."""

    START = auto()  # before the request line
    FIELDS = auto()
    LENGTH = auto()  # in a body of known length
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    END = auto()


class Guard:
    """Checks the bytes of one connection.

    `feed` takes what arrived, `take` gives what may go on to h11; after the end of a message `take`
    gives nothing until `next_message`. `line` is the present request line, for the log; `has_body`
    says, once the head is complete, whether a body belongs to it.
    """

    def __init__(self, limits: ConnectionConfig) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._start()

    def _start(self) -> None:
        self.line = b""
        self.phase = Phase.START
        self._skipped_line = False
        self._head_bytes = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._version = b""
        self._left = 0  # bytes of the body or of the chunk that are to come
        self._body_bytes = 0
        self.has_body = False  # once the head is complete
        self._overhead_bytes = 0  # of chunks: everything but their data

    @property
    def begun(self) -> bool:
        """Whether any byte of the present request has come."""
        return self.phase is not Phase.START or bool(self._buffer)

    @property
    def in_head(self) -> bool:
        """Whether the head of the present request is not complete."""
        return self.phase in (Phase.START, Phase.FIELDS)

    @property
    def body_bytes(self) -> int:
        """How many bytes of the body have passed."""
        return self._body_bytes

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that `take` has not looked at, of this request or the next."""
        return bool(self._buffer)

    @property
    def expects_no_body(self) -> bool:
        """Whether the client said HEAD, and takes a body for the next answer, however malformed."""
        return HEAD.match(self.line or self._buffer) is not None

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def next_message(self) -> None:
        """Go on after the end of a message."""
        assert self.phase is Phase.END
        self._start()

    def take(self) -> bytes:
        """Return the bytes that are good so far, without those of an incomplete line.

        It may be called again while there are more of this message.

        Raises:
            Malformed: the bytes are not HTTP as it is read here.
            TooLarge: a limit of the head is exceeded.
            BodyTooLarge: the body is, or is declared to be, above the limit.
        """
        good = bytearray()
        for _ in range(LINES_AT_ONCE):
            if self.phase is Phase.END or not self._buffer:
                break
            if self.phase in (Phase.LENGTH, Phase.CHUNK_DATA):
                good += self._take_body()
            elif (line := self._take_line()) is not None:
                good += line
            else:
                break
        return bytes(good)

    def _take_body(self) -> bytes:
        data = bytes(self._buffer[: self._left])
        del self._buffer[: len(data)]
        self._left -= len(data)
        self._body_bytes += len(data)
        if not self._left:
            self.phase = Phase.END if self.phase is Phase.LENGTH else Phase.CHUNK_END
        return data

    # Lines

    def _take_line(self) -> bytes | None:
        """Return the next line with its end, once it is complete and has been checked."""
        end = self._buffer.find(b"\n")
        line = bytes(self._buffer if end < 0 else self._buffer[: end + 1])
        self._check_size(len(line))
        if self.phase is Phase.START:
            _reject_other_protocols(bytes(self._buffer[: len(PROXY_V2)]))
        if end < 0:
            return None
        if not line.endswith(b"\r\n"):
            raise Malformed("a line ends with a bare LF (RFC 9112 section 2.2)")
        text = line[:-2]
        if b"\r" in text:
            raise Malformed("a line holds a bare CR (RFC 9112 section 2.2)")
        del self._buffer[: len(line)]
        return self._read(text, line)

    def _read(self, text: bytes, line: bytes) -> bytes:
        """Check a line by where it stands; return what h11 is given of it."""
        if self.phase is Phase.START:
            if not text and not self._skipped_line:
                self._skipped_line = True  # RFC 9112 section 2.2: ignore one empty line
                return b""
            self._request_line(text)
            self.phase = Phase.FIELDS
        elif self.phase is Phase.FIELDS:
            if text:
                self._fields.append(_field(text))
            else:
                self.phase = self._framing()
                self.has_body = self.phase is not Phase.END
        elif self.phase is Phase.CHUNK_SIZE:
            self._chunk_line(text)
            self._count_overhead(len(line))
        elif self.phase is Phase.CHUNK_END:
            if text:
                raise Malformed("a chunk does not end where its size says (RFC 9112 section 7.1)")
            self.phase = Phase.CHUNK_SIZE
            self._count_overhead(len(line))
        elif text:  # trailers
            self._fields.append(_field(text))
        else:
            self.phase = Phase.END
        self._head_bytes += len(line)
        return line

    def _check_size(self, size: int) -> None:
        """Check the length of a line that may not be complete yet, and what stands before it."""
        limits = self._limits
        if self.phase is Phase.CHUNK_SIZE:
            if size > CHUNK_LINE_BYTES:
                raise Malformed(f"a chunk's size line has more than {CHUNK_LINE_BYTES} bytes")
        elif self.phase is Phase.CHUNK_END:
            if size > 2 or not b"\r\n".startswith(bytes(self._buffer[:size])):
                raise Malformed("a chunk does not end where its size says (RFC 9112 section 7.1)")
        elif self.phase is Phase.START and size > limits.max_target_bytes + 100:
            raise TooLarge(f"the request target has more than {limits.max_target_bytes} bytes", 414)
        elif self._head_bytes + size > limits.max_header_bytes:
            raise TooLarge(f"the head has more than {limits.max_header_bytes} bytes", 431)
        elif len(self._fields) > limits.max_header_count:
            raise TooLarge(f"there are more than {limits.max_header_count} header fields", 431)

    # The head

    def _request_line(self, text: bytes) -> None:
        """RFC 9112 section 3."""
        self.line = text
        match = REQUEST_LINE.fullmatch(text)
        if match is None:
            raise Malformed("the request line is not METHOD TARGET HTTP/1.1 (RFC 9112 section 3)")
        method, target, major, minor = match.groups()
        self._version = major + b"." + minor
        if major != b"1":  # a higher minor version is read as 1.1 (RFC 9110 section 2.5)
            raise Malformed(
                f"HTTP version {self._version.decode()} is not spoken here, 1.0 and 1.1 are", 505
            )
        if len(target) > self._limits.max_target_bytes:
            raise TooLarge(
                f"the request target has more than {self._limits.max_target_bytes} bytes", 414
            )
        if target == b"*" and method == b"OPTIONS":
            return
        if method == b"CONNECT" or not TARGET.fullmatch(target):
            raise Malformed("the request target is not a path or a URL (RFC 9112 section 3.2)")

    def _values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._fields if key == name]

    def _framing(self) -> Phase:
        """Check the fields that decide where the message ends (RFC 9112 sections 3.2 and 6)."""
        self._check_host(self._values(b"host"))
        for value in self._values(b"expect"):
            if value.lower() != b"100-continue":
                raise Malformed("the only expectation met is 100-continue (RFC 9110 10.1.1)", 417)
        codings = self._values(b"transfer-encoding")
        lengths = self._values(b"content-length")
        self._fields = []
        if codings:
            self._check_coding(b",".join(codings), bool(lengths))
            return Phase.CHUNK_SIZE
        if not lengths:
            return Phase.END
        if len(lengths) > 1 or not lengths[0].isdigit():
            raise Malformed("Content-Length is not one number (RFC 9112 section 6.3)")
        if len(lengths[0]) > SIZE_DIGITS or int(lengths[0]) > self._limits.max_body_bytes:
            raise self._too_large()
        self._left = int(lengths[0])
        return Phase.LENGTH if self._left else Phase.END

    def _check_host(self, hosts: list[bytes]) -> None:
        """RFC 9112 section 3.2: one valid Host in HTTP/1.1, at most one in HTTP/1.0."""
        if len(hosts) > 1:
            raise Malformed("there is more than one Host (RFC 9112 section 3.2)")
        if not hosts and self._version != b"1.0":
            raise Malformed("there is no Host (RFC 9112 section 3.2)")
        if hosts and not HOST.fullmatch(hosts[0]):
            raise Malformed("Host is not a host with an optional port (RFC 9112 section 3.2)")

    def _check_coding(self, coding: bytes, has_length: bool) -> None:
        """RFC 9112 section 6.1: "chunked" alone, in HTTP/1.1, without a Content-Length."""
        if has_length:
            raise Malformed(
                "there are both Content-Length and Transfer-Encoding (RFC 9112 section 6.1)"
            )
        if self._version == b"1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)")
        names = [name.strip().lower() for name in coding.split(b",")]
        if names == [b"chunked"]:
            return
        if names[-1] == b"chunked" and names.count(b"chunked") == 1:
            raise Malformed("the only transfer coding known here is chunked", 501)
        if b"chunked" not in names:
            raise Malformed("an unknown transfer coding (RFC 9112 section 6.1)", 501)
        raise Malformed("chunked is not the last transfer coding (RFC 9112 section 6.3)")

    # The body

    def _chunk_line(self, text: bytes) -> None:
        """RFC 9112 section 7.1."""
        match = CHUNK_LINE.fullmatch(text)
        if match is None or len(match[1]) > SIZE_DIGITS:
            raise Malformed("a chunk's size is not hexadecimal digits (RFC 9112 section 7.1)")
        self._left = int(match[1], 16)
        if self._body_bytes + self._left > self._limits.max_body_bytes:
            raise self._too_large()
        if self._left:
            self.phase = Phase.CHUNK_DATA
        else:
            self.phase = Phase.TRAILERS
            self._head_bytes = 0

    def _count_overhead(self, size: int) -> None:
        self._overhead_bytes += size
        if self._overhead_bytes > CHUNK_OVERHEAD_BYTES + self._body_bytes:
            raise Malformed(
                "the chunks of the body are too small: their sizes and extensions take more than "
                f"{CHUNK_OVERHEAD_BYTES} bytes above what they hold"
            )

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body has more than {self._limits.max_body_bytes} bytes")


def _reject_other_protocols(start: bytes) -> None:
    """Name what is plainly another protocol at the first byte, instead of waiting for a line."""
    if start.startswith(b"\x16\x03"):
        raise Malformed("this is TLS; the server speaks plain HTTP on this port")
    if start.startswith((b"PROXY ", PROXY_V2)):
        raise Malformed("the PROXY protocol is not spoken here; use Forwarded or X-Forwarded-For")
    if start[0] < 0x21 and not (b"\r\n".startswith(start[:2]) or PROXY_V2.startswith(start)):
        raise Malformed("the request line begins with a control character or a space")


def _field(text: bytes) -> tuple[bytes, bytes]:
    """Return a field's name in lower case, and its value (RFC 9112 section 5)."""
    if text[:1] in (b" ", b"\t"):
        raise Malformed("a header is folded over lines (RFC 9112 section 5.2)")
    match = FIELD.fullmatch(text)
    if match is None:
        raise Malformed("a header is not NAME: VALUE (RFC 9112 section 5)")
    return match[1].lower(), match[2]
