"""What a server adds to a request, kept so that the same answer can be made of it again. Pure.

Nothing else goes into an answer's bytes: its id, from which all ids in it are derived; the seed;
what the clock said; how many of the prompts' tokens were cached. Each is asked for in the same
order every time, and is answered from the recording as far as that goes.

Read next: `streamtok.api.resume.order`, on what else would differ from run to run.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

from msgspec import Struct, field
from msgspec.structs import replace

from streamtok import __version__
from streamtok.clock import Clock
from streamtok.ids import NewId
from streamtok.messages import SequenceRequest

DIGITS = 24  # of an id, as `streamtok.ids` makes them


class Recording(Struct):
    """What was added to one request; `times` in seconds since 1970, `cached` by sequence."""

    id: str = ""
    seed: int | None = None
    times: list[float] = field(default_factory=list)
    cached: dict[int, int] = field(default_factory=dict)


class Recorder:
    """Answers from a recording, and adds to it what it does not have; `changed` says that it did.

    With `is_replay`, the recording's answer has begun before.
    """

    def __init__(self, recording: Recording, *, is_replay: bool) -> None:
        self.recording = recording
        self.changed = False
        self._is_replay = is_replay
        self._ids = 0

    def new_id(self, make: NewId) -> NewId:
        """Return what gives the answer's id first, and then those of what is in it."""

        def new_id(prefix: str) -> str:
            self._ids += 1
            if self._ids > 1:
                text = f"{self.recording.id} {self._ids} {prefix}"
                return prefix + sha256(text.encode()).hexdigest()[:DIGITS]
            if not self.recording.id:
                self.recording.id = make(prefix)
            return self.recording.id

        return new_id

    def new_seed(self, make: Callable[[], int]) -> Callable[[], int]:
        """Return what gives the seed."""

        def new_seed() -> int:
            if self.recording.seed is None:
                self.recording.seed = make()
            return self.recording.seed

        return new_seed

    def cached(self, index: int, cached: int) -> int:
        """Return how many tokens of a sequence's prompt were cached, `cached` unless known."""
        if self._is_replay:
            return self.recording.cached.get(index, 0)
        if cached:
            self.recording.cached[index] = cached
            self.changed = True
        return cached


class RecordedClock:
    """The time as it was when it was asked for first."""

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self._recorder = recorder
        self._times = recorder.recording.times
        self._asked = 0
        self._wall_s = clock.wall_s
        self.monotonic_s = clock.monotonic_s

    def wall_s(self) -> float:
        """See `Clock.wall_s`."""
        self._asked += 1
        if self._asked > len(self._times):
            self._times.append(self._wall_s())
            self._recorder.changed = True
        return self._times[self._asked - 1]


def digest(sequences: Sequence[SequenceRequest]) -> str:
    """Return a text that differs where another server would make other bytes of a request.

    Templates, defaults and settings all end in the `sequences`; what is made of their tokens is
    the program's.
    """
    shown = [
        (replace(sequence, client="", stop_ids=frozenset()), sorted(sequence.stop_ids))
        for sequence in sequences
    ]
    return sha256(f"{__version__} {shown!r}".encode()).hexdigest()
