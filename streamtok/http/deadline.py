"""Until when the next bytes of a request must have come, and how much of bodies is kept. Pure.

A head has a fixed time in all. A body may pause for `body_timeout_s` in all, and every
1 / `min_body_rate` seconds a byte gives that much back, but never more than it began with: a
body that was sent fast earns no extra pause. So a client cannot hold what it has sent for long
by sending one byte now and then (Slowloris).

Read next: `streamtok.http.probe`.
"""

from streamtok.config import ConnectionConfig
from streamtok.errors import Unavailable


class Deadline:
    """The deadline of one connection's next bytes, by a monotonic clock in seconds."""

    def __init__(self, limits: ConnectionConfig) -> None:
        self._limits = limits
        self._at_s = 0.0

    def left_s(self, now_s: float) -> float:
        """Return how many seconds are left; not above zero if it is past."""
        return self._at_s - now_s

    def wait(self, now_s: float, *, first: bool) -> None:
        """Wait for a request; for the `first` one of a connection not as long as later."""
        limits = self._limits
        self._at_s = now_s + (limits.header_timeout_s if first else limits.idle_timeout_s)

    def begin(self, now_s: float) -> None:
        """A request has begun: its head must be complete in time."""
        self._at_s = now_s + self._limits.header_timeout_s

    def begin_body(self, now_s: float) -> None:
        """The head is complete, and the body is waited for."""
        self._at_s = now_s + self._limits.body_timeout_s

    def receive(self, size: int, now_s: float) -> None:
        """Another `size` bytes of the body have come."""
        earned_s = size / self._limits.min_body_rate
        self._at_s = min(self._at_s + earned_s, now_s + self._limits.body_timeout_s)


class BodyBudget:
    """How many bytes of request bodies a server keeps at once, beyond `free` ones of each."""

    def __init__(self, size: int, free: int) -> None:
        self._left = size
        self._free = free

    def hold(self, held: int, size: int) -> int:
        """Return what is held for a body of `size` bytes, of which `held` were held before.

        Raises:
            Unavailable: there is no room for it.
        """
        wanted = max(0, size - self._free)
        if wanted - held > self._left:
            raise Unavailable(
                "the server has no room for more request bodies", code="request_bodies"
            )
        self._left -= wanted - held
        return wanted

    def release(self, held: int) -> None:
        """Give back what was held."""
        self._left += held
