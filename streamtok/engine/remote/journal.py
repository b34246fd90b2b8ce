"""What every unfinished sequence has received, so that another engine can continue it. Pure.

A token is a function of the weights, the prompt, the sampling parameters, the seed and the tokens
before it; nothing else. So a sequence does not need to be saved: when the engine's process dies,
its replacement gets the request again with the tokens received so far as `generated_ids`, computes
their keys and values like those of a prompt, and samples from there. The reader notices a pause.

What the replacement reports a second time (that the sequence has started, scores of its prompt) is
dropped here.

A request may be what kills the process. The sequences that ran in a crash and had got no token in
that process are its suspects: each token that an engine gives shows that it can compute the ones
before. The suspects' requests are submitted to the replacement one after the other, each once the
one before has got a token or has ended. A suspect is blamed for a crash if there was no other, or
if it was the one being tried; blamed for two in a row, it ends with an error. It is blamed by half
if the signal came from outside (SIGKILL, as by an operator or for want of memory) while others ran
too. So one request that always kills the process does not take the others with it, and those that
happened to be there when something else killed it go on.

Where several engines compute, each has a journal, and what one cannot continue is handed over:
`release` takes a request out of a journal, `adopt` puts it into another one.

Read next: `streamtok.engine.remote.process`, which feeds the journal and replays it.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field, structs
from msgspec.structs import replace

from streamtok.engine.commands import HIGH_WATER, Addressed, Cancel, Command, Read, Submit
from streamtok.errors import EngineFailed
from streamtok.messages import (
    Event,
    Failed,
    Finished,
    Prefilled,
    PromptScored,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
)

WHOLE, HALF = 2, 1  # of the blame for a crash
MOST_BLAME = 2 * WHOLE  # in a row, without a token in between
NOT_EXACT = "the engine's process ended, and another may continue this text differently"
TWICE = "the engine's process ended again and again while it computed this"


class _Sequence(Struct):
    """One unfinished sequence: what its reader has received, and what the engine has reported."""

    request: SequenceRequest
    ids: list[int] = field(default_factory=list)
    started: bool = False  # its reader knows
    scored: int = 0  # how many scores of its prompt its reader has
    prefilled: bool = False  # its reader knows
    cancelled: bool = False
    running: bool = False  # in the present engine
    resumed_at: int = 0  # how many ids it had when it was submitted to the present engine
    rescored: int = 0  # how many scores of its prompt the present engine has reported
    suspected: bool = False  # it had got no token when the engine died that it ran in
    blame: int = 0  # for crashes in a row

    @property
    def progressed(self) -> bool:
        """Whether it has got a token in the present engine."""
        return len(self.ids) > self.resumed_at

    @property
    def suspect(self) -> bool:
        """Whether it may have killed the engine before, and has not got a token since."""
        return self.suspected and not self.progressed

    def resume(self) -> SequenceRequest:
        """Return the request for an engine to continue with."""
        self.running, self.resumed_at, self.rescored = False, len(self.ids), 0
        if not self.ids:
            return self.request
        # The scores of a prompt come before its first token: the reader has them all.
        return replace(self.request, generated_ids=tuple(self.ids), prompt_logprobs=False)

    def accept(self, event: Event) -> Event | None:
        """Take note of an event that is no token; return what of it is new to the reader."""
        if isinstance(event, Started):
            known, self.started, self.running = self.started, True, True
            return None if known else event
        if isinstance(event, Prefilled):
            known, self.prefilled = self.prefilled, True
            return None if known else event
        if isinstance(event, PromptScored):
            return self._accept_scores(event)
        return event

    def _accept_scores(self, event: PromptScored) -> PromptScored | None:
        known = self.scored - self.rescored
        self.rescored += len(event.logprobs)
        if self.rescored <= self.scored:
            return None
        self.scored = self.rescored
        return structs.replace(event, logprobs=event.logprobs[known:]) if known > 0 else event

    def add_blame(self, share: int) -> None:
        """Note that the engine died while it ran there."""
        self.suspected = not self.progressed
        self.blame = self.blame + share if self.suspected else 0


class Entry(Struct):
    """A request: its unfinished sequences, and the state of its flow control.

    The present engine counts from 0 when the request is submitted to it, and it counts events that
    are dropped here as well; `offset` translates the reader's count into the engine's.
    """

    sequences: dict[int, _Sequence]
    delivered: int = 0  # events, to its reader
    read: int = 0  # events that the reader is known to have taken
    offset: int = 0

    @property
    def suspect(self) -> bool:
        """Whether one of its sequences is."""
        return any(sequence.suspect for sequence in self.sequences.values())

    @property
    def blame(self) -> int:
        """How much of the blame for crashes in a row is on one of its sequences."""
        return max(sequence.blame for sequence in self.sequences.values())

    @property
    def requests(self) -> list[SequenceRequest]:
        """Its unfinished sequences, as they were asked for."""
        return [sequence.request for sequence in self.sequences.values()]

    @property
    def cancelled(self) -> bool:
        """Whether one of its sequences is, and only its end has not come yet."""
        return any(sequence.cancelled for sequence in self.sequences.values())

    def so_far(self) -> list[SequenceRequest]:
        """Return requests that compute what its sequences have, and nothing new."""
        return [
            SequenceRequest(
                index,
                (*sequence.request.prompt_ids, *sequence.ids),
                SamplingParams(),
                max_tokens=0,
                client=sequence.request.client,
            )
            for index, sequence in self.sequences.items()
            if not sequence.request.embed
        ]

    def running(self) -> list[_Sequence]:
        """Return the sequences that may have killed the engine: not those that were paused."""
        if self.delivered - self.read > HIGH_WATER:
            return []
        return [sequence for sequence in self.sequences.values() if sequence.running]


class Journal:
    """The unfinished requests of one client of an engine.

    It takes the client's commands and the engine's events. While an engine is `up`, what it is to
    be sent comes from `due`. `resumed` counts sequences that another engine has continued.
    """

    def __init__(self, *, up: bool = True) -> None:
        self.resumed = 0
        self.up = up
        self._requests: dict[str, Entry] = {}
        self._held: dict[str, None] = {}  # requests that the engine does not have, in order
        self._tried: str | None = None  # the suspect that the engine has
        self._due: list[Command] = []

    def __len__(self) -> int:
        return sum(len(request.sequences) for request in self._requests.values())

    @property
    def running(self) -> int:
        """How many sequences have left the engine's queue."""
        entries = self._requests.values()
        return sum(sequence.running for entry in entries for sequence in entry.sequences.values())

    @property
    def names(self) -> list[str]:
        """The ids of the requests, in order."""
        return list(self._requests)

    def __getitem__(self, request_id: str) -> Entry:
        return self._requests[request_id]

    # To and from the journal of another engine

    def release(self, request_id: str) -> Entry:
        """Take out a request, of which no more events of this engine's are accepted."""
        self._held.pop(request_id, None)
        return self._requests.pop(request_id)

    def adopt(self, request_id: str, entry: Entry) -> None:
        """Put in a request, which the engine continues when it is up; a suspect in its turn."""
        self._requests[request_id] = entry
        self._held[request_id] = None
        if self.up and not entry.suspect:
            self._resubmit(request_id)

    # From the client

    def note(self, command: Command) -> list[Addressed]:
        """Take note of a command; return the ends of sequences that no engine needs to end."""
        if isinstance(command, Submit):
            self._submit(command)
        elif isinstance(command, Cancel):
            return self._cancel(command)
        elif isinstance(command, Read) and (request := self._requests.get(command.request_id)):
            request.read = command.count
            if command.request_id not in self._held:
                self._due.append(Read(command.request_id, command.count + request.offset))
        return []

    def due(self) -> list[Command]:
        """Return what the engine is to be sent, and forget it."""
        tried = self._requests.get(self._tried or "")
        if self._held and not (tried and tried.suspect):
            self._tried = min(self._held, key=lambda name: self._requests[name].blame)
            self._resubmit(self._tried)
        due, self._due = self._due, []
        return due

    def _submit(self, submit: Submit) -> None:
        sequences = {sequence.index: _Sequence(sequence) for sequence in submit.sequences}
        self._requests[submit.request_id] = Entry(sequences)
        if self.up:
            self._due.append(submit)
        else:
            self._held[submit.request_id] = None

    def _cancel(self, cancel: Cancel) -> list[Addressed]:
        request = self._requests.get(cancel.request_id)
        if request is None:
            return []
        for index, sequence in request.sequences.items():
            sequence.cancelled = sequence.cancelled or cancel.index in (None, index)
        if cancel.request_id in self._held:
            return self._ends_of_cancelled(cancel.request_id)
        self._due.append(cancel)
        return []

    # From the engine

    def accept(self, events: Iterable[Addressed]) -> Iterator[Addressed]:
        """Take note of events; yield what of them is new to the readers."""
        for request_id, event in events:
            request = self._requests[request_id]
            sequence = request.sequences[event.index]
            if isinstance(event, TokenEvent):
                sequence.ids.append(event.token_id)
                request.delivered += 1
                yield request_id, event
                continue
            new = sequence.accept(event)
            if new is None:
                request.offset += 1
                self._due.append(Read(request_id, request.read + request.offset))
                continue
            request.delivered += 1
            if isinstance(new, Finished | Failed):
                self._end(request_id, event.index)
            yield request_id, new

    def crashed(self, *, exact: bool, outside: bool = False) -> list[Addressed]:
        """Take note that the engine is gone; return the ends of what cannot be continued.

        Unless the engine is `exact`, another might continue a text differently: then none is.
        `outside` says that a signal from outside ended it.
        """
        self._blame(outside)
        self.up, self._tried = False, None
        self._due.clear()
        self._held = dict.fromkeys(self._requests)
        ends: list[Addressed] = []
        for request_id, request in self._requests.items():
            ends += self._ends_of_cancelled(request_id)
            for index, sequence in request.sequences.items():
                if not sequence.cancelled and (error := _hopeless(sequence, exact=exact)):
                    ends.append((request_id, Failed(index, error, len(sequence.ids))))
        return ends

    def _blame(self, outside: bool) -> None:
        """Find out which sequences may have killed the engine."""
        present = [name for name in self._requests if name not in self._held]
        running = {name: self._requests[name].running() for name in present}
        suspects = {name for name, some in running.items() if not all(s.progressed for s in some)}
        for name, some in running.items():
            for sequence in some:
                share = HALF if outside and len(running) > 1 else WHOLE
                sequence.add_blame(share if name == self._tried or suspects == {name} else 0)

    def replay(self) -> None:
        """Have a new engine continue everything: suspects one by one, the others at once."""
        self.up = True
        for request_id in list(self._held):
            if not self._requests[request_id].suspect:
                self._resubmit(request_id)

    def _resubmit(self, request_id: str) -> None:
        """Submit what is left of a request to the engine, which counts from 0."""
        del self._held[request_id]
        request = self._requests[request_id]
        request.offset = -request.delivered
        self.resumed += sum(bool(sequence.ids) for sequence in request.sequences.values())
        sequences = tuple(sequence.resume() for sequence in request.sequences.values())
        self._due.append(Submit(request_id, sequences))
        self._due.append(Read(request_id, request.read + request.offset))

    def _ends_of_cancelled(self, request_id: str) -> list[Addressed]:
        return [
            (request_id, Finished(index, "cancelled", len(sequence.ids)))
            for index, sequence in self._requests[request_id].sequences.items()
            if sequence.cancelled
        ]

    def _end(self, request_id: str, index: int) -> None:
        sequences = self._requests[request_id].sequences
        del sequences[index]
        if not sequences:
            del self._requests[request_id]
            self._held.pop(request_id, None)


def _hopeless(sequence: _Sequence, *, exact: bool) -> EngineFailed | None:
    """Return why another engine cannot continue a sequence, if it cannot."""
    if sequence.ids and not exact:
        return EngineFailed(NOT_EXACT)
    return EngineFailed(TWICE) if sequence.blame >= MOST_BLAME else None
