"""The ladder: each of its servers sends the bytes of the real one, and shows what it claims."""

import ast
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import streamtok.first
from streamtok.first import REQUEST, framing, leaving, queue, tokens
from streamtok.first.events import Fields
from streamtok.testing import RunningServer

LADDER = ("chunks", "events", "framing", "tokens", "queue", "leaving")
FOLDER = Path(streamtok.first.__file__).parent
PLAIN = "Accept: text/plain\r\n"


def request(body: str = REQUEST, headers: str = "") -> bytes:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{headers}"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    """Send bytes, and return all that comes until the server closes the connection."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def without_ids(answer: bytes) -> bytes:
    """Return an answer without what is another in each: the date, and ids."""
    answer = re.sub(rb"(?m)^Date: .*\r$", b"Date: -\r", answer)
    answer = re.sub(rb'"created":\d{10}', b'"created":0', answer)
    return re.sub(rb"(req_|cmpl-)[0-9a-f]{24}", rb"\1-", answer)


@contextmanager
def running(name: str) -> Iterator[tuple[tuple[str, int], str]]:
    """Run a file of the ladder as a program; give its address, and the command it proposes."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"streamtok.first.{name}", "0"],
        # two processes with a BLAS each, on few cores, would mostly wait for each other
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line, command = process.stdout.readline(), process.stdout.readline()
        match = re.fullmatch(r"listening at http://127\.0\.0\.1:(\d+); ask it with\n", line)
        assert match, line + process.communicate()[1]
        yield ("127.0.0.1", int(match[1])), command.strip()
    finally:
        process.kill()
        process.communicate()


# The bytes


@pytest.mark.parametrize("name", LADDER)
def test_a_file_run_as_a_program_sends_the_bytes_of_the_real_server(
    name: str, server: RunningServer
) -> None:
    accept = PLAIN if name == "chunks" else ""
    sent = request(headers=f"{accept}Connection: close\r\n")
    expected = without_ids(exchange(server.address, sent))
    assert b"\r\n0\r\n\r\n" in expected
    with running(name) as (address, command):
        found = without_ids(exchange(address, sent))
        assert f"http://127.0.0.1:{address[1]}/v1/completions -d '{REQUEST}'" in command
        assert command.startswith("curl -N --raw -H 'Connection: close' ")
    assert found == expected, "has the model changed? see scripts/golden/first.py"


def test_recorded_tokens_are_the_ones_that_are_computed() -> None:
    model = tokens.Model()
    reader = tokens.Tokenizer(streamtok.first.FOLDER)
    ids = list(reader.encode(json.loads(REQUEST)["prompt"], special=True))
    asked = msgspec.json.decode(REQUEST, type=Fields)

    async def texts() -> tuple[str, ...]:
        return tuple([reader.decode([token]) async for token in model.generate(ids, asked)])

    assert asyncio.run(texts()) == streamtok.first.TOKENS


@contextmanager
def serving(respond: Any, drain: Any = asyncio.StreamWriter.drain) -> Iterator[Any]:
    """Give a function that sends bytes to `framing`'s server, and returns what comes back."""

    async def ask(sent: bytes) -> bytes:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await framing.converse(respond, reader, writer, drain)
            writer.close()

        listener = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with listener:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            writer.write(sent)
            answer = await reader.read()
            writer.close()
        return answer

    yield ask


async def one_piece(asked: Fields) -> AsyncGenerator[tuple[str, str | None], None]:
    yield asked.prompt, None
    yield "", "length"


async def test_framing_keeps_the_connection_and_answers_in_order() -> None:
    bodies = ['{"prompt": "one"}', '{"prompt": "two"}', '{"prompt": "three"}']
    sent = b"".join(request(body) for body in bodies[:2])
    with serving(one_piece) as ask:
        answer = await ask(sent + request(bodies[2], "Connection: close\r\n"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == answer.count(b"\r\n0\r\n\r\n") == 3
    assert re.findall(rb'"text":"(\w+)"', answer) == [b"one", b"two", b"three"]
    assert answer.count(b"Connection: close\r\n") == 1


async def test_framing_ends_the_body_by_closing_where_the_client_speaks_http_1_0() -> None:
    with serving(one_piece) as ask:
        answer = await ask(request('{"prompt": "one"}').replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"Transfer-Encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GARBAGE\r\n\r\n", "illegal request line"),
        (request("{", "Connection: close\r\n"), "truncated"),
        (request('{"prompt": 1}', "Connection: close\r\n"), "Expected `str`, got `int`"),
        (request('{"prompt": "", "max_tokens": 0}', "Connection: close\r\n"), "max_tokens"),
        (request("[]", "Connection: close\r\n"), "Expected `object`, got `array`"),
    ],
)
async def test_framing_names_what_is_wrong(sent: bytes, words: str) -> None:
    with serving(one_piece) as ask:
        head, _, body = (await ask(sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert words in body.decode()


# The model, the queue, and those who leave


def events_of(answer: bytes) -> list[Any]:
    return [json.loads(data) for data in re.findall(rb"(?m)^data: (\{.*\})$", answer)]


def text_of(answer: bytes) -> str:
    return "".join(event["choices"][0]["text"] for event in events_of(answer))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seeded_draw_is_that_of_the_real_server(server: RunningServer, seed: int) -> None:
    neutral = {"prompt": "The owl", "max_tokens": 12, "temperature": 1.0, "seed": seed, "min_p": 0}
    sent = request(json.dumps(neutral | {"stream": True}), "Connection: close\r\n")
    with running("queue") as (address, _):
        found = exchange(address, sent)
    assert text_of(found) == text_of(exchange(server.address, sent)) != ""


async def some_tokens(ids: list[int], asked: Fields) -> AsyncGenerator[int, None]:
    for token in ids[1:]:  # without the beginning-of-text token
        yield token


async def test_a_piece_never_ends_within_a_character() -> None:
    tokenizer = tokens.Tokenizer(streamtok.first.FOLDER)
    text = "a \N{FOX FACE} b"
    asked = Fields(text)
    shown = [piece async for piece in tokens.pieces(some_tokens, tokenizer, asked)]
    assert "".join(piece for piece, _ in shown) == text
    assert not any("\ufffd" in piece for piece, _ in shown)
    assert shown[-1] == ("", "length")


async def test_what_ends_within_a_character_is_shown_as_such() -> None:
    tokenizer = tokens.Tokenizer(streamtok.first.FOLDER)
    ids = tokenizer.encode("\N{FOX FACE}", special=False)
    assert len(ids) > 1, "one token: another character is needed for this test"

    async def cut(_: list[int], asked: Fields) -> AsyncGenerator[int, None]:
        for token in ids[:-1]:
            yield token

    shown = [piece async for piece in tokens.pieces(cut, tokenizer, Fields(""))]
    assert set("".join(piece for piece, _ in shown)) == {"\ufffd"}


async def test_a_stop_token_ends_an_answer() -> None:
    tokenizer = tokens.Tokenizer(streamtok.first.FOLDER)
    word = tokenizer.encode("word", special=False)

    async def stopping(_: list[int], asked: Fields) -> AsyncGenerator[int, None]:
        for token in (*word, min(tokenizer.stop_ids), *word):
            yield token

    shown = [piece async for piece in tokens.pieces(stopping, tokenizer, Fields(""))]
    assert "".join(text for text, _ in shown) == "word"
    assert shown[-1] == ("", "stop")


async def test_clients_share_the_steps_and_get_what_they_would_get_alone() -> None:
    engine = queue.Engine(asyncio.get_running_loop(), slots=2)
    prompts = [[5, 6, 7], [8], [9, 10], [5, 6, 7]]  # more than slots

    async def generated(ids: list[int], count: int) -> list[int]:
        asked = Fields("", count, temperature=1.0, seed=3)
        return [token async for token in engine.generate(list(ids), asked)]

    alone = [await generated(ids, 3 + n) for n, ids in enumerate(prompts)]
    together = await asyncio.gather(*(generated(ids, 3 + n) for n, ids in enumerate(prompts)))
    assert together == alone
    assert [len(ids) for ids in alone] == [3, 4, 5, 6]


async def test_a_client_that_leaves_gives_back_its_slot() -> None:
    engine = leaving.CarefulEngine(asyncio.get_running_loop())
    for _ in range(2 * engine._free.qsize()):
        async with aclosing(engine.generate([5, 6], Fields("", 500))) as stream:
            assert isinstance(await anext(stream), int)
    assert len([token async for token in engine.generate([5], Fields("", 4))]) == 4


async def test_a_reader_that_takes_nothing_pauses_its_own_sequence_only() -> None:
    engine = leaving.CarefulEngine(asyncio.get_running_loop())
    async with aclosing(engine.generate([5, 6], Fields("", 70, temperature=0))) as slow:
        first = await anext(slow)
        # Meanwhile another one takes more steps than the bound allows the first.
        others = [t async for t in engine.generate([7], Fields("", 3 * leaving.HIGH_WATER))]
        assert len(others) == 3 * leaving.HIGH_WATER
        assert engine._running == []
        unread = max(sequence.queue.qsize() for sequence in list(engine._unread))
        assert unread == leaving.HIGH_WATER - 1  # and the one that was taken
        rest = [token async for token in slow]
    alone = [t async for t in engine.generate([5, 6], Fields("", 70, temperature=0))]
    assert [first, *rest] == alone


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "STALL_S", 0.01)
    ended = asyncio.Event()

    async def flood(asked: Fields) -> AsyncGenerator[tuple[str, str | None], None]:
        try:
            while True:
                yield "x" * 65536, None
        finally:
            ended.set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(TimeoutError):
            await framing.converse(flood, reader, writer, leaving.drain)
        assert writer.transport.is_closing()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listener:
        with socket.create_connection(listener.sockets[0].getsockname()) as client:
            client.sendall(request())
            await ended.wait()


# The files


@pytest.mark.parametrize("name", LADDER)
def test_a_file_is_short_and_ends_its_docstring_with_what_it_leaves_out(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 90
    docstring = ast.get_docstring(ast.parse(text)) or ""
    last = " ".join(docstring.split("\n\n")[-1].split())
    assert last.startswith("What this does not do: ")
    assert "Read next: `streamtok." in last
    for module in re.findall(r"`streamtok\.([\w.]+)`", docstring):
        path = FOLDER.parent / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), module


def test_the_ladder_names_its_files_in_order() -> None:
    docstring = streamtok.first.__doc__ or ""
    assert tuple(re.findall(r"(?m)^    (\w+)  ", docstring)) == LADDER
    assert {path.stem for path in FOLDER.glob("*.py")} == {"__init__", *LADDER}
