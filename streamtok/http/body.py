"""A streamed body in h11's framing, at a fraction of what h11 takes for each chunk. No IO.

h11 frames the first chunk. Where it has framed that as a chunk (RFC 9112 section 7.1), it would
frame each one like it, and remember nothing of it, until the message ends: so the others are framed
here, as many at once as there are, as long as h11 is in the state in which it takes a body. All
other bodies, of a length that was declared or for a client of HTTP/1.0, go through h11.

Read next: `streamtok.http.deadline`.
"""

from collections.abc import Sequence

import h11

from streamtok.http.response import chunks_of
from streamtok.http.tracer import Trace


class BodyFramer:
    """Frames the body of one answer, whose head has been sent through `connection`.

    Each chunk is a write of its own where `singly`, or where they are traced.
    """

    def __init__(self, connection: h11.Connection, trace: Trace | None, *, singly: bool) -> None:
        self._h11 = connection
        self._trace = trace
        self._singly = singly or trace is not None
        self._chunked = False

    def frame(self, item: bytes | Sequence[bytes]) -> list[bytes]:
        """Return what is to be written for an item of the body; an empty chunk has no frame.

        Raises:
            h11.LocalProtocolError: the connection can take no body, or not so much of it.
        """
        if self._chunked and self._h11.our_state is h11.SEND_BODY:
            chunks = (item,) if isinstance(item, bytes) else item
            if len(chunks) == 1 and (chunk := chunks[0]):  # most are
                return [b"%x\r\n%b\r\n" % (len(chunk), chunk)]
            return [b"".join([b"%x\r\n%b\r\n" % (len(c), c) for c in chunks if c])]
        framed = list(map(self._send, chunks_of(item)))
        return framed if self._singly else [b"".join(framed)]

    def _send(self, chunk: bytes) -> bytes:
        if self._trace is not None:
            self._trace.step("chunk", bytes=len(chunk))
        framed = self._h11.send(h11.Data(data=chunk)) or b""
        if chunk and not self._singly and framed == b"%x\r\n%b\r\n" % (len(chunk), chunk):
            self._chunked = True
        return framed
