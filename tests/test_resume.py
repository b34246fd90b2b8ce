"""Streams that are resumed: at any event, by any number of clients, in this process or another."""

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamtok.answer.meter import Meter
from streamtok.api.access.keys import KeyFile
from streamtok.api.access.limits import RateLimits
from streamtok.api.more.routes import ROUTES
from streamtok.api.resume.order import Order
from streamtok.api.resume.owners import is_alive
from streamtok.api.resume.recording import Recording
from streamtok.api.resume.room import Resumption
from streamtok.api.resume.rows import Rows, StoredRequest, StreamRow
from streamtok.api.routing import Api
from streamtok.config import ApiConfig, EngineConfig, ServeConfig
from streamtok.http.request import Request
from streamtok.http.response import BrokenOff, Response
from streamtok.ledger import Ledger, UsageRecord
from streamtok.messages import Event, Finished, Prefilled, Started, TokenEvent
from streamtok.metrics import Metrics
from streamtok.model.load import load
from streamtok.testing import FakeClock, FakeLater, ScriptedEngine, local_engine, make_services

CHAT, COMPLETION, GENERATE = "/v1/chat/completions", "/v1/completions", "/v1/generate"
A = ord("a") - 33  # the byte alphabet begins with "!"
HELLO = [{"role": "user", "content": "Hi"}]
ASK: dict[str, Any] = {"messages": HELLO, "stream": True, "max_tokens": 3}
RESUMABLE = {"x-resumable": "1"}
EVENTS = {"accept": "text/event-stream"}
ANNA, BEN = "sk-anna", "sk-ben"


class Site:
    """The API with resumable streams; another one on the same ledger is a later process."""

    def __init__(self, folder: Path, engine: Any, ledger: str, keys: Any = None, **flags: Any):
        self.engine, self.later, self.clock = engine, FakeLater(), FakeClock()
        self.ledger = Ledger(ledger)
        config = ServeConfig(ledger=ledger, **flags)
        self.room = Resumption(config, self.ledger.database, self.later)
        limits = RateLimits(ApiConfig(), self.clock)
        meter = Meter(self.ledger, Metrics(engine.stats), limits, self.clock)
        self.services = replace(make_services(folder, engine, self.clock), meter=meter)
        self.api = Api(self.room.around(ROUTES), keys)
        self.api.open(self.services)

    async def send(
        self, method: str, target: str, body: Any = None, key: str = "", **headers: str
    ) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["authorization"] = f"Bearer {key}"
        data = b"" if body is None else json.dumps(body).encode()
        request = Request(method, target, tuple(sent.items()), data, "1.1", "test")
        return await self.api.handle(request)

    async def begin(self, path: str = CHAT, key: str = "", **fields: Any) -> Response:
        return await self.send("POST", path, ASK | fields, key, x_resumable="1")

    async def rest(self, answer_id: str, events: int, key: str = "") -> Response:
        last = f"{answer_id}/{events}"
        return await self.send("GET", f"/v1/streams/{answer_id}", key=key, last_event_id=last)

    async def booked(self, answer_id: str) -> UsageRecord | None:
        await self.services.meter.settled()
        return await self.ledger.get(answer_id)

    async def close(self) -> None:
        await self.room.close()
        await self.engine.close()
        await self.services.meter.settled()
        self.room.end()
        self.ledger.close()


Sites = Callable[..., Any]


@pytest.fixture
def sites(tiny_model: Path, tmp_path: Path) -> Sites:
    """Make sites on one ledger, whose engine says "abcd" unless told otherwise."""

    @asynccontextmanager
    async def site(engine: Any = None, **options: Any) -> AsyncIterator[Site]:
        made = Site(
            tiny_model,
            engine or ScriptedEngine([A, A + 1, A + 2, A + 3]),
            str(tmp_path / "usage.sqlite3"),
            **options,
        )
        await made.room.start(made.services)
        try:
            yield made
        finally:
            await made.close()

    return site


def named(response: Response) -> str:
    return dict(response.headers)["x-stream-id"]


async def read(response: Response) -> list[bytes]:
    """Return the events of an answer, and close it as a connection does."""
    assert not isinstance(response.body, bytes), response
    events = [chunk async for chunks in response.body for chunk in chunks]
    response.close()
    return events


async def one(body: Any) -> bytes:
    """Return the next event, which comes alone."""
    [event] = await anext(body)
    assert isinstance(event, bytes)
    return event


def said(response: Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    error: dict[str, Any] = json.loads(response.body)["error"]
    return error


async def fails(response: Response) -> tuple[int, str]:
    return response.status, said(response)["code"]


# How it is asked for


async def test_each_event_has_the_answers_id_and_its_number(sites: Sites) -> None:
    async with sites() as site:
        response = await site.begin()
        events = await read(response)
        plain = await read(await site.send("POST", CHAT, ASK))
    assert ("x-resumable", "1") in response.headers
    lines = [event.split(b"\n", 1) for event in events]
    assert [line for line, _ in lines] == [
        b"id: chatcmpl-1/%d" % number for number in range(1, len(events) + 1)
    ]
    assert b"".join(rest for _, rest in lines) == b"".join(plain).replace(b"mpl-2", b"mpl-1")


async def test_the_body_can_ask_for_it_too(sites: Sites) -> None:
    async with sites() as site:
        response = await site.send("POST", COMPLETION, ASK | {"prompt": "x", "resumable": True})
        assert named(response) == "cmpl-1"
        assert (
            "x-ignored-fields" not in dict(response.headers)
            or "resumable" not in dict(response.headers)["x-ignored-fields"]
        )
        assert (await read(response))[0].startswith(b"id: cmpl-1/1\ndata: ")


async def test_an_event_source_gets_ids_and_comes_back_by_itself(sites: Sites) -> None:
    async with sites() as site:
        url = "/v1/generate?prompt=x&max_tokens=3"
        events = await read(await site.send("GET", url, **EVENTS))
        assert events[-1] == b"id: cmpl-1/%d\ndata: [DONE]\n\n" % len(events)
        for number in range(len(events)):
            again = await site.send("GET", url, last_event_id=f"cmpl-1/{number}", **EVENTS)
            assert await read(again) == events[number:]
        done = await site.send("GET", url, last_event_id=f"cmpl-1/{len(events)}", **EVENTS)
        assert (done.status, done.body) == (204, b"")  # which tells it to stop
        assert len(site.engine.requests) == 1
        text = await site.send("GET", url)
        assert b"".join(await read(text)) == b"abc"


@pytest.mark.parametrize(
    ("fields", "headers", "words"),
    [
        ({"stream": False}, {}, "x-resumable needs stream: true"),
        ({}, {"accept": "application/x-ndjson"}, "x-resumable needs text/event-stream"),
        ({}, {"x_resumable": "yes"}, "x-resumable: expected 1 or 0, found 'yes'"),
        ({"resumable": 1}, {"x_resumable": "0"}, "resumable must be a boolean"),
    ],
)
async def test_what_cannot_be_resumed_is_refused(
    sites: Sites, fields: dict[str, Any], headers: dict[str, str], words: str
) -> None:
    async with sites() as site:
        response = await site.send("POST", CHAT, ASK | fields, **{"x_resumable": "1"} | headers)
        assert (response.status, said(response)["message"]) == (400, words)
        assert not site.engine.requests


@pytest.mark.parametrize("last", ["x", "chatcmpl-1/", "/1", "chatcmpl-1/x", "chatcmpl-1/-1"])
async def test_a_last_event_id_that_is_none_of_ours(sites: Sites, last: str) -> None:
    async with sites() as site:
        await read(await site.begin())
        response = await site.send("GET", "/v1/streams/chatcmpl-1", last_event_id=last)
        assert response.status == 400
        assert "Last-Event-ID: " in said(response)["message"]


async def test_where_answers_vary_it_is_not_offered(sites: Sites) -> None:
    async with sites() as site:
        site.engine.exact = False
        response = await site.begin()
        assert ("x-resumable", "0") in response.headers
        assert (await read(response))[0].startswith(b"data: ")
    async with sites(stored_streams=0) as site:
        response = await site.begin()
        assert ("x-resumable", "0") in response.headers
        await read(response)


# Coming back


BODIES = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 9), "seed": st.integers(0, 9)},
    optional={
        "n": st.integers(1, 3),
        "temperature": st.sampled_from([0, 1]),
        "stop": st.sampled_from(["a", "."]),
        "stream_options": st.fixed_dictionaries(
            {"include_usage": st.just(True)},
            optional={
                "continuous_usage_stats": st.booleans(),
                "include_obfuscation": st.booleans(),
            },
        ),
    },
)
KINDS: list[tuple[str, dict[str, Any]]] = [  # all that has events
    (CHAT, {"messages": HELLO, "logprobs": True}),
    (COMPLETION, {"prompt": ["ab", "cdefg" * 9], "logprobs": 1, "echo": True}),
    (COMPLETION, {"prompt": "a" * 40}),
    ("/v1/responses", {"input": "Hi"}),
    ("/v1/messages", {"messages": HELLO, "model": "tiny"}),
    (GENERATE, {"prompt": "Hi", "chat": "true"}),
    (GENERATE, {"prompt": "Hi"}),
]
SAME = (*("created_s", "prompt_tokens", "generated_tokens", "delivered_tokens", "cached_tokens"),)
OTHER_APIS = {"/v1/responses": "max_output_tokens", "/v1/messages": "max_tokens"}


async def ask(site: Site, path: str, fields: dict[str, Any]) -> Response:
    """Ask for a stream that can be resumed, as this endpoint is asked."""
    if path == GENERATE:
        known = ("prompt", "chat", "max_tokens", "seed", "temperature", "stop")
        query = urlencode({name: fields[name] for name in known if name in fields})
        return await site.send("GET", f"{path}?{query}", **EVENTS)
    if most := OTHER_APIS.get(path):
        known = ("input", "messages", "model", "temperature")
        most_tokens = {most: fields["max_tokens"]}
        fields = {name: fields[name] for name in known if name in fields} | most_tokens
    return await site.send("POST", path, {"stream": True} | fields, x_resumable="1")


@examples(4)
@given(BODIES)
def test_a_stream_resumed_at_every_event_gives_exactly_the_rest(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, body: dict[str, Any]
) -> None:
    ledger = str(tmp_path_factory.mktemp("ledger") / "usage.sqlite3")
    decoder = load(tiny_model)

    async def check() -> None:
        whole: dict[str, list[bytes]] = {}
        booked: list[list[Any]] = []
        for _ in range(2):  # the second is another process
            engine = local_engine(decoder, EngineConfig(max_streams=2))
            site = Site(tiny_model, engine, ledger)
            await site.room.start(site.services)
            for path, fields in KINDS if not whole else ():
                response = await ask(site, path, fields | body)
                assert response.status == 200, response.body
                whole[named(response)] = await read(response)
            for name, events in whole.items():
                for number in range(len(events)):
                    assert await read(await site.rest(name, number)) == events[number:]
                assert (await site.rest(name, len(events))).status == 204
            booked.append([await site.booked(name) for name in whole])
            await site.close()
        for first, second in zip(*booked, strict=True):
            assert [getattr(first, name) for name in SAME] == [
                getattr(second, name) for name in SAME
            ]

    asyncio.run(check())


async def test_readers_share_one_running_answer(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        beginning = asyncio.ensure_future(site.begin())
        await site.engine.submitted()
        site.engine.emit("chatcmpl-1", Started(0))
        first = await beginning
        second = await site.rest("chatcmpl-1", 0)
        bodies = [first.body, second.body]
        assert [await anext(body) for body in bodies] == 2 * [
            await anext((await site.rest("chatcmpl-1", 0)).body)
        ]
        for token in range(2):
            site.engine.emit("chatcmpl-1", TokenEvent(0, A + token))
            events = [await one(body) for body in bodies]
            assert events[0] == events[1]
            assert b'"content":"%c"' % (97 + token) in events[0]
        site.engine.emit("chatcmpl-1", Finished(0, "length", 2))
        rest = [[event async for events in body for event in events] for body in bodies]
        assert rest[0] == rest[1]
        assert len(site.engine.requests) == 1


async def test_who_comes_back_in_time_misses_nothing(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        beginning = asyncio.ensure_future(site.begin(max_tokens=9))
        await site.engine.submitted()
        site.engine.emit("chatcmpl-1", Started(0))
        response = await beginning
        await anext(response.body)
        await response.body.aclose()
        response.close()
        for token in range(4):
            site.engine.emit("chatcmpl-1", TokenEvent(0, A + token))
        site.engine.emit("chatcmpl-1", Finished(0, "stop", 4))
        assert site.later.is_set
        events = await read(await site.rest("chatcmpl-1", 1))
        assert [
            json.loads(event.split(b"data: ")[1])["choices"][0]["delta"] for event in events[:-1]
        ] == [
            *({"content": letter} for letter in "abcd"),
            {},
        ]
        assert site.engine.cancelled == []
        record = await site.booked("chatcmpl-1")
        assert (record.finish_reason, record.delivered_tokens) == ("stop", 4)


async def test_who_does_not_is_cancelled_and_booked(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        beginning = asyncio.ensure_future(site.begin(max_tokens=9))
        await site.engine.submitted()
        site.engine.emit("chatcmpl-1", Started(0))
        response = await beginning
        for _ in range(3):
            await one(response.body)
            site.engine.emit("chatcmpl-1", TokenEvent(0, A))
        await response.body.aclose()
        response.close()
        site.engine.emit("chatcmpl-1", TokenEvent(0, A))
        assert site.engine.cancelled == []
        await site.later.ring()
        assert site.later.pauses[-1] == 30.0
        await site.engine.wait_for(lambda engine: bool(engine.cancelled))
        record = await site.booked("chatcmpl-1")
        assert record.finish_reason == "cancelled"
        assert record.delivered_tokens == 1
        assert await fails(await site.rest("chatcmpl-1", 0)) == (404, "stream_not_found")


async def test_a_client_can_end_it_at_once(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        beginning = asyncio.ensure_future(site.begin())
        await site.engine.submitted()
        site.engine.emit("chatcmpl-1", Started(0))
        response = await beginning
        await anext(response.body)
        deleted = await site.send("DELETE", "/v1/streams/chatcmpl-1")
        assert json.loads(deleted.body) == {"id": "chatcmpl-1", "object": "stream", "deleted": True}
        with pytest.raises(BrokenOff):
            await anext(response.body)
        response.close()
        assert (await site.booked("chatcmpl-1")).finish_reason == "cancelled"
        assert (await site.rest("chatcmpl-1", 0)).status == 404


async def test_only_the_same_key_and_all_others_get_the_same_404(
    sites: Sites, tmp_path: Path
) -> None:
    lines = [f"{key[3:]}:{sha256(key.encode()).hexdigest()}" for key in (ANNA, BEN)]
    (tmp_path / "keys").write_text("\n".join(lines))
    keys = KeyFile(tmp_path / "keys")
    async with sites(keys=keys) as site:
        events = await read(await site.begin(key=ANNA))
        assert await read(await site.rest("chatcmpl-1", 0, ANNA)) == events
        other = await site.rest("chatcmpl-1", 0, BEN)
        await site.send("DELETE", "/v1/streams/chatcmpl-1", key=BEN)
    async with sites(keys=keys) as site:
        stored = await site.rest("chatcmpl-1", 0, BEN)
        assert await read(await site.rest("chatcmpl-1", 0, ANNA)) == events
        await site.send("DELETE", "/v1/streams/chatcmpl-1", key=ANNA)
        expired = await site.rest("chatcmpl-1", 0, ANNA)
        unknown = await site.rest("chatcmpl-1", 0, BEN)
        answers = {(answer.status, answer.body) for answer in (other, stored, expired, unknown)}
        assert len(answers) == 1
        assert await fails(other) == (404, "stream_not_found")


# Another process


async def test_another_model_or_setting_is_a_conflict(sites: Sites) -> None:
    async with sites() as site:
        await read(await site.begin(temperature=None))
    for change in ("model", "default"):
        async with sites() as site:
            if change == "model":
                site.engine.fingerprint = "fp_other"
            else:
                site.api.open(replace(site.services, defaults={"temperature": 0.5}))
            assert await fails(await site.rest("chatcmpl-1", 1)) == (409, "stream_changed")
            assert not site.engine.requests
    async with sites() as site:
        assert len(await read(await site.rest("chatcmpl-1", 1))) > 1


async def test_clients_that_come_back_at_once_have_it_computed_once(sites: Sites) -> None:
    async with sites() as site:
        events = await read(await site.begin())
    async with sites() as site:
        found = await asyncio.gather(*(site.rest("chatcmpl-1", n) for n in range(3)))
        for number, response in enumerate(found):
            assert await read(response) == events[number:]
        assert len(site.engine.requests) == 1


async def test_nobody_may_come_back_after_the_window(sites: Sites) -> None:
    async with sites() as site:
        await read(await site.begin())
    async with sites() as site:
        await site.later.ring()
        assert (await site.rest("chatcmpl-1", 0)).status == 404


async def test_the_oldest_rows_make_room(sites: Sites) -> None:
    async with sites(stored_streams=2) as site:
        for _ in range(4):
            site.clock.advance(1)
            await read(await site.begin())
    async with sites() as site:
        found = [(await site.rest(f"chatcmpl-{n}", 99)).status for n in range(1, 5)]
    assert found[:2] == [404, 404]
    assert 404 not in found[2:]


async def test_who_comes_back_while_the_model_is_loaded_waits(sites: Sites) -> None:
    async with sites() as site:
        events = await read(await site.begin())
        later = Api(site.room.around(ROUTES))
        last = (("last-event-id", "chatcmpl-1/1"),)
        request = Request("GET", "/v1/streams/chatcmpl-1", last, b"", "1.1", "test")
        waiting = asyncio.ensure_future(later.handle(request))
        assert (await later.handle(replace(request, headers=()))).status == 503
        assert not waiting.done()
        later.open(site.services)
        assert await read(await waiting) == events[1:]


def lose(ledger: Path, answer_id: str) -> None:
    """Make a row what it is when its process was killed while it ran."""
    with closing(sqlite3.connect(ledger)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(usage)")]
        names = ", ".join(columns)
        database.execute("UPDATE usage SET finish_reason = 'lost', generated_tokens = 0")
        database.execute(
            f"INSERT INTO running ({names}, owner) SELECT {names}, ? FROM usage", (":1999999999:x",)
        )
        database.execute("DELETE FROM usage")
        database.execute("UPDATE stream SET ended = 0")


async def test_what_ran_at_a_crash_is_lost_or_resumed(sites: Sites, tmp_path: Path) -> None:
    async with sites() as site:
        for _ in range(2):
            await read(await site.begin())
    lose(tmp_path / "usage.sqlite3", "chatcmpl-1")
    async with sites() as site:
        for number in (1, 2):
            assert (await site.booked(f"chatcmpl-{number}")).finish_reason == "lost"
        await read(await site.rest("chatcmpl-1", 2))
        record = await site.booked("chatcmpl-1")
        assert (record.finish_reason, record.generated_tokens) == ("length", 3)
        assert (await site.booked("chatcmpl-2")).finish_reason == "lost"


def test_a_process_that_has_ended_is_not_alive() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert not is_alive(f":{process.pid}:x")
    assert not is_alive(f":{os.getpid()}:x")  # an earlier process with this number
    assert is_alive(f":{os.getppid()}:x")
    assert is_alive("elsewhere.invalid:1:x")


# Order


@examples(30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_depend_on_how_they_come(
    lengths: list[int], chance: Any
) -> None:
    def come() -> list[Event]:
        order = Order(range(len(lengths)))
        waiting: list[list[Event]] = [
            [
                Started(i),
                Prefilled(i, 0),
                *(TokenEvent(i, t) for t in range(n)),
                Finished(i, "stop", n),
            ]
            for i, n in enumerate(lengths)
        ]
        found = []
        while any(waiting):
            order.put(chance.choice([one for one in waiting if one]).pop(0))
            while (event := order.take()) is not None:
                found.append(event)
        return found

    assert come() == come()
    assert len(come()) == sum(lengths) + 3 * len(lengths)


def test_a_sequence_that_is_not_wanted_holds_no_other_up() -> None:
    order = Order([0, 1])
    order.put(TokenEvent(0, 1))
    assert order.take() == TokenEvent(0, 1)
    order.put(TokenEvent(0, 2))
    assert order.take() is None  # it is 1's turn
    order.release(1)
    assert order.take() == TokenEvent(0, 2)
    order.put(Finished(1, "cancelled", 0))
    assert order.take() == Finished(1, "cancelled", 0)


async def test_a_row_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "usage.sqlite3"))
    rows = Rows(ledger.database, None)
    await rows.start()
    row = StreamRow(
        **dict.fromkeys(("id", "key", "owner", "fingerprint", "digest"), "a"),
        request=StoredRequest("POST", CHAT, (("accept", "*/*"),), "{}"),
        recording=Recording("a", 7, [1.5, 2.5], {0: 3, 1: 0}),
        created_s=1.5,
    )
    await rows.insert(row, 9)
    assert await rows.get("a") == row
    assert await rows.of(["a", "b"]) == [row]
    ledger.close()
