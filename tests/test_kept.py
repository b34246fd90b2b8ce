"""Traces that requests ask for: the bytes as they left, for the sender alone, within bounds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from streamtok.api.access.keys import new_key
from streamtok.config import ServeConfig
from streamtok.errors import InvalidRequest
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.observe import kept
from streamtok.observe.kept import Traces
from streamtok.testing import FakeClock, MemoryStream, RunningServer, running_server

BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "seed": 1}


def trace_of(server: RunningServer, request_id: str, **headers: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.url}/v1/traces/{request_id}", headers=headers)
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def sent(trace: list[dict[str, Any]]) -> str:
    return "".join(line["text"] for line in trace if line["event"] == "sent")


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_asks_for_it_has_a_trace(server: RunningServer, stream: bool) -> None:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=BODY | {"stream": stream},
        headers={"x-trace": "1"},
    )
    trace = trace_of(server, answer.headers["x-request-id"])
    head, _, body = sent(trace).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    steps = [line["event"] for line in trace if line["event"] not in ("sent", "token")]
    assert steps == [*("parse", "admit", "tokenize", "queue", "start", "prefill", "end", "finish")]
    if stream:
        chunks = [line for line in trace if line.get("note") == "ends the chunk"]
        assert len(chunks) == answer.text.count("data: ")
        assert sum(len(line.get("token_ids", ())) for line in trace) == 4
        assert body.endswith("data: [DONE]\n\n\r\n0\r\n\r\n")
    else:
        assert body == answer.text


def test_without_the_header_there_is_none(server: RunningServer) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=BODY)
    lost = httpx.get(f"{server.url}/v1/traces/{answer.headers['x-request-id']}")
    assert lost.status_code == 404
    assert lost.json()["error"]["code"] == "trace_not_found"
    wrong = httpx.post(f"{server.url}/v1/completions", json={}, headers={"x-trace": "yes"})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["message"] == "X-Trace: expected 1, found 'yes'"


def test_only_the_key_that_asked_sees_it_and_faults_are_in_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    (anna, first), (ben, second) = new_key("anna"), new_key("ben")
    (tmp_path / "keys").write_text(f"{first}\n{second}\n")
    config = ServeConfig(
        model=str(tiny_model),
        port=0,
        ledger=":memory:",
        api_keys=str(tmp_path / "keys"),
        engine="thread",
        faults=True,
    )
    with running_server(config) as keyed:
        headers = {"x-trace": "1", "x-request-id": "mine", "x-fault": "chunk-cut;at=1"}
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(
                f"{keyed.url}/v1/chat/completions",
                json=BODY | {"stream": True},
                headers=headers | {"authorization": f"Bearer {anna}"},
            )
        trace = trace_of(keyed, "mine", authorization=f"Bearer {anna}")
        refused = httpx.post(f"{keyed.url}/v1/chat/completions", headers=headers)
        assert refused.status_code == 401
        strange = httpx.get(f"{keyed.url}/v1/traces/mine", headers={"x-api-key": ben})
    assert not sent(trace).endswith("\r\n0\r\n\r\n")
    assert '"role":"assistant"' in sent(trace)
    assert strange.status_code == 404
    assert anna not in json.dumps(trace)


def ask(traces: Traces, request_id: str, size: int) -> None:
    """Have a request answered with `size` bytes."""

    async def handle(request: Request) -> Response:
        assert request.trace is not None
        request.trace.step("admit", route="/", key="")
        return Response(200, (("x-request-id", request_id),))

    async def run() -> None:
        request = Request("GET", "/", ((kept.HEADER, "1"),), b"", "1.1", "peer")
        response = await traces.around(handle)(request)
        assert response.output is not None
        await response.output(MemoryStream()).send(bytes(size))
        response.close()

    asyncio.run(run())


def test_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_TRACES", 3)
    traces = Traces(FakeClock())
    for name in "abbcd":
        ask(traces, name, 1)
    assert [traces.find("", name) is not None for name in "abcd"] == [False, True, True, True]
    monkeypatch.setattr(kept, "MOST_BYTES", 10_000)
    ask(traces, "e", 8_800)
    assert [traces.find("", name) is not None for name in "bcde"] == [False, False, False, True]
    assert traces.find("other", "e") is None


def test_a_trace_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES_EACH", 2_000)
    traces = Traces(FakeClock())
    ask(traces, "long", 5_000)
    found = traces.find("", "long")
    assert found is not None
    assert b'"finish"' not in found.lines()


def test_what_is_wrong_is_said_before_anything_is_done() -> None:
    async def handle(request: Request) -> Response:
        raise AssertionError

    request = Request("GET", "/", ((kept.HEADER, "0"),), b"", "1.1", "peer")
    with pytest.raises(InvalidRequest):
        asyncio.run(Traces(FakeClock()).around(handle)(replace(request)))
