"""What the proxy sees of a connection to the server: for the trace, and for the doctor's rules."""

from streamtok.http.transport import Address
from streamtok.observe.redact import Mask
from streamtok.observe.trace import Trace, Tracer
from streamtok.proxy.judge import Verdict


class Watching:
    """A `streamtok.http.edge.upstream.Watch`. In the trace, the proxy is the server's client."""

    def __init__(self, tracer: Tracer | None, verdict: Verdict | None) -> None:
        self._tracer = tracer
        self._verdict = verdict
        self._trace: Trace | None = None
        self._mask = Mask()

    def opened(self, here: Address, there: Address, *, encrypted: bool) -> None:
        """See `Watch.opened`."""
        if self._tracer is not None:
            self._trace = self._tracer.begin(here, there, encrypted=encrypted)

    def sent(self, data: bytes) -> None:
        """See `Watch.sent`."""
        if self._trace is not None:
            self._trace.bytes(self._mask.feed(data), sent=False)

    def received(self, data: bytes) -> None:
        """See `Watch.received`."""
        if self._trace is not None:
            self._trace.bytes(data, sent=True)
        if self._verdict is not None:
            self._verdict.read(data)

    def closed(self) -> None:
        """See `Watch.closed`."""
        if self._trace is not None:
            self._trace.close()
