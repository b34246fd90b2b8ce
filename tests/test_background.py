"""Responses in the background: polled, streamed, cancelled, and gone on with by a later process."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from test_resume import A, Site, Sites, fails, read, said, sites

from streamtok.engine.base import TokenStream
from streamtok.errors import Unavailable
from streamtok.http.response import Response
from streamtok.messages import Finished, SequenceRequest, Started, TokenEvent
from streamtok.testing import ScriptedEngine

__all__ = ["sites"]
RESPONSES = "/v1/responses"
ASK: dict[str, Any] = {"input": "hi", "max_output_tokens": 3, "background": True}


class FullEngine(ScriptedEngine):
    """Has no room at first."""

    full = True

    def __init__(self) -> None:
        super().__init__([A])

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        if self.full:
            raise Unavailable("no room", retry_after_s=7, code="queue_full")
        return super().submit(request_id, sequences)


def body(response: Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    assert response.status == 200, response.body
    found: dict[str, Any] = json.loads(response.body)
    return found


async def begin(site: Site, **fields: Any) -> Response:
    return await site.send("POST", RESPONSES, ASK | fields)


async def get(site: Site, name: str, query: str = "") -> Response:
    return await site.send("GET", f"{RESPONSES}/{name}{query}")


def numbers(events: list[bytes]) -> list[int]:
    return [json.loads(event.partition(b"data: ")[2])["sequence_number"] for event in events]


async def test_it_is_queued_in_progress_and_complete_without_a_client(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        response = body(await begin(site))
        name = response["id"]
        assert (response["status"], response["background"]) == ("queued", True)
        site.engine.emit(name, Started(0))
        site.engine.emit(name, TokenEvent(0, A))
        await site.room.streams.running(name).log.begun()
        assert body(await get(site, name))["status"] == "in_progress"
        site.engine.emit(name, Finished(0, "stop", 1))
        await site.room.streams.running(name).log.finished()
        done = body(await get(site, name))
        assert done["status"] == "completed"
        assert done["output"][0]["content"][0]["text"] == "a"
        assert done["created_at"] == response["created_at"]
        assert (await site.booked(name)).finish_reason == "stop"


async def test_its_events_can_be_had_from_any_number_on(sites: Sites) -> None:
    async with sites() as site:
        events = await read(await begin(site, stream=True))
        assert numbers(events) == list(range(len(events)))
        assert b"event: response.queued\n" in events[1]
        name = json.loads(events[0].partition(b"data: ")[2])["response"]["id"]
        for number in range(len(events)):
            rest = await get(site, name, f"?stream=true&starting_after={number}")
            assert await read(rest) == events[number + 1 :]
    async with sites() as site:
        assert await read(await get(site, name, "?stream=true")) == events


async def test_it_can_be_cancelled_once_and_again(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site))["id"]
        site.engine.emit(name, Started(0))
        for _ in range(2):
            cancelled = await site.send("POST", f"{RESPONSES}/{name}/cancel")
            assert body(cancelled)["status"] == "cancelled"
        assert body(await get(site, name))["status"] == "cancelled"
        assert (await site.booked(name)).finish_reason == "cancelled"


async def test_what_is_wrong_is_refused(sites: Sites) -> None:
    async with sites() as site:
        assert said(await begin(site, store=False))["param"] == "background"
        plain = body(await begin(site, background=False))
        cancelled = await site.send("POST", f"{RESPONSES}/{plain['id']}/cancel")
        assert "background: true can be cancelled" in said(cancelled)["message"]
        assert (await get(site, plain["id"], "?starting_after=1")).status == 400
        assert await fails(await get(site, "resp_x", "?stream=true")) == (404, "stream_not_found")
        assert (await begin(site, max_output_tokens=-1)).status == 400
        assert (await begin(site, previous_response_id="resp_x")).status == 400


async def test_it_goes_on_by_itself_in_a_later_process(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site, seed=1))["id"]
        site.engine.emit(name, Started(0))
        await site.room.streams.running(name).log.begun()
    async with sites() as site:
        await site.engine.submitted()
        await read(await get(site, name, "?stream=true"))
        assert len(site.engine.requests) == 1
        done = body(await get(site, name))
        assert (done["id"], done["status"]) == (name, "incomplete")
        assert done["output"][0]["content"][0]["text"] == "abc"


async def begun(sites: Sites, **fields: Any) -> str:
    """Return the id of a response that has begun in a process that is gone."""
    async with sites(ScriptedEngine([], held=True)) as site:
        name: str = body(await begin(site, seed=1, **fields))["id"]
        site.engine.emit(name, Started(0))
        await site.room.streams.running(name).log.begun()
    return name


async def settled(site: Site) -> None:
    """Wait for what goes on by itself."""
    while tasks := site.room.streams._tasks:
        await asyncio.wait(tasks)


async def test_it_fails_where_the_model_has_changed(sites: Sites) -> None:
    name = await begun(sites)
    other = ScriptedEngine([A])
    other.fingerprint = "fp_other"
    async with sites(other) as site:
        await settled(site)
        failed = body(await get(site, name))
        assert (failed["id"], failed["status"]) == (name, "failed")
        assert failed["error"]["code"] == "server_error"
        assert "the model has changed since it began" in failed["error"]["message"]
        assert body(await site.send("POST", f"{RESPONSES}/{name}/cancel")) == failed
        items = body(await get(site, f"{name}/input_items"))["data"]
        assert [item["content"][0]["text"] for item in items] == ["hi"]
        for path in (f"{RESPONSES}/{name}?stream=true", f"/v1/streams/{name}"):
            assert await fails(await site.send("GET", path)) == (409, "stream_changed")
        refused = await begin(site, previous_response_id=name)
        assert await fails(refused) == (400, "previous_response_not_complete")
        assert "is failed, and cannot be continued" in said(refused)["message"]
        assert other.requests == {}
    async with sites() as site:  # the first model again: what has failed stays failed
        assert not site.room.streams._tasks
        assert body(await get(site, name)) == failed
        assert (await get(site, name, "?stream=true")).status == 409
        assert body(await site.send("DELETE", f"{RESPONSES}/{name}"))["deleted"]
        assert (await get(site, name)).status == (await get(site, name, "?stream=true")).status
        assert (await site.send("GET", f"/v1/streams/{name}")).status == 404


async def test_it_fails_where_what_it_continues_is_gone(sites: Sites) -> None:
    async with sites() as site:
        first, before = [body(await begin(site, background=False))["id"] for _ in range(2)]
        body(await site.send("DELETE", f"{RESPONSES}/{first}"))  # each process counts from 1
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site, previous_response_id=before))["id"]
        body(await site.send("DELETE", f"{RESPONSES}/{before}"))
    async with sites() as site:
        await settled(site)
        failed = body(await get(site, name))
        assert failed["status"] == "failed"
        assert before in failed["error"]["message"]


async def test_it_waits_for_room_to_go_on(sites: Sites) -> None:
    name = await begun(sites)
    async with sites(FullEngine()) as site:
        await site.later.wait()
        assert site.later.pauses == [7]
        assert body(await get(site, name))["status"] == "queued"
        assert body(await get(site, f"{name}/input_items"))["data"]
        site.engine.full = False
        await site.later.ring()
        await settled(site)
        assert body(await get(site, name))["status"] == "incomplete"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_it_can_be_given_up_while_it_waits(sites: Sites, method: str) -> None:
    name = await begun(sites)
    async with sites(FullEngine()) as site:
        await site.later.wait()
        path = f"{RESPONSES}/{name}" + "/cancel" * (method == "POST")
        ended = body(await site.send(method, path))
        assert ended.get("status") == ("cancelled" if method == "POST" else None)
        site.engine.full = False
        await site.later.ring()
        await settled(site)
        assert site.engine.requests == {}
        assert (await get(site, name, "?stream=true")).status == 404


async def test_another_process_makes_it(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as first, sites() as second:
        name = body(await begin(first))["id"]
        assert body(await get(second, name))["status"] == "queued"
        cancelled = await second.send("POST", f"{RESPONSES}/{name}/cancel")
        assert await fails(cancelled) == (409, "response_elsewhere")
        assert body(await first.send("POST", f"{RESPONSES}/{name}/cancel"))["status"] == "cancelled"


async def test_what_it_answers_is_listed_while_it_runs_and_when_cancelled(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site))["id"]
        listed = body(await get(site, f"{name}/input_items"))
        assert listed["data"][0]["content"][0]["text"] == "hi"
        unfinished = await begin(site, previous_response_id=name)
        assert await fails(unfinished) == (400, "previous_response_not_complete")
        site.engine.emit(name, Started(0))
        body(await site.send("POST", f"{RESPONSES}/{name}/cancel"))
        assert body(await get(site, f"{name}/input_items")) == listed


async def test_obfuscation_is_added_and_taken_away(sites: Sites) -> None:
    """As official clients may ask for it in the query."""
    async with sites() as site:
        streams = {}
        for wanted in (True, False):
            options = {"include_obfuscation": wanted}
            events = await read(await begin(site, seed=1, stream=True, stream_options=options))
            name = json.loads(events[0].partition(b"data: ")[2])["response"]["id"]
            streams[wanted] = events
            for query in (True, False):
                path = f"?stream=true&include_obfuscation={str(query).lower()}"
                rest = await read(await get(site, name, path))
                has = [b'"obfuscation"' in one for one in rest if b".delta\n" in one]
                assert has == [query] * 3
                assert (rest == events) == (query == wanted)
            assert await read(await get(site, name, "?stream=true")) == events
            assert (await get(site, name, "?include_obfuscation=true")).status == 200


async def test_it_can_be_deleted_while_it_runs(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site))["id"]
        assert body(await get(site, name))["status"] == "queued"
        site.engine.emit(name, Started(0))
        assert body(await site.send("DELETE", f"{RESPONSES}/{name}"))["deleted"]
        assert (await get(site, name)).status == 404
