"""Real sockets, the shipped model, real clients: what a user sees."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import openai
import pytest

from streamtok.app import App
from streamtok.config import ServeConfig
from streamtok.testing import RunningServer

STORY = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[App, str]]:
    """Run a server on the test's own event loop."""
    app = App(ServeConfig(port=0, ledger=":memory:", **settings))
    url = await app.start()
    try:
        yield app, url
    finally:
        await app.stop()


def get(server: RunningServer, target: str) -> Any:
    connection = http.client.HTTPConnection(*server.address)
    try:
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


# The official client


def test_openai_chat_streamed_and_whole_agree(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "fireside", "messages": STORY, "max_tokens": 40, "seed": 3}
    whole = client.chat.completions.create(**options)
    stream = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(text) > 40
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1


def test_openai_completions_streamed_and_whole_agree(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": "fireside",
        "prompt": "Once upon a time",
        "max_tokens": 20,
        "temperature": 0,
        "logprobs": 2,
    }
    whole = client.completions.create(**options).choices[0]
    chunks = [c.choices[0] for c in client.completions.create(**options, stream=True)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    streamed = [lp for c in chunks if c.logprobs for lp in c.logprobs.token_logprobs or []]
    assert whole.logprobs is not None
    assert streamed == whole.logprobs.token_logprobs
    for chosen, top in zip(
        streamed, whole.logprobs.top_logprobs or [], strict=True
    ):  # greedy takes the likeliest
        assert chosen == max(top.values())


def test_a_prompt_that_comes_again_is_there_already(client: openai.OpenAI) -> None:
    story = [{"role": "user", "content": "Tell me a story about a heron, a pear and a kite."}]
    options: dict[str, Any] = {"model": "fireside", "max_tokens": 20, "seed": 3, "n": 2}
    first, again = (client.chat.completions.create(**options, messages=story) for _ in range(2))
    assert again.choices == first.choices
    cached = [answer.usage.prompt_tokens_details.cached_tokens for answer in (first, again)]
    assert cached[0] < cached[1] == first.usage.prompt_tokens - 1


async def test_openai_async_and_raw_response(server: RunningServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="fireside", messages=STORY, max_tokens=5, stream=True, logprobs=True
        )
        assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
        parts = [chunk async for chunk in raw.parse()]
        assert sum(len(p.choices[0].logprobs.content) for p in parts if p.choices[0].logprobs) == 5
        models = await client.models.list()
        assert [model.id for model in models.data] == ["fireside"]


@pytest.mark.parametrize(
    ("options", "error", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        (
            {"messages": [{"role": "user", "content": "word " * 2000}]},
            openai.BadRequestError,
            "messages",
        ),
    ],
)
def test_openai_errors(
    client: openai.OpenAI, options: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "fireside", "messages": STORY, **options})
    assert caught.value.body["param"] == param  # type: ignore[index]


# The bare socket


def read_chunks(connection: socket.socket) -> Iterator[bytes]:
    """Read a chunked answer by hand: a size in hexadecimal, that many bytes, and a line end.

    On a slow machine a client that has finished sending is asked for a sign of life before, by
    responses `100 Continue`.
    """
    with connection.makefile("rb") as file:
        status = b"100"
        while status == b"100":
            status = file.readline().split()[1]
            while file.readline() != b"\r\n":
                pass
        while size := int(file.readline(), 16):
            yield file.read(size)
            assert file.read(2) == b"\r\n"
        assert file.readline() == b"\r\n"


def post(path: str, body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def test_each_token_is_a_chunk_and_the_connection_stays_open(server: RunningServer) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 12, "stream": True, "seed": 1}
    with socket.create_connection(server.address) as connection:
        answers = []
        for _ in range(2):
            connection.sendall(post("/v1/completions", body))
            answers.append(list(read_chunks(connection)))
    for chunks in answers:
        assert chunks[-1] == b"data: [DONE]\n\n"
        events = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks[:-1]]
        assert len(events) == 13  # twelve tokens, and the finish reason
        assert all(chunk.endswith(b"}\n\n") for chunk in chunks[:-1])
    texts = [[json.loads(c[6:])["choices"] for c in chunks[:-1]] for chunks in answers]
    assert texts[0] == texts[1]


def test_the_first_token_comes_long_before_the_last(server: RunningServer) -> None:
    """While a stream is under way, the engine still has work to do for it."""
    body = {
        "prompt": "Once upon a time",
        "max_tokens": 60,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    with socket.create_connection(server.address) as connection:
        connection.sendall(post("/v1/completions", body))
        chunks = read_chunks(connection)
        first = json.loads(next(chunks).removeprefix(b"data: "))
        with pytest.raises(ValueError, match="no usage"):
            usage_of(server, first["id"])
        assert len(list(chunks)) == 61
    assert usage_of(server, first["id"])["delivered_tokens"] == 60


def usage_of(server: RunningServer, request_id: str) -> dict[str, Any]:
    """Return the ledger's row of a request. Raises ValueError where there is none yet."""
    answer: dict[str, Any] = get(server, f"/v1/usage/{request_id}")
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer


def wait_for_usage(server: RunningServer, request_id: str) -> dict[str, Any]:
    """Ask until the request is accounted for; each question is a round trip to the server."""
    for _ in range(10_000):
        try:
            return usage_of(server, request_id)
        except ValueError:
            continue
    raise AssertionError(f"{request_id} was never accounted for")


def test_seeded_streams_are_the_same_alone_and_among_thirty_one_others(
    client: openai.OpenAI,
) -> None:
    animals = ("fox", "hen", "cat", "dog", "owl", "bee", "cow", "pig")
    barrier, order = threading.Barrier(32), []

    def ask(number: int, stream: bool) -> Any:
        return client.completions.create(
            model="fireside",
            prompt=f"Once there was a {animals[number % 8]}",
            max_tokens=120,
            temperature=0.0 if number % 4 == 3 else 1.0,
            seed=number,
            stream=stream,
        )

    def run(number: int) -> str:
        barrier.wait()
        text = ""
        for chunk in ask(number, stream=True):
            order.append(number)
            text += chunk.choices[0].text
        return text

    alone = [ask(number, stream=False).choices[0].text for number in range(8)]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(run, range(32)))
    assert together[:8] == alone
    # Interleaved, not one after another: far more changes of stream than streams.
    assert sum(a != b for a, b in pairwise(order)) > 100


# Clients that go away


def test_a_client_that_leaves_a_stream_frees_its_place(server: RunningServer) -> None:
    body = {
        "prompt": "Once",
        "max_tokens": 1000,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    with socket.create_connection(server.address) as connection:
        connection.sendall(post("/v1/completions", body))
        chunks = read_chunks(connection)
        first = json.loads(next(chunks).removeprefix(b"data: "))
        next(chunks)
        chunks.close()
    row = wait_for_usage(server, first["id"])
    assert row["finish_reason"] == "cancelled"
    assert 2 <= row["delivered_tokens"] <= row["generated_tokens"] < 900
    assert server.app.engine.stats().running == 0


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_without_streaming_frees_its_place(
    server: RunningServer, reset: bool
) -> None:
    before = {row["group"]: row["requests"] for row in by_reason(server)}
    body = {"prompt": "word " * 500, "max_tokens": 500, "ignore_eos": True}
    connection = socket.create_connection(server.address)
    connection.sendall(post("/v1/completions", body))
    while not server.app.engine.stats().running:
        get(server, "/health")
    if reset:  # SO_LINGER of zero: close sends a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    for _ in range(10_000):
        after = {row["group"]: row["requests"] for row in by_reason(server)}
        if after.get("cancelled", 0) == before.get("cancelled", 0) + 1:
            break
    assert after.get("length", 0) == before.get("length", 0)
    assert server.app.engine.stats().running == 0


def by_reason(server: RunningServer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = get(server, "/v1/usage?group_by=finish_reason")["data"]
    return rows


def test_who_only_finished_sending_still_gets_its_stream(server: RunningServer) -> None:
    body = {
        "prompt": "Once",
        "max_tokens": 20,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    with socket.create_connection(server.address) as connection:
        connection.sendall(post("/v1/completions", body))
        connection.shutdown(socket.SHUT_WR)
        assert len(list(read_chunks(connection))) == 22


# Stopping


async def read_all(url: str, request: bytes, first: asyncio.Event | None = None) -> bytes:
    """Send a request and read to the end; tell when something has come."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    data = await reader.readuntil(b"\n\n")
    if first:
        first.set()
    data += await reader.read()
    writer.close()
    return data


async def test_streams_finish_when_the_server_stops() -> None:
    body = {
        "prompt": "Once",
        "max_tokens": 100,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    async with serving() as (app, url):
        begun = [asyncio.Event() for _ in range(16)]
        streams = [
            asyncio.ensure_future(read_all(url, post("/v1/completions", body), event))
            for event in begun
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        await app.stop()
        for answer in await asyncio.gather(*streams):
            assert answer.count(b"data: {") == 101
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        with pytest.raises(ConnectionRefusedError):
            await read_all(url, post("/v1/completions", body))


async def test_streams_that_take_too_long_end_with_an_error_event() -> None:
    body = {
        "prompt": "Once",
        "max_tokens": 900,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    async with serving(drain_timeout_s=0.0) as (app, url):
        begun = asyncio.Event()
        stream = asyncio.ensure_future(read_all(url, post("/v1/completions", body), begun))
        await begun.wait()
        await app.stop()
        answer = await stream
    assert b'"code":"unavailable"' in answer
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_stop_ends_idle_connections() -> None:
    async with serving() as (app, url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b'{"status":"ok"}')
        await app.stop()
        assert await reader.read() == b""
        writer.close()


async def test_close_after_stream_closes() -> None:
    body = {"prompt": "Once", "max_tokens": 2, "stream": True}
    async with serving(close_after_stream=True) as (_, url):
        answer = await read_all(url, post("/v1/completions", body))
    assert b"Connection: close" in answer
    assert answer.endswith(b"0\r\n\r\n")
