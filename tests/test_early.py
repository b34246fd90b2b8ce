"""The engine's process may be started before the server: it is taken over, or it ends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamtok.config import EngineConfig
from streamtok.engine.remote import early as early_module
from streamtok.engine.remote import process
from streamtok.engine.remote.early import EarlyProcess, start
from streamtok.errors import ModelError
from streamtok.messages import Finished, SamplingParams, SequenceRequest

REQUEST = SequenceRequest(0, (5, 6, 7), SamplingParams(temperature=0.0), max_tokens=3)


@pytest.fixture
def early(tiny_model: Path) -> Iterator[EarlyProcess]:
    started = start(str(tiny_model))
    if started is None:
        pytest.skip("processes cannot be started so early here")
    yield started
    started.close()


async def test_it_is_the_engines_first_process(early: EarlyProcess, tiny_model: Path) -> None:
    engine = await process.start_engine(EngineConfig(model=str(tiny_model)), None, early)
    assert engine.pid == early.pid
    early.close()  # it is not its any more
    assert early.take() is None
    events = [event async for event in engine.submit("a", [REQUEST])]
    assert events[-1] == Finished(0, "length", 3)
    await engine.close()


def test_it_ends_where_nobody_takes_it(early: EarlyProcess) -> None:
    early.close()
    assert early.take() is None
    with pytest.raises(ProcessLookupError):
        os.kill(early.pid, 0)


async def test_what_is_wrong_with_the_model_is_said_as_ever(tmp_path: Path) -> None:
    if early := start(str(tmp_path)):
        with pytest.raises(ModelError):
            await process.start_engine(EngineConfig(model=str(tmp_path)), None, early)
        early.close()


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        ("serve", ""),
        ("serve --port 0 --model=a", "a"),
        ("serve --model a --model b --port 0", "b"),
        ("serve --model", ""),
        ("serve --engine thread", None),
        ("serve --engine=ray --model a", None),
        ("serve --workers 2", None),
        ("serve --help", None),
        ("generate x", None),
        ("", None),
    ],
)
def test_a_command_line_that_serves_starts_it(
    arguments: str, model: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(early_module, "start", started.append)
    early_module.ahead(arguments.split(), {})
    early_module.ahead(arguments.split(), {"STREAMTOK_ENGINE": "thread"})
    assert started == ([] if model is None else [model])
