"""Requests on which HTTP/1.1 parsers disagree, and what the standard says of each.

Where two programs on one connection disagree about where a request ends, the rest of it becomes a
request of its own: request smuggling. Each case here sends such bytes with a second request hidden
in them, to the address that was named and nowhere else, and the second one is the same harmless
GET. A server is right if it refuses, or if it reads the bytes as one request and no more.
Read next: `streamtok.teach.doctor.http`, which sends them.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Expected = Literal[
    "refused",  # a 4xx or 5xx or a closed connection; never a second answer
    "one",  # at most one answer, whatever it is: the hidden request is not carried out
    "served",  # answered as a plain request is
]


class Case(Struct, frozen=True):
    """Bytes to send, where `@` stands for the target, `#` for the host; and what is right."""

    name: str
    says: str
    source: str
    expected: Expected
    request: bytes

    def bytes_for(self, host: str, target: str) -> bytes:
        """Return the bytes for a server."""
        return self.request.replace(b"#", host.encode()).replace(b"@", target.encode("latin-1"))


LENGTH, SIZE, HIDDEN = b"<length>", b"<size>", b"<request>"  # of a whole request, and itself
GET = b"GET @ HTTP/1.1\r\nHost: #\r\n\r\n"
POST = b"POST @ HTTP/1.1\r\nHost: #\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def _length(name: str, value: bytes) -> Case:
    return Case(
        f"content-length-{name}",
        "A Content-Length that is not one decimal number is refused",
        "RFC 9112 section 6.3",
        "refused",
        POST + b"Content-Length: " + value + b"\r\n\r\n" + GET,
    )


def _coding(name: str, field: bytes) -> Case:
    return Case(
        f"transfer-encoding-{name}",
        "A Transfer-Encoding that is not exactly chunked is refused, or read as chunked",
        "RFC 9112 section 6.1",
        "one",
        POST + field + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + GET,
    )


def _size(name: str, line: bytes, data: bytes = b"abc\r\n") -> Case:
    return Case(
        f"chunk-size-{name}",
        "A chunk size is hexadecimal digits and nothing else",
        "RFC 9112 section 7.1",
        "refused",
        CHUNKED + line + b"\r\n" + data + b"0\r\n\r\n" + GET,
    )


def _field(name: str, says: str, source: str, field: bytes) -> Case:
    request = b"GET @ HTTP/1.1\r\nHost: #\r\n" + field + b"\r\n\r\n"
    return Case(f"field-{name}", says, source, "refused", request)


def _host(name: str, says: str, fields: bytes) -> Case:
    request = b"GET @ HTTP/1.1\r\n" + fields + b"\r\n"
    return Case(f"host-{name}", says, "RFC 9112 section 3.2", "refused", request)


CASES: tuple[Case, ...] = (
    # what every server must take
    Case("plain", "A plain request is answered", "RFC 9112 section 2", "served", GET),
    Case(
        "absolute-form",
        "A target in absolute form is accepted",
        "RFC 9112 section 3.2.2",
        "served",
        b"GET http://#@ HTTP/1.1\r\nHost: #\r\n\r\n",
    ),
    Case(
        "empty-line-before",
        "An empty line before a request is ignored",
        "RFC 9112 section 2.2",
        "served",
        b"\r\n" + GET,
    ),
    Case(
        "minor-version",
        "A higher minor version is served as HTTP/1.1",
        "RFC 9110 section 2.5",
        "served",
        b"GET @ HTTP/1.9\r\nHost: #\r\n\r\n",
    ),
    # where a body ends
    Case(
        "length-and-coding",
        "With both framings the connection ends after one answer",
        "RFC 9112 section 6.1",
        "one",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    ),
    Case(
        "coding-and-length",
        "With both framings the connection ends after one answer",
        "RFC 9112 section 6.1",
        "one",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + GET,
    ),
    Case(
        "body-of-get",
        "A GET's body is its body and not the next request (0.CL)",
        "RFC 9110 section 9.3.1",
        "one",
        b"GET @ HTTP/1.1\r\nHost: #\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + HIDDEN,
    ),
    Case(
        "chunked-get",
        "A GET's chunked body is its body and not the next request (TE.0)",
        "RFC 9112 section 6.3",
        "one",
        b"GET @ HTTP/1.1\r\nHost: #\r\nTransfer-Encoding: chunked\r\n\r\n"
        + SIZE
        + b"\r\n"
        + HIDDEN
        + b"\r\n0\r\n\r\n",
    ),
    Case(
        "content-length-twice",
        "Two Content-Lengths that differ are refused",
        "RFC 9112 section 6.3",
        "refused",
        POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + GET,
    ),
    _length("plus", b"+0"),
    _length("minus", b"-1"),
    _length("hexadecimal", b"0x0"),
    _length("underscore", b"0_0"),
    _length("point", b"0.0"),
    _length("list", b"0, 44"),
    _length("spaces", b"0 0"),
    _length("letters", b"none"),
    _length("huge", b"99999999999999999999999999"),
    _coding("unknown", b"Transfer-Encoding: xchunked\r\n"),
    _coding("identity", b"Transfer-Encoding: identity, chunked\r\n"),
    _coding("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    _coding("not-last", b"Transfer-Encoding: chunked, identity\r\n"),
    _coding("tab", b"Transfer-Encoding:\x0bchunked\r\n"),
    _coding("null", b"Transfer-Encoding: chunked\x00\r\n"),
    _coding("quoted", b'Transfer-Encoding: "chunked"\r\n'),
    _coding("comma", b"Transfer-Encoding: ,chunked\r\n"),
    _coding("space-before-colon", b"Transfer-Encoding : chunked\r\n"),
    _coding("folded", b"Transfer-Encoding:\r\n chunked\r\n"),
    Case(
        "coding-in-1.0",
        "A Transfer-Encoding in HTTP/1.0 ends the connection after one answer",
        "RFC 9112 section 6.1",
        "one",
        b"POST @ HTTP/1.0\r\nHost: #\r\nConnection: keep-alive\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    ),
    # chunks
    _size("prefix", b"0x3"),
    _size("sign", b"+3"),
    _size("minus", b"-3"),
    _size("underscore", b"0_3"),
    _size("space-before", b" 3"),
    _size("letters", b"three"),
    _size("empty", b""),
    _size("overflow", b"10000000000000003"),
    _size("wide-overflow", b"f" * 40),
    Case(
        "chunk-line-end",
        "A chunk's size ends with CR LF, and not with LF alone",
        "RFC 9112 section 7.1",
        "refused",
        CHUNKED + b"3\nabc\r\n0\r\n\r\n" + GET,
    ),
    Case(
        "chunk-extension-line-feed",
        "A chunk extension does not hold a bare LF",
        "RFC 9112 section 7.1.1",
        "refused",
        CHUNKED + b"3;a\nabc\r\n0\r\n\r\n" + GET,
    ),
    Case(
        "chunk-extension-carriage-return",
        "A chunk extension does not hold a bare CR",
        "RFC 9112 sections 2.2 and 7.1.1",
        "refused",
        CHUNKED + b"3;a=\rb\r\nabc\r\n0\r\n\r\n" + GET,
    ),
    Case(
        "chunk-data-end",
        "A chunk's data end with CR LF",
        "RFC 9112 section 7.1",
        "refused",
        CHUNKED + b"3\r\nabcde0\r\n\r\n" + GET,
    ),
    Case(
        "chunk-data-line-feed",
        "A chunk's data end with CR LF, and not with LF alone",
        "RFC 9112 section 7.1",
        "refused",
        CHUNKED + b"3\r\nabc\n0\r\n\r\n" + GET,
    ),
    # fields
    _field(
        "space-before-colon",
        "There is no space between a field's name and its colon",
        "RFC 9112 section 5.1",
        b"X-A : b",
    ),
    _field(
        "carriage-return",
        "A value does not hold a bare CR",
        "RFC 9110 section 5.5",
        b"X-A: b\rTransfer-Encoding: chunked",
    ),
    _field("null", "A value does not hold NUL", "RFC 9110 section 5.5", b"X-A: b\x00c"),
    _field("name", "A field's name is a token", "RFC 9110 section 5.1", b"X(A): b"),
    _field("no-colon", "A field has a colon", "RFC 9112 section 5", b"X-A"),
    _host("missing", "A request without Host is refused", b""),
    _host("twice", "A request with two Hosts is refused", b"Host: #\r\nHost: #\r\n"),
    _host("invalid", "A Host that is no host is refused", b"Host: a b/c\r\n"),
)


def filled(case: Case, host: str, target: str) -> bytes:
    """Return the bytes of a case. Where its length is asked for, a whole request is its body."""
    data = case.bytes_for(host, target)
    hidden = GET.replace(b"#", host.encode()).replace(b"@", target.encode("latin-1"))
    for mark, written in ((LENGTH, b"%d"), (SIZE, b"%x")):
        data = data.replace(mark, written % len(hidden))
    return data.replace(HIDDEN, hidden)


def split_requests(host: str, target: str) -> Iterator[tuple[str, bytes]]:
    """Yield requests whose answers must not depend on how the network cuts them."""
    get = GET
    extended = CHUNKED + b'3;a="b"\r\nabc\r\n0\r\nX-Trailer: c\r\n\r\n'
    for name, data in (
        ("get", get),
        ("pipelined", get + get + get),
        ("chunked", extended + get),
        ("with a length", POST + b"Content-Length: 3\r\n\r\nabc" + get),
    ):
        yield name, data.replace(b"#", host.encode()).replace(b"@", target.encode("latin-1"))
