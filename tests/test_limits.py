"""Limits per caller: what is let in, what is told, and what is forgotten again."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.answer.limits import network
from streamtok.api.access.keys import KeyFile
from streamtok.api.access.limits import SWEEP_AT, Account, Bucket, RateLimits, duration
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.clock import Clock
from streamtok.config import ApiConfig
from streamtok.engine.extras.backlog import Backlog
from streamtok.errors import InvalidRequest, RateLimited, Unavailable
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.messages import Started
from streamtok.testing import FakeClock, ScriptedEngine, chunks, make_services

COMPLETIONS = "/v1/completions"
PAUSES_S = st.floats(0, 200, allow_nan=False)


# The bucket


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(PAUSES_S, st.integers(1, 20)), max_size=40),
)
def test_no_window_has_more_than_the_rate_and_one_burst(
    per_minute: int, wishes: list[tuple[float, int]]
) -> None:
    bucket, now_s, taken = Bucket(per_minute, 0.0), 0.0, []
    for pause_s, amount in wishes:
        now_s += pause_s
        if bucket.wait_s(amount, now_s) == 0:
            bucket.take(amount, now_s)
            taken.append((now_s, amount))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            window_s = taken[last][0] - taken[first][0]
            most = per_minute + window_s * per_minute / 60
            assert sum(amount for _, amount in taken[first : last + 1]) <= most + 1e-6


@given(st.integers(1, 1000), st.lists(st.tuples(PAUSES_S, st.integers(0, 5000)), max_size=40))
def test_only_the_last_request_overdraws_and_debts_are_paid(
    per_minute: int, charges: list[tuple[float, int]]
) -> None:
    bucket, now_s, total = Bucket(per_minute, 0.0), 0.0, 0
    for pause_s, amount in charges:
        now_s += pause_s
        if bucket.wait_s(1, now_s) == 0:
            assert total < per_minute + now_s * per_minute / 60
            bucket.take(amount, now_s)
            total += amount
    wait_s = bucket.wait_s(1, now_s)
    assert bucket.level(now_s + wait_s) >= 1 - 1e-6
    assert wait_s == 0 or bucket.level(now_s + wait_s * 0.9) < 1


@given(st.integers(1, 1000), st.lists(PAUSES_S, max_size=60))
def test_who_waits_as_long_as_told_is_let_in(per_minute: int, pauses_s: list[float]) -> None:
    clock = FakeClock()
    limits = RateLimits(ApiConfig(requests_per_minute=per_minute), clock)
    for pause_s in pauses_s:
        clock.advance(pause_s)
        if (wait_s := told_to_wait(limits)) is not None:
            assert 1 <= wait_s <= 60 / per_minute + 1
            clock.advance(wait_s)
            assert told_to_wait(limits) is None


def told_to_wait(limits: RateLimits) -> int | None:
    try:
        limits.admit("a")
    except RateLimited as error:
        return error.retry_after_s
    return None


def test_a_bucket_is_never_more_than_full() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(30, 0.0)
    assert [bucket.level(t) for t in (0.0, 10.0, 30.0, 1e9)] == [30, 40, 60, 60]
    assert bucket.wait_s(60, 0.0) == 30


# Callers


def test_each_caller_has_limits_of_its_own() -> None:
    limits = RateLimits(ApiConfig(requests_per_minute=1), FakeClock())
    limits.admit("a")
    limits.admit("b")
    with pytest.raises(RateLimited):
        limits.admit("a")


def test_without_a_limit_nothing_is_remembered() -> None:
    limits = RateLimits(ApiConfig(), FakeClock())
    for _ in range(1000):
        limits.admit("a")
        limits.check_streams("a", 1000)
        limits.begin("a", 1000, 10**9)
    assert limits.headers("a") == ()
    assert limits._accounts == {}


def test_callers_with_full_buckets_are_forgotten() -> None:
    clock = FakeClock()
    limits = RateLimits(ApiConfig(requests_per_minute=60, streams_per_key=9), clock)
    limits.admit("streaming")
    limits.begin("streaming", 1, 0)
    for number in range(20 * SWEEP_AT):
        limits.admit(f"address {number}")
        clock.advance(0.01)  # so that a hundred have used anything in the last second
    assert len(limits._accounts) <= SWEEP_AT
    assert limits._accounts["streaming"].streams == 1


def test_an_account_that_owes_is_not_fresh() -> None:
    account = Account(ApiConfig(tokens_per_minute=60), 0.0)
    assert account.is_fresh(0.0)
    account.take("tokens", 90, 0.0)
    account.take("requests", 1, 0.0)  # not limited
    assert not account.is_fresh(89.0)
    assert account.is_fresh(90.0)


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_an_address_counts_for_its_network(address: str, whose: str) -> None:
    assert network(address) == whose


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1.0, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (360.0, "6m0s"),
        (5400.5, "90m0.5s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# The API


class Site:
    """An Api with limits, around a scripted engine whose clock stands still."""

    def __init__(
        self, model: Path, *, keys: KeyFile | None = None, held: bool = False, **limits: int
    ) -> None:
        self.clock = FakeClock()
        self.engine = ScriptedEngine([65] * 100, held=held)
        self.services = make_services(model, self.engine, self.clock, limits=ApiConfig(**limits))
        self.api = Api(ROUTES, keys)
        self.api.open(self.services)

    async def post(
        self, body: Any, *, peer: str = "192.0.2.1", key: str = ""
    ) -> tuple[Response, dict[str, str]]:
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        data = json.dumps(body).encode()
        response = await self.api.handle(Request("POST", COMPLETIONS, headers, data, "1.1", peer))
        return response, dict(response.headers)


def error_of(response: Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    error: dict[str, Any] = json.loads(response.body)["error"]
    return error


async def read(response: Response) -> None:
    assert not isinstance(response.body, bytes)
    async for _ in chunks(response):
        pass
    response.close()


async def test_requests_over_the_rate_get_429_and_when_to_come_back(tiny_model: Path) -> None:
    site = Site(tiny_model, requests_per_minute=2)
    for body, status, remaining in (
        ({"prompt": "x", "max_tokens": 1}, 200, "1"),
        ({"prompt": "x", "max_tokens": -1}, 400, "0"),  # one that is refused counts as well
    ):
        response, headers = await site.post(body)
        assert response.status == status
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == remaining
    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    assert "x-ratelimit-limit-tokens" not in headers

    site.clock.advance(10.5)
    response, headers = await site.post({"prompt": "x"})
    assert response.status == 429
    assert error_of(response) == {
        "message": "the limit of 2 requests per minute is reached",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert headers["retry-after"] == "20"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "49.5s"
    assert (await site.post({"prompt": "x"}, peer="192.0.2.2"))[0].status == 200
    site.clock.advance(20)
    assert (await site.post({"prompt": "x"}))[0].status == 200


async def test_tokens_are_charged_when_they_are_known(tiny_model: Path) -> None:
    site = Site(tiny_model, tokens_per_minute=60)
    body = {"prompt": [1] * 20, "max_tokens": 100, "stream": True}
    response, headers = await site.post(body)
    assert response.status == 200
    assert headers["x-ratelimit-remaining-tokens"] == "40"
    await read(response)
    await site.services.meter.settled()  # 100 more: 60 are owed

    response, headers = await site.post(body)
    assert response.status == 429
    assert error_of(response)["type"] == "tokens"
    assert headers["retry-after"] == "62"  # the first whole second at which one token is there
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert headers["x-ratelimit-reset-tokens"] == "2m0s"
    site.clock.advance(62)
    response, headers = await site.post(body)
    assert response.status == 200
    assert headers["x-ratelimit-remaining-tokens"] == "0"  # two less twenty


async def test_the_longer_of_two_waits_is_told(tiny_model: Path) -> None:
    site = Site(tiny_model, tokens_per_minute=60, requests_per_minute=1)
    await site.post({"prompt": "x", "max_tokens": 100})
    await site.services.meter.settled()
    response, headers = await site.post({"prompt": "x"})
    assert error_of(response)["type"] == "requests"
    assert headers["retry-after"] == "61"
    assert {f"x-ratelimit-limit-{kind}" for kind in ("requests", "tokens")} <= headers.keys()


async def test_streams_at_once(tiny_model: Path) -> None:
    site = Site(tiny_model, streams_per_key=3, held=True)
    streams = [
        await started(site, site.post({"prompt": "x", "n": choices, "stream": True}))
        for choices in (1, 2)
    ]
    response, headers = await site.post({"prompt": "x"})
    assert response.status == 429
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert "3 streams run already, of 3 at once" in error_of(response)["message"]
    assert headers["retry-after"] == "1"
    response, headers = await site.post({"prompt": ["x", "y"], "n": 2})
    assert (response.status, error_of(response)["param"]) == (400, "n")  # waiting does not help
    assert "retry-after" not in headers

    streams[1].close()  # the client has left
    await site.services.meter.settled()
    response = await started(site, site.post({"prompt": "x", "stream": True}))
    assert response.status == 200


async def started(site: Site, post: Coroutine[Any, Any, tuple[Response, Any]]) -> Response:
    """Let a held request start, and return its answer."""
    answering = asyncio.ensure_future(post)
    await asyncio.sleep(0)  # it has reached the engine
    site.engine.emit(list(site.engine.requests)[-1], Started(0))
    return (await answering)[0]


async def test_what_the_engine_refuses_costs_no_tokens_and_no_place(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tiny_model, tokens_per_minute=60, streams_per_key=1)

    def refuse(*_: Any) -> None:
        raise Unavailable("full", retry_after_s=7)

    with monkeypatch.context() as patch:
        patch.setattr(site.engine, "submit", refuse)
        response, headers = await site.post({"prompt": "x"})
    assert (response.status, headers["retry-after"]) == (503, "7")
    assert headers["x-ratelimit-remaining-tokens"] == "60"
    assert (await site.post({"prompt": "x", "max_tokens": 1}))[0].status == 200


async def test_keys_have_limits_whatever_the_address(tiny_model: Path, tmp_path: Path) -> None:
    from test_auth import line

    await anyio.Path(tmp_path / "keys").write_text(f"{line('a', 'sk-a')}\n{line('b', 'sk-b')}")
    site = Site(tiny_model, keys=KeyFile(tmp_path / "keys"), requests_per_minute=1)
    assert (await site.post({"prompt": "x"}, key="sk-a", peer="192.0.2.1"))[0].status == 200
    assert (await site.post({"prompt": "x"}, key="sk-a", peer="192.0.2.2"))[0].status == 429
    assert (await site.post({"prompt": "x"}, key="sk-b", peer="192.0.2.1"))[0].status == 200
    response, headers = await site.post({"prompt": "x"}, peer="192.0.2.1")
    assert response.status == 401
    assert not any(name.startswith("x-ratelimit") for name in headers)


async def test_only_generation_is_limited(tiny_model: Path) -> None:
    site = Site(tiny_model, requests_per_minute=1)
    for _ in range(5):
        request = Request("GET", "/v1/models", (), b"", "1.1", "192.0.2.1")
        response = await site.api.handle(request)
        assert response.status == 200
        assert not any(name.startswith("x-ratelimit") for name, _ in response.headers)


def test_errors_of_limits_are_the_client_s() -> None:
    limits = RateLimits(ApiConfig(streams_per_key=2), FakeClock())
    with pytest.raises(InvalidRequest):
        limits.check_streams("a", 3)
    limits.begin("a", 2, 0)
    with pytest.raises(RateLimited):
        limits.check_streams("a", 1)
    limits.end("a", 2, 0)
    limits.check_streams("a", 2)


# The official client


async def test_the_official_client_waits_as_long_as_told(
    tiny_model: Path,
    listen: Callable[[Api, Clock], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(tiny_model, requests_per_minute=2)
    url = listen(site.api, site.clock)
    waits_s = []

    async def sleep(seconds: float) -> None:
        waits_s.append(seconds)
        site.clock.advance(seconds)

    options: dict[str, Any] = {"model": "tiny", "prompt": "x", "max_tokens": 1}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for _ in range(2):
            await client.completions.create(**options)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.completions.create(**options)
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.type == "requests"
        assert caught.value.response.headers["retry-after"] == "31"
        assert caught.value.request_id is not None
        monkeypatch.setattr(anyio, "sleep", sleep)
        patient = client.with_options(max_retries=1)
        assert (await patient.completions.create(**options)).choices[0].finish_reason == "length"
    assert waits_s == [31]


# How long the queue takes


def test_the_backlog_is_judged_by_what_ended_lately() -> None:
    backlog = Backlog(streams=4)
    assert backlog.wait_s(100) == 1  # nothing is known
    for _ in range(100):  # only the last ones count
        backlog.add(500.0)
    assert backlog.wait_s(10_000) == 120
    for _ in range(64):
        backlog.add(2.0)
    assert [backlog.wait_s(queued) for queued in (0, 1, 2, 3, 40, 1000)] == [1, 1, 1, 2, 20, 120]


@given(st.lists(st.floats(0, 1e6), max_size=100), st.integers(0, 10_000), st.integers(1, 64))
def test_the_wait_is_always_a_whole_number_in_its_bounds(
    durations_s: list[float], queued: int, slots: int
) -> None:
    backlog = Backlog(slots)
    for duration_s in durations_s:
        backlog.add(duration_s)
    wait_s = backlog.wait_s(queued)
    assert isinstance(wait_s, int)
    assert 1 <= wait_s <= 120
    recent_s = durations_s[-64:]
    if recent_s and 1 < wait_s < 120:
        assert wait_s == math.ceil(sum(recent_s) / len(recent_s) * queued / slots)
