"""A correct server of chat completions on Starlette and uvicorn, for trials of doctor and proxy.

usage: uvicorn --app-dir scripts/trials uvicorn_app:app
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "fox"
TEXT = (
    "A fox ran over the snow in Zürich \U0001f98a and found a lantern that shone all night long ."
)
WORDS = TEXT.split()
MOST, PROMPT = 40, 5
STEP_S = 0.02


def refusal(status: int, message: str, code: str, param: str | None = None) -> Response:
    """Return an error as OpenAI writes it."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return JSONResponse({"error": error}, status)


def answer(asked: dict[str, Any]) -> tuple[list[str], str]:
    """Return the texts of an answer, and why it ends."""
    most = asked.get("max_tokens") or 20
    texts = [(" " if n else "") + WORDS[n % len(WORDS)] for n in range(min(most, MOST))]
    whole, reason = "".join(texts), "length" if len(texts) == most else "stop"
    stops = asked.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop in whole:
            whole, reason = whole[: whole.index(stop)], "stop"
            texts = [whole]
    return texts, reason


async def models(_: Request) -> Response:
    """`GET /v1/models`."""
    model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "me"}
    return JSONResponse({"object": "list", "data": [model]})


async def chat(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    try:
        asked = await request.json()
    except ValueError:
        return refusal(400, "no JSON", "invalid_json")
    if not isinstance(asked.get("messages"), list):
        return refusal(400, "messages must be a list", "invalid_value", "messages")
    if asked.get("model") not in (None, MODEL):
        return refusal(404, "no such model", "model_not_found", "model")
    texts, reason = answer(asked)
    base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL}
    count = len(texts)
    usage = {
        "prompt_tokens": PROMPT,
        "completion_tokens": count,
        "total_tokens": PROMPT + count,
    }
    if asked.get("stream"):
        counts = (asked.get("stream_options") or {}).get("include_usage")
        body = events(base, texts, reason, usage if counts else None)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)
    message = {"role": "assistant", "content": "".join(texts)}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    return JSONResponse(whole)


async def events(
    base: dict[str, Any], texts: list[str], reason: str, usage: dict[str, int] | None
) -> AsyncIterator[str]:
    """Yield the events of a stream."""

    def event(choices: list[Any], **more: Any) -> str:
        value = {**base, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(value)}\n\n"

    def delta(value: dict[str, str], finish: str | None = None) -> str:
        more = {"usage": None} if usage else {}
        return event([{"index": 0, "delta": value, "finish_reason": finish}], **more)

    yield delta({"role": "assistant", "content": ""})
    for text in texts:
        await asyncio.sleep(STEP_S)
        yield delta({"content": text})
    yield delta({}, reason)
    if usage:
        yield event([], usage=usage)
    yield "data: [DONE]\n\n"


app = Starlette(
    routes=[
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
)
