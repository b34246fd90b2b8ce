"""Many connections at once, some abandoned, some slow: none lost, nothing left behind."""

import asyncio
import gc
import os
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamtok.answer.generation import Generation
from streamtok.api.more.routes import ROUTES
from streamtok.api.more.sums import UsageFilter, sum_usage
from streamtok.api.routing import Api
from streamtok.api.services import Services
from streamtok.clock import SystemClock
from streamtok.http.connection import Connection
from streamtok.http.server import Server
from streamtok.http.transport import SocketStream
from streamtok.testing import ScriptedEngine, listen_locally, make_service, make_services
from streamtok.text.tokenizer import Tokenizer

TOKENS = 40
TEXT = "abcdefghij" * 4
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 47\r\n\r\n"
    b'{"prompt": "x", "max_tokens":40, "stream":true}'
)


@dataclass
class Running:
    """A server on the test's loop whose engine makes a step whenever the loop comes round."""

    address: tuple[str, int]
    server: Server
    engine: ScriptedEngine
    services: Services


@asynccontextmanager
async def running(folder: Path, driven: bool = True) -> AsyncIterator[Running]:
    engine = ScriptedEngine(Tokenizer(folder).encode(TEXT, special=False), held=True)
    services = make_services(folder, engine, SystemClock())
    api = Api(ROUTES)
    api.open(services)
    server = Server(make_service(api, SystemClock()))
    address = listen_locally(server)

    async def drive() -> None:
        while driven:
            engine.step()
            await asyncio.sleep(0)

    driver = asyncio.ensure_future(drive())
    try:
        yield Running(address, server, engine, services)
    finally:
        driver.cancel()
        server.finish()
        await server.abort()
        await services.meter.close()


async def complete(address: tuple[str, int], pause: int = 0) -> bytes:
    """Read a stream to its end; `pause` turns of the loop between reads make a slow reader."""
    reader, writer = await asyncio.open_connection(*address, limit=4096)
    writer.write(REQUEST)
    data = b""
    while part := await reader.read(2048 if pause else 65536):
        data += part
        for _ in range(pause):
            await asyncio.sleep(0)
    writer.close()
    return data


async def abandon(address: tuple[str, int], after_bytes: int) -> None:
    """Leave a stream after so many bytes; at zero right behind the request."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REQUEST)
    if after_bytes:
        await reader.readexactly(after_bytes)
    writer.transport.abort()


def assert_complete(answer: bytes) -> None:
    assert answer.count(b"data: {") == TOKENS + 1
    assert answer.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def room_for_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
async def test_five_hundred_connections_a_third_abandoned_a_third_slow(tiny_model: Path) -> None:
    dice = random.Random(1)
    async with running(tiny_model) as run:
        await complete(run.address)  # whatever is made once is made now
        await run.server.wait(timeout_s=10)
        before = descriptors()
        clients = []
        for number in range(500):
            if number % 3 == 0:
                clients.append(abandon(run.address, dice.choice([0, 10, 300, 1000, 5000])))
            else:
                clients.append(complete(run.address, pause=20 * (number % 3 - 1)))
        answers = await asyncio.wait_for(asyncio.gather(*clients), timeout=100)
        for number, answer in enumerate(answers):
            if number % 3:
                assert_complete(answer)
        assert await run.server.wait(timeout_s=20)
        assert run.engine.stats().running == 0
        await run.services.meter.settled()
        sums = await sum_usage(run.services.meter.ledger, UsageFilter(), "finish_reason")
        assert sum(row.requests for row in sums) <= 501
        finished = {row.group: row.requests for row in sums}
        assert finished["length"] >= 334
        assert descriptors() == before


async def test_three_hundred_streams_leave_nothing_behind(tiny_model: Path) -> None:
    async with running(tiny_model) as run:
        before = descriptors()
        answers = await asyncio.gather(*(complete(run.address) for _ in range(300)))
        for answer in answers:
            assert_complete(answer)
        assert await run.server.wait(timeout_s=20)
        await run.services.meter.settled()
        gc.collect()
        kinds = (Connection, SocketStream, Generation)
        assert [thing for thing in gc.get_objects() if isinstance(thing, kinds)] == []
        assert descriptors() == before


async def test_a_client_that_left_is_cancelled_by_the_next_step(tiny_model: Path) -> None:
    """A close is seen at the first write behind it: one token is made for nobody, not more."""
    async with running(tiny_model, driven=False) as run:
        reader, writer = await asyncio.open_connection(*run.address)
        writer.write(REQUEST)
        await run.engine.submitted()
        run.engine.step()
        await reader.readuntil(b"\n\n")
        writer.close()
        await writer.wait_closed()
        run.engine.step()
        await asyncio.wait_for(run.engine.wait_for(lambda engine: bool(engine.cancelled)), 10)
        assert run.engine.stats().running == 0
