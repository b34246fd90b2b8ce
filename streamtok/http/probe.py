"""Whether a client that has finished sending is still there.

It may be gone, or it may be waiting for its answer (`nc` does that), and only a write shows which:
until the answer begins, interim `100 Continue` responses are sent, which a client skips (RFC 9110
section 15.2) and a closed socket answers with a reset.

Read next: `streamtok.http.access`.
"""

import asyncio
from collections.abc import Callable

FIRST_PAUSE_S = 0.01  # how long after the end of input a client is first asked for a sign of life
LAST_PAUSE_S = 1.0  # the pause grows fourfold up to this


class Probe:
    """Calls `ask`, which writes something, now and then, and `lost` once `is_reset` says so."""

    def __init__(
        self, is_reset: Callable[[], bool], ask: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._is_reset = is_reset
        self._ask = ask
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._wait(FIRST_PAUSE_S)

    def stop(self) -> None:
        """Ask no more."""
        if self._timer:
            self._timer.cancel()

    def _wait(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause_s, self._look, pause_s)

    def _look(self, pause_s: float) -> None:
        """See whether the last write met a reset; else write again."""
        if self._is_reset():
            self._lost()
            return
        self._ask()
        self._wait(min(4 * pause_s, LAST_PAUSE_S))
