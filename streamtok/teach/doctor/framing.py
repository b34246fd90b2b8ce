"""Rules on HTTP: the head of a streamed answer, and how its body is cut into chunks.

Flaws were noted by the reader; here they get their reasons. Read next:
`streamtok.teach.doctor.events`.
"""

from collections.abc import Iterator

from streamtok.teach.doctor.recording import Answer, show
from streamtok.teach.doctor.rules import rule


def _flaws(answer: Answer, name: str) -> Iterator[str]:
    return (flaw.seen for flaw in answer.flaws if flaw.rule == name)


@rule(
    "error",
    source="RFC 9112 sections 4 and 5",
    breaks="all clients: the answer cannot be read, or is read in different ways",
    fix="end each line of the head with CR LF, and write `name: value` without space before `:`",
)
def head_syntax(answer: Answer) -> Iterator[str]:
    """A status line, then header fields, each ended by CR LF."""
    return _flaws(answer, "head-syntax")


@rule(
    "error",
    source="OpenAI API reference, RFC 9110 section 15",
    breaks="all clients: they raise an error instead of showing a stream",
    fix="see the body; a key is given by --key-env, a model by --model",
)
def status(answer: Answer) -> Iterator[str]:
    """A valid request for a stream is answered with 200."""
    if answer.status not in (0, 200):
        yield f"{answer.status}: {show(answer.body)}"


@rule(
    "error",
    source="WHATWG HTML, Server-sent events; OpenAI API reference",
    breaks="EventSource, which refuses other types; proxies, which buffer and compress them",
    fix="send `Content-Type: text/event-stream`",
)
def content_type(answer: Answer) -> Iterator[str]:
    """A stream is declared as text/event-stream."""
    given = answer.header("content-type") or ""
    kind = given.partition(";")[0].strip().lower()
    if answer.status == 200 and kind != "text/event-stream":
        yield f"content-type: {given}" if given else "no content-type"


@rule(
    "error",
    source="WHATWG HTML, Server-sent events: always UTF-8",
    breaks="clients that believe the header: other letters than English ones come out wrong",
    fix="send `charset=utf-8` or no charset",
)
def charset(answer: Answer) -> Iterator[str]:
    """The declared charset is UTF-8."""
    given = (answer.header("content-type") or "").lower().replace(" ", "").replace('"', "")
    if "charset=" in given and "charset=utf-8" not in given:
        yield f"content-type: {answer.header('content-type')}"


@rule(
    "error",
    source="RFC 9110 section 12.5.3",
    breaks="clients that did not ask for it, and all that wait for a compressor to fill its block",
    fix="switch compression off for text/event-stream",
)
def content_encoding(answer: Answer) -> Iterator[str]:
    """A stream is not compressed where the client did not say that it may be."""
    if coding := answer.header("content-encoding"):
        yield f"content-encoding: {coding}"


@rule(
    "error",
    source="RFC 9112 section 6.3",
    breaks="proxies and clients that differ in which of the two they believe: request smuggling",
    fix="leave Content-Length out where Transfer-Encoding is sent",
)
def length_and_chunked(answer: Answer) -> Iterator[str]:
    """Not both Content-Length and Transfer-Encoding."""
    if answer.chunked and answer.header("content-length") is not None:
        yield f"content-length: {answer.header('content-length')}, transfer-encoding: chunked"


@rule(
    "error",
    source="RFC 9112 section 6",
    breaks="all that want tokens early: who knows the length has waited for the last token",
    fix="send chunks as tokens are made; look for a proxy that collects the answer",
)
def known_length(answer: Answer) -> Iterator[str]:
    """A stream's length is not known when it begins."""
    if answer.status == 200 and not answer.chunked and answer.header("content-length"):
        yield f"content-length: {answer.header('content-length')}"


@rule(
    "warning",
    source="RFC 9112 sections 6.3 and 9.8",
    breaks="clients, which cannot tell the end from a connection that was cut, nor use it again",
    fix="answer HTTP/1.1 requests with `Transfer-Encoding: chunked`",
)
def not_chunked(answer: Answer) -> Iterator[str]:
    """The end of a stream is marked, not only followed by the end of the connection."""
    if answer.status == 200 and not answer.chunked and not answer.header("content-length"):
        yield "neither transfer-encoding nor content-length"


@rule(
    "warning",
    source="WHATWG HTML, Server-sent events (authoring notes); RFC 9111 section 5.2",
    breaks="caches on the way may keep the stream, or hold it back to do so",
    fix="send `Cache-Control: no-cache`",
)
def cache_control(answer: Answer) -> Iterator[str]:
    """A stream is not for caches."""
    given = answer.header("cache-control")
    if answer.status == 200 and not any(word in (given or "") for word in ("no-cache", "no-store")):
        yield f"cache-control: {given}" if given else "no cache-control"


@rule(
    "warning",
    source="RFC 9110 section 6.6.1",
    breaks="caches and logs, which compute an answer's age from it",
    fix="send `Date` in every answer",
)
def date(answer: Answer) -> Iterator[str]:
    """A server with a clock says when it answered."""
    if answer.status and answer.header("date") is None:
        yield "no date"


@rule(
    "error",
    source="RFC 9112 section 7.1",
    breaks="all clients: what follows cannot be read",
    fix="write the size as hexadecimal digits and nothing else, then CR LF",
)
def chunk_size(answer: Answer) -> Iterator[str]:
    """A chunk begins with its size in hexadecimal digits."""
    return _flaws(answer, "chunk-size")


@rule(
    "error",
    source="RFC 9112 section 7.1",
    breaks="all clients: what follows cannot be read",
    fix="count the bytes of the chunk (not its characters), and write CR LF after them",
)
def chunk_length(answer: Answer) -> Iterator[str]:
    """A chunk has as many bytes as its size says, and CR LF after them."""
    return _flaws(answer, "chunk-length")


@rule(
    "error",
    source="RFC 9112 section 7.1",
    breaks="strict clients and proxies, which close the connection",
    fix="end lines with CR LF",
)
def chunk_line_end(answer: Answer) -> Iterator[str]:
    """The lines between chunks end with CR LF."""
    return _flaws(answer, "chunk-line-end")


@rule(
    "error",
    source="RFC 9112 sections 7.1 and 8",
    breaks="all clients: httpx and aiohttp raise on a body that was cut",
    fix="finish the chunk; say what went wrong in an error event before closing",
)
def body_cut(answer: Answer) -> Iterator[str]:
    """The body does not end within a chunk, before its length, or by a reset."""
    return _flaws(answer, "body-cut")


@rule(
    "error",
    source="RFC 9112 sections 7.1 and 8",
    breaks="all clients: httpx raises RemoteProtocolError, and without a close they wait for ever",
    fix="send `0` CR LF CR LF after the last chunk",
)
def zero_chunk(answer: Answer) -> Iterator[str]:
    """A chunked body ends with the chunk of size zero, and an empty line."""
    return _flaws(answer, "zero-chunk")


@rule(
    "error",
    source="RFC 9112 section 6.3",
    breaks="the next request on this connection, which gets these bytes as its answer",
    fix="send nothing behind the zero chunk",
)
def bytes_after_end(answer: Answer) -> Iterator[str]:
    """Nothing follows the end of an answer."""
    return _flaws(answer, "bytes-after-end")


RULES = (
    head_syntax,
    status,
    content_type,
    charset,
    content_encoding,
    length_and_chunked,
    known_length,
    not_chunked,
    cache_control,
    date,
    chunk_size,
    chunk_length,
    chunk_line_end,
    body_cut,
    zero_chunk,
    bytes_after_end,
)
