"""Rules on what a server does beside one stream: errors, keep-alive, stop strings, CORS, leaving.

What each compares was asked by `streamtok.teach.doctor.examine`, which is to be read next.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from streamtok.teach.doctor.eventstream import Stream
from streamtok.teach.doctor.recording import Answer, show
from streamtok.teach.doctor.rules import rule
from streamtok.teach.doctor.totals import ERROR_KEYS, has_message

ERROR_EVENT = re.compile(rb'data: ?\{\s*"error"\s*:\s*[{"]')


class Stopped(Struct, frozen=True):
    """A stream that was to end before the string `stop`."""

    stop: str
    stream: Stream


class Leaving(Struct, frozen=True):
    """What the server says of a request whose client left: whether it was given up, and how."""

    given_up: bool
    seen: str


def _value(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _error(answer: Answer) -> Any:
    """Return the body's "error", None if it has none."""
    value = _value(answer)
    return value.get("error") if isinstance(value, dict) else None


@rule(
    "error",
    source="RFC 9110 section 15.5; OpenAI API reference, error codes",
    breaks="all clients: openai-python raises by status, and retries 5xx",
    fix="validate before the head is sent, and answer 400",
)
def error_status(answer: Answer) -> Iterator[str]:
    """A request that is wrong is answered with 4xx."""
    if not 400 <= answer.status < 500 and not _hidden(answer):
        yield f"{answer.status}: {show(answer.body)}"


def _hidden(answer: Answer) -> bool:
    """Whether an error stands in an answer that says that all is well."""
    return answer.status == 200 and (bool(_error(answer)) or bool(ERROR_EVENT.search(answer.body)))


@rule(
    "error",
    source="RFC 9110 section 15; OpenAI API reference, error codes",
    breaks="all clients: they show an empty answer; balancers and monitors see success",
    fix="validate before the head is sent, and answer 4xx or 5xx",
)
def error_under_200(answer: Answer) -> Iterator[str]:
    """An error is not hidden under status 200."""
    if _hidden(answer):
        yield f"200: {show(answer.body)}"


@rule(
    "error",
    source="OpenAI API reference, error object",
    breaks="openai-python and openai-node: message, param and code of what they raise are empty",
    fix='send `{"error": {"message", "type", "param", "code"}}` with all four keys',
)
def error_shape(answer: Answer) -> Iterator[str]:
    """An error's body is OpenAI's error object, with a message."""
    if answer.status >= 400 and not has_message(_error(answer)):
        yield f"{answer.status}: {show(answer.body)}"


@rule(
    "warning",
    source="OpenAI API reference, error object",
    breaks="typed clients, and those that decide by type or code; others show the message",
    fix="send all four keys; type, param and code may be null",
)
def error_keys(answer: Answer) -> Iterator[str]:
    """An error's object has its four keys."""
    error = _error(answer)
    if answer.status >= 400 and has_message(error) and not error.keys() >= ERROR_KEYS:
        yield f"{answer.status}: {show(answer.body)}"


@rule(
    "warning",
    source="OpenAI API reference; RFC 9110 section 8.3",
    breaks="clients that parse by type: they show JSON text as the message",
    fix="send `Content-Type: application/json`",
)
def error_type(answer: Answer) -> Iterator[str]:
    """An error is declared as JSON."""
    given = answer.header("content-type") or ""
    if answer.status >= 400 and _error(answer) and "json" not in given:
        yield f"content-type: {given}" if given else "no content-type"


ERRORS = (error_status, error_under_200, error_shape, error_keys, error_type)


@rule(
    "warning",
    source="OpenAI API reference: 404, model_not_found",
    breaks="users who mistype a name: another model answers, and they do not notice",
    fix="answer 404 with the code model_not_found",
)
def unknown_model(answer: Answer) -> Iterator[str]:
    """A model that is not served is refused."""
    if answer.status == 200 and not _hidden(answer):
        yield f"200: {show(answer.body)}"


UNKNOWN = (unknown_model, error_under_200, error_shape, error_keys, error_type)


@rule(
    "error",
    source="RFC 9112 section 9.3",
    breaks="clients that keep connections (all official ones): their next request fails",
    fix="serve the next request after the zero chunk, or announce `Connection: close`",
)
def keep_alive(second: Answer | None) -> Iterator[str]:
    """After a stream the connection takes another request, unless the answer says it does not."""
    if second is None:
        yield "the connection ended"
    elif not second.status or not second.readable:
        yield "no answer to the second request"


@rule(
    "error",
    source="OpenAI API reference, stop: the returned text will not contain the stop sequence",
    breaks="agents, which parse what stands before it",
    fix="hold back text that could still become a stop string",
)
def stop_leak(stopped: Stopped) -> Iterator[str]:
    """A stop string is not part of the text."""
    if stopped.stop in stopped.stream.text:
        yield f"stop: {stopped.stop!r}, text: {stopped.stream.text!r}"


@rule(
    "error",
    source="WHATWG Fetch, CORS protocol",
    breaks="web pages: the preflight succeeds, and then the browser withholds the answer",
    fix="send Access-Control-Allow-Origin with every answer, errors too",
)
def cors_on_answer(answers: Iterable[Answer]) -> Iterator[str]:
    """Who allows an origin in the preflight allows it in the answer."""
    for answer in answers:
        if answer.header("access-control-allow-origin") is None:
            yield f"{answer.status} without access-control-allow-origin"


@rule(
    "error",
    source="RFC 9110 section 15 does not say; what users pay for",
    breaks="everybody else: tokens are made for nobody, and others wait for them",
    fix="watch the connection while generating, and cancel when it ends",
)
def cancelled(leaving: Leaving) -> Iterator[str]:
    """A request whose client left is given up."""
    if not leaving.given_up:
        yield leaving.seen
