"""The pytest plugin, as projects use it that test a client; and bytes that repeat anywhere."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from documents import blocks, help_page
from numpy._core._multiarray_umath import __cpu_dispatch__

from streamtok.clock import FROZEN_S
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError, InvalidRequest
from streamtok.ids import SequentialIds, new_ids
from streamtok.testing import RunningServer, running_server
from streamtok.testing.fixture import TestedServer

ROOT = Path(__file__).parent.parent
EXAMPLES = [block for language, block in blocks(help_page("testing")) if language == "python"]
GOLDEN = ROOT / "tests" / "golden" / "hello.http"
HELLO = [{"role": "user", "content": "Hello"}]
BODY = {"messages": HELLO, "stream": True, "max_tokens": 5, "temperature": 0}


# As a stranger would


def strangers_tests(folder: Path, code: str, **environment: str) -> str:
    """Run `code` as a project's tests, with their golden file; return what pytest says."""
    (folder / "test_client.py").write_text(code)
    shutil.copy(GOLDEN, folder)
    others = ("asyncio", "anyio", "hypothesispytest", "cacheprovider")
    command = [sys.executable, "-m", "pytest", "--strict-markers", "-p", "streamtok.pytest_plugin"]
    done = subprocess.run(
        [*command, *(part for name in others for part in ("-p", f"no:{name}"))],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_examples_in_the_help_pass(tmp_path: Path) -> None:
    """And a fixture of another scope, and the one of the session, whose ids go on."""
    scopes = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_ids_go_on(server, streamtok_session_server, number):
    for one in (server, streamtok_session_server):
        assert b"req_%024d" % number in one.raw({}, path="/v1/completions")
"""
    assert "6 passed in" in strangers_tests(tmp_path, "\n".join((*EXAMPLES, scopes)))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other kernels are x86-64's")
def test_the_golden_bytes_are_those_of_an_older_machine_too(tmp_path: Path) -> None:
    """Older instructions add in another order, and give other last bits."""
    golden_alone = EXAMPLES[0].partition("def test_a_cut")[0]
    older = {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__),
    }
    assert "1 passed" in strangers_tests(tmp_path, golden_alone, **older)


def test_who_does_not_use_it_does_not_wait_for_it(tmp_path: Path) -> None:
    code = """
import sys

def test_nothing_is_loaded():
    assert not {"numpy", "h11", "streamtok.app"} & sys.modules.keys()
"""
    assert "1 passed in" in strangers_tests(tmp_path, code)


def test_flags_are_a_projects_and_a_tests_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    settings = "[pytest]\nstreamtok_args = --max-queue 7 --cors-origins *\n"
    (tmp_path / "pytest.ini").write_text(settings)
    code = """
import pytest, urllib.request

@pytest.mark.streamtok("--cors-origins", "http://a")
def test_it(streamtok_server):
    with urllib.request.urlopen(streamtok_server.url + "/health") as answer:
        assert answer.headers["access-control-allow-origin"] == "http://a"

@pytest.mark.streamtok("--max-queues", "1")
def test_flag(streamtok_server): pass

@pytest.mark.streamtok("--model", "/nowhere")
def test_model(streamtok_server): pass
"""
    said = strangers_tests(tmp_path, code)
    assert re.search(r"ConfigError: streamtok serve does not know .*--max-queues 1\n", said)
    assert "ModelError: /nowhere" in said
    assert "1 passed, 2 errors" in said


# The fixture itself


@pytest.fixture
def small(tiny_model: Path, request: pytest.FixtureRequest) -> TestedServer:
    """A tested server with the tiny model, which says anything but makes no sense."""
    request.node.add_marker(pytest.mark.streamtok("--model", str(tiny_model)))
    server: TestedServer = request.getfixturevalue("streamtok_server")
    return server


TINY = BODY | {"model": "tiny"}


@pytest.mark.parametrize("_", [1, 2])
def test_ids_begin_anew_in_each_test(small: TestedServer, _: int) -> None:
    ids = [re.findall(rb'"id":"([^"]*)"', small.raw(TINY))[0] for _ in range(2)]
    assert ids == [b"chatcmpl-%024d" % number for number in (1, 2)]
    request_ids = re.findall(rb"X-Request-Id: (\w+)", small.raw(TINY))
    assert request_ids == [b"req_%024d" % 3]


def test_the_same_request_gets_the_same_bytes(tiny_model: Path) -> None:
    config = ServeConfig(
        model=str(tiny_model), port=0, ledger=":memory:", frozen_clock=True, ids="sequential"
    )
    answers = []
    for _ in range(2):
        with running_server(config) as running:
            body = TINY | {"temperature": 1, "seed": 3}
            answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
            answers.append((answer.headers.raw, answer.content))
            models = httpx.get(f"{running.url}/v1/models").json()
    assert answers[0] == answers[1]
    assert (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT") in answers[0][0]
    assert b'"created":%d' % FROZEN_S in answers[0][1]
    assert models["data"][0]["created"] == FROZEN_S


def test_faults_have_headers(small: TestedServer) -> None:
    assert small.fault("bom") == {"X-Fault": "bom"}
    assert small.fault("stall", at=5, seconds=0.5) == {"X-Fault": "stall;at=5;seconds=0.5"}
    with pytest.raises(InvalidRequest, match="there is no fault 'stahl'"):
        small.fault("stahl")


async def test_an_asynchronous_client(small: TestedServer) -> None:
    async with small.async_client() as client:
        stream = await client.chat.completions.create(**TINY)
        assert len([chunk async for chunk in stream]) > 2
        busy = small.fault("status", code=503, retry_after=0)
        with pytest.raises(openai.InternalServerError):  # it does not try again either
            await client.chat.completions.create(**TINY, extra_headers=busy)


def test_programs_are_sent_to_the_server_by_variables(
    small: TestedServer, streamtok_env: dict[str, str]
) -> None:
    assert {name: os.environ[name] for name in small.env} == small.env == streamtok_env
    small.script({"answer": "Hello!"})
    with openai.OpenAI() as client, anthropic.Anthropic() as other:
        answer = client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
        message = other.messages.create(model="m", max_tokens=9, messages=HELLO)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == message.content[0].text == "Hello!"  # type: ignore[union-attr]


def test_bytes_until_a_reset(small: TestedServer) -> None:
    with pytest.raises(ConnectionResetError):
        small.raw(TINY, headers=small.fault("reset"))
    assert small.raw(TINY, headers=small.fault("close")).endswith(b"data: [DONE]\n\n\r\n")


def test_the_books_wait_for_an_answer_that_was_left(small: TestedServer) -> None:
    stream = small.client().chat.completions.create(**TINY | {"max_tokens": 100})
    with stream:
        answer_id = next(iter(stream)).id
    record = small.ledger.get(answer_id)
    assert (record.id, record.stream) == (answer_id, True)


def test_who_leaves_a_stalled_stream_frees_its_place(small: TestedServer) -> None:
    stream = small.client().chat.completions.create(**TINY, extra_headers=small.fault("stall"))
    with stream:
        chunks = iter(stream)
        next(chunks)  # the role; then comes the one token before the stall
        answer_id = next(chunks).id
    # It went on to where the client was, and may have reached its end before it heard of that.
    assert small.ledger.get(answer_id).finish_reason in ("cancelled", "length")


def test_what_was_never_asked_is_not_in_the_books(
    small: TestedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamtok.testing.fixture.BOOKING_S", 0.1)
    with pytest.raises(LookupError, match="nothing is booked for 'nobody'"):
        small.ledger.get("nobody")


def test_without_openai_the_client_says_what_is_missing(
    small: TestedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match="needs the package openai"):
        small.client()


def test_the_client_does_not_try_again_by_itself(small: TestedServer) -> None:
    client = small.client(default_headers=small.fault("status", code=429, times=1))
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**TINY)
    assert list(client.chat.completions.create(**TINY))


# Ids and times that repeat


def test_ids_count_for_each_prefix_in_as_many_digits_as_random_ones_have() -> None:
    ids = SequentialIds()
    assert [ids("req_"), ids("a-"), ids("req_")] == [
        "req_" + "1".zfill(24),
        "a-" + "1".zfill(24),
        "req_" + "2".zfill(24),
    ]
    make = new_ids("random")
    assert len(make("req_")) == len(ids("req_"))
    assert make("req_") != make("req_")


@pytest.mark.parametrize("given", [{"frozen_clock": True}, {"ids": "sequential"}])
def test_what_repeats_is_not_for_lasting_books(tmp_path: Path, given: dict[str, object]) -> None:
    config = ServeConfig(port=0, ledger=str(tmp_path / "books"), **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--ledger :memory:"), running_server(config):
        pass
    assert not (tmp_path / "books").exists()


def test_the_golden_file_is_of_the_model_that_is_shipped(server: RunningServer) -> None:
    """If it is not: `python scripts/golden/wire_bytes.py` writes it anew."""
    golden = GOLDEN.read_bytes()
    shown = json.loads(golden.split(b"data: ")[1].split(b"\n")[0])
    assert shown["system_fingerprint"] == server.app.engine.fingerprint
