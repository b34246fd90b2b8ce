"""Responses in the background: polled, streamed, cancelled, and gone on with by a later process."""

import json
from typing import Any

from test_resume import A, Site, Sites, fails, read, said, sites

from streamtok.http.response import Response
from streamtok.messages import Finished, Started, TokenEvent
from streamtok.testing import ScriptedEngine

__all__ = ["sites"]
RESPONSES = "/v1/responses"
ASK: dict[str, Any] = {"input": "hi", "max_output_tokens": 3, "background": True}


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


async def test_it_can_be_deleted_while_it_runs(sites: Sites) -> None:
    async with sites(ScriptedEngine([], held=True)) as site:
        name = body(await begin(site))["id"]
        assert body(await get(site, name))["status"] == "queued"
        site.engine.emit(name, Started(0))
        assert body(await site.send("DELETE", f"{RESPONSES}/{name}"))["deleted"]
        assert (await get(site, name)).status == 404
