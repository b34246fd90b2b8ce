"""Reads a learner's response strictly, and says where it first leaves the path, and how."""

import re
import socket
import time
from collections.abc import Sequence

from msgspec import Struct

from streamtok.teach.build.exercise import Wrong, check, shown
from streamtok.teach.build.program import Program

SILENCE_S = 3.0  # without a byte
LATER_S = 0.05  # for bytes behind the end
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})( [\t -~]*)?")
SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
END = re.compile(rb"\r\n0\r\n(.*\r\n)?\r\n\Z")


class Response(Struct, frozen=True):
    """What came: all bytes, when each read came, and the body's chunks.

    `times` has the seconds since the request was sent, at which the bytes up to an offset were
    there.
    """

    raw: bytes
    times: Sequence[tuple[int, float]]

    def at_s(self, offset: int) -> float:
        """Return when the byte at `offset` came."""
        return next(at_s for end, at_s in self.times if offset < end)


def get(program: Program, target: str = "/") -> bytes:
    """Return a request for `target`."""
    host, port = program.address
    return f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()


def ask(program: Program, request: bytes) -> Response:
    """Send a request and read until its end, or until nothing more comes."""
    with socket.create_connection(program.address) as connection:
        began_s = time.monotonic()
        connection.sendall(request)
        raw, times = b"", []
        try:
            while True:
                connection.settimeout(LATER_S if END.search(raw) else SILENCE_S)
                if not (data := connection.recv(65536)):
                    break
                raw += data
                times.append((len(raw), time.monotonic() - began_s))
        except OSError:  # a reset, or silence: what came before counts
            pass
    check(raw, f"nothing came back.{program.complaint}")
    return Response(raw, times)


def read_head(raw: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of a head by their lower-case names, and where the body begins.

    Raises:
        Wrong: it is no head, or not that of a chunked body.
    """
    head, end, _ = raw.partition(b"\r\n\r\n")
    if not end:
        only_lf = b"\n\n" in raw or (b"\n" in raw and b"\r\n" not in raw)
        check(not only_lf, "lines of the head end with \\n alone; in HTTP a line ends with \\r\\n")
        raise Wrong(f"no empty line (\\r\\n\\r\\n) ends the head: {shown(raw)}")
    status, *lines = head.split(b"\r\n")
    match = STATUS.fullmatch(status)
    check(match, f"the first line must be `HTTP/1.1 200 OK`, found {shown(status)}")
    check(match and match[1] == b"200", f"expected the status 200, found {shown(status)}")
    fields = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        check(
            not SIZE.fullmatch(line),
            f"no empty line ends the head: the size of the first chunk, {shown(line)}, stands "
            "in it",
        )
        check(colon and re.fullmatch(r"[!-9;-~]+", name), f"this is no header field: {shown(line)}")
        fields[name.lower()] = value.strip()
    check(
        "content-length" not in fields,
        "there is a Content-Length: nobody knows the length yet, and a response must not have both "
        "(RFC 9112 section 6.2)",
    )
    check(
        fields.get("transfer-encoding", "").lower() == "chunked",
        "the head does not say `Transfer-Encoding: chunked`, so that a client takes the sizes of "
        "chunks for text",
    )
    return fields, len(head) + len(end)


def read_chunks(raw: bytes, start: int, expected: Sequence[str] = ()) -> list[tuple[int, bytes]]:
    """Return each chunk's offset and data; with `expected`, what each should hold.

    Raises:
        Wrong: the body is not framed right; says what was probably meant.
    """
    chunks: list[tuple[int, bytes]] = []
    at = start
    while True:
        line, end, _ = raw[at:].partition(b"\r\n")
        if not end:
            raise Wrong(_no_size(raw[at:], len(chunks)))
        size_text = line.partition(b";")[0]
        wanted = expected[len(chunks)] if len(chunks) < len(expected) else None
        if not SIZE.fullmatch(size_text):
            raise Wrong(
                f"where a chunk should begin with its size in hexadecimal, found {shown(line)}"
            )
        size, data_at = int(size_text, 16), at + len(line) + 2
        if size == 0:
            _check_end(raw[data_at:], wanted)
            return chunks
        data, after = raw[data_at : data_at + size], raw[data_at + size : data_at + size + 2]
        if after != b"\r\n":
            raise Wrong(_bad_size(size_text.decode(), size, raw[data_at:], wanted))
        chunks.append((data_at, data))
        at = data_at + size + 2


def _no_size(rest: bytes, count: int) -> str:
    if not rest:
        return (
            f"the body ends after {count} chunks, without the zero chunk (0\\r\\n\\r\\n): a client "
            "cannot tell this from a connection that broke"
        )
    if b"\n" in rest:
        return f"a line ends with \\n alone: {shown(rest)}; a size ends with \\r\\n"
    return f"where a chunk should begin with its size and \\r\\n, found {shown(rest)}"


def _check_end(rest: bytes, wanted: str | None) -> None:
    check(
        wanted is None,
        f"the zero chunk came before {shown(wanted or '')}: an empty token makes a chunk of size "
        "0, and that ends the body; skip empty tokens",
    )
    check(rest, "after the zero chunk's line 0\\r\\n one more \\r\\n must end the body")
    check(rest.startswith(b"\r\n"), f"after 0\\r\\n expected \\r\\n, found {shown(rest)}")
    check(rest == b"\r\n", f"there are bytes behind the end of the body: {shown(rest[2:])}")


def _bad_size(text: str, size: int, rest: bytes, wanted: str | None) -> str:
    """Return what is wrong with a chunk whose data does not end where its size says."""
    data = (wanted or "").encode()
    length = len(data)
    if not (data and rest.startswith(data)):
        return f"a chunk's size says {text} (0x{size:x} = {size}), but no \\r\\n ends it there"
    if not rest.startswith(data + b"\r\n"):
        if size == length:
            return f"behind the data of a chunk, {shown(data)}, \\r\\n is missing"
        return f"the size {text} does not fit the data {shown(rest)}"
    if text == str(length):
        return f"the size {text} is decimal: sizes are hexadecimal, {length} bytes are {length:x}"
    if size == len(wanted or "") or text == str(len(wanted or "")):
        return (
            f"the size {text} counts the characters of {shown(wanted or '')}, which takes {length} "
            "bytes in UTF-8: count what is sent"
        )
    if size == length + 2:
        return (
            f"the size {text} counts the \\r\\n behind the data too; {length:x} is the data alone"
        )
    return f"the size says {size} bytes, the data {shown(wanted or '')} has {length}"
