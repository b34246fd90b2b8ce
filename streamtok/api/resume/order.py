"""The events of an answer's sequences in one order, whatever the load. Pure.

The engine's sequences share its steps as the load allows, so that the choices of one answer
interleave differently each time. Here they take turns: each gives what it has up to its next token,
or to its end. A sequence that is not wanted any more is not waited for.

Read next: `streamtok.api.resume.engine`.
"""

from collections import deque
from collections.abc import Iterable

from streamtok.engine.commands import ENDS
from streamtok.messages import Event, TokenEvent


class Order:
    """Takes events as they come, and gives them in order."""

    def __init__(self, indexes: Iterable[int]) -> None:
        self._turns = deque(indexes)  # sequences that have not ended; the first has its turn
        self._waiting: dict[int, deque[Event]] = {index: deque() for index in self._turns}
        self._free: deque[Event] = deque()  # of sequences that are not wanted any more

    def put(self, event: Event) -> None:
        """Take an event."""
        self._waiting.get(event.index, self._free).append(event)

    def take(self) -> Event | None:
        """Return the next event, if it has come."""
        if self._free:
            return self._free.popleft()
        if not self._turns or not (waiting := self._waiting[self._turns[0]]):
            return None
        event = waiting.popleft()
        if isinstance(event, ENDS):
            self.release(event.index)
        elif isinstance(event, TokenEvent):
            self._turns.rotate(-1)
        return event

    def release(self, index: int | None = None) -> None:
        """Wait no longer for a sequence, or for any; what comes of it is given at once."""
        for one in list(self._waiting) if index is None else [index]:
            if one in self._waiting:
                self._turns.remove(one)
                self._free.extend(self._waiting.pop(one))
