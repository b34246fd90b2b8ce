"""Streams of all dialects survive the death of the engine and of the server; killers do not."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from streamtok.engine.commands import Addressed, Read, Submit
from streamtok.engine.remote import restarts
from streamtok.engine.remote.journal import TWICE, Journal
from streamtok.errors import EngineFailed
from streamtok.messages import (
    Failed,
    Finished,
    SamplingParams,
    SequenceRequest,
    Started,
    TokenEvent,
)
from streamtok.testing import write_model

SCRIPTS = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with a context in which all requests have room."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return str(write_model(folder, max_position_embeddings=1024))


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not SCRIPTS.exists():
        pytest.skip("not a checkout")
    monkeypatch.syspath_prepend(SCRIPTS)
    return import_module(name)


def test_thirty_two_streams_survive_five_deaths_of_the_engine(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.05)  # of pauses that double
    arguments = ["--model", model, "--tokens", "20"]
    status = script("survive", monkeypatch).main(arguments)
    said = capsys.readouterr().out
    assert "32 streams, 5 kills, 0 different" in said, said[-3000:]
    assert status == 0


def test_thirty_two_streams_and_their_rows_survive_two_deaths_of_the_server(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model, "--tokens", "20"]
    status = script("survive_server", monkeypatch).main(arguments)
    said = capsys.readouterr().out
    assert "32 streams, 2 kills of the server" in said, said[-3000:]
    assert " 0 different, not in the ledger: []" in said, said[-3000:]
    assert status == 0


# What kills the process


class Crowd:
    """A journal, and an engine that dies as soon as it runs a certain request."""

    def __init__(self, names: str, poison: str) -> None:
        self.journal = Journal()
        self.poison = poison
        self.crashes = 0
        self.outside = False
        self.ends: dict[str, Failed | Finished] = {}
        self.tokens = dict.fromkeys(names, 0)
        self.due = []
        for name in names:
            request = SequenceRequest(0, (1, 2), SamplingParams(), max_tokens=9)
            self.journal.note(Submit(name, (request,)))

    def run(self) -> None:
        """Let engines run, one after the other, until everything has ended."""
        while len(self.journal):
            engine = self.present()
            if any(self.poison == name for name, _ in engine):
                self.crash(engine)
            else:
                self.accept([(name, TokenEvent(0, 7)) for name, _ in engine])
                self.accept([(name, Finished(0, "length", 9)) for name, _ in engine])

    def present(self) -> list[tuple[str, SequenceRequest]]:
        """Return what the engine is given now, all of which it starts."""
        submits = [command for command in self.journal.due() if isinstance(command, Submit)]
        found = [(submit.request_id, submit.sequences[0]) for submit in submits]
        self.accept([(name, Started(0)) for name, _ in found])
        return found

    def crash(self, engine: list[tuple[str, SequenceRequest]]) -> None:
        self.crashes += 1
        self.accept(self.journal.crashed(exact=True, outside=self.outside))
        self.journal.replay()

    def accept(self, events: list[Addressed]) -> None:
        for name, event in self.journal.accept(events):
            if isinstance(event, Failed | Finished):
                assert name not in self.ends
                self.ends[name] = event
            elif isinstance(event, TokenEvent):
                self.tokens[name] += 1


@pytest.mark.parametrize("place", range(5))
def test_what_always_kills_the_process_ends_and_takes_none_with_it(place: int) -> None:
    crowd = Crowd("abcde", "abcde"[place])
    crowd.run()
    for name, end in crowd.ends.items():
        if name == crowd.poison:
            assert isinstance(end, Failed)
            assert end.error.message == TWICE
        else:
            assert isinstance(end, Finished)
    assert crowd.crashes == 3  # in a crowd, and then twice when it was tried
    assert len(crowd.ends) == 5


def test_a_signal_from_outside_is_half_the_blame_while_others_run() -> None:
    crowd = Crowd("ab", "a")
    crowd.outside = True
    crowd.accept([(name, TokenEvent(0, 1)) for name, _ in crowd.present() if name == "b"])
    for crashes in range(1, 5):
        crowd.crash([])
        assert (crashes == 4) == ("a" in crowd.ends)
        crowd.accept([(name, TokenEvent(0, 1)) for name, _ in crowd.present() if name == "b"])
    assert "b" not in crowd.ends


def test_alone_it_ends_at_the_second_crash() -> None:
    crowd = Crowd("a", "a")
    crowd.run()
    assert crowd.crashes == 2
    assert isinstance(crowd.ends["a"], Failed)


def test_a_paused_sequence_is_not_blamed() -> None:
    crowd = Crowd("a", "a")
    crowd.present()
    crowd.accept([("a", TokenEvent(0, 7))] * 100)  # which nobody reads
    for _ in range(5):
        crowd.crash(crowd.present())
    assert crowd.ends == {}


def test_another_engine_counts_what_is_read_from_where_it_began() -> None:
    crowd = Crowd("a", "")
    crowd.present()
    crowd.accept([("a", TokenEvent(0, token)) for token in range(40)])
    crowd.journal.note(Read("a", 32))
    crowd.crash([])
    submit, read = crowd.journal.due()
    assert isinstance(submit, Submit)
    assert submit.sequences[0].generated_ids == tuple(range(40))
    assert read == Read("a", 32 - 41)  # nine are unread: 40 tokens and the start were delivered
    crowd.accept([("a", Started(0))])  # known: but the engine has counted it
    assert crowd.journal.due() == [Read("a", 32 - 41 + 1)]
    crowd.accept([("a", TokenEvent(0, 40))])
    crowd.journal.note(Read("a", 42))
    assert crowd.journal.due() == [Read("a", 2)]  # both of this engine's


def test_an_engine_that_is_not_exact_continues_only_what_has_no_token() -> None:
    journal = Journal()
    request = SequenceRequest(0, (1, 2), SamplingParams(), max_tokens=9)
    journal.note(Submit("begun", (request,)))
    journal.note(Submit("waits", (request,)))
    list(journal.accept([("begun", Started(0)), ("begun", TokenEvent(0, 7))]))
    ends = journal.crashed(exact=False)
    assert [name for name, _ in ends] == ["begun"]
    assert isinstance(ends[0][1], Failed)
    assert isinstance(ends[0][1].error, EngineFailed)
    assert ends[0][1].generated == 1
