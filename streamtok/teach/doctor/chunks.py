"""Rules on what the events of a chat say: OpenAI's `chat.completion.chunk`, and their order.

Where a stream ends in an error event, the rules on a complete answer do not apply. Read next:
`streamtok.teach.doctor.totals`.
"""

import json
from collections.abc import Iterator
from typing import Any

from streamtok.teach.doctor.eventstream import DONE, Block, Stream
from streamtok.teach.doctor.recording import show
from streamtok.teach.doctor.rules import rule

SCHEMA = "OpenAI API reference, CreateChatCompletionStreamResponse"
REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
REQUIRED: dict[str, type] = {
    "id": str,
    "object": str,
    "created": int,
    "model": str,
    "choices": list,
}


def brief(value: Any) -> str:
    """Return a JSON value for people, cut where it is long."""
    return show(json.dumps(value).encode())


def _is_done(block: Block) -> bool:
    return (block.data or b"").strip() == DONE


@rule(
    "error",
    source="OpenAI API reference; RFC 8259",
    breaks="all clients: openai-python raises JSONDecodeError",
    fix="write each event with a JSON encoder, on one line",
)
def bad_json(stream: Stream) -> Iterator[str]:
    """The data of each event but [DONE] are a JSON object."""
    for block in stream.events:
        if not _is_done(block) and not isinstance(block.value, dict):
            yield show(block.raw)


@rule(
    "error",
    source="OpenAI API reference: a stream is terminated by data: [DONE]",
    breaks="clients that wait for it, and those that take its absence for a cut stream",
    fix="send `data: [DONE]` as the last event",
)
def done_missing(stream: Stream) -> Iterator[str]:
    """A stream ends with [DONE]."""
    if stream.events and not any(_is_done(block) for block in stream.events):
        yield show(stream.events[-1].raw)


@rule(
    "error",
    source="OpenAI API reference: a stream is terminated by data: [DONE]",
    breaks="clients that go on with the next answer after the first [DONE]",
    fix="send `data: [DONE]` once",
)
def done_repeated(stream: Stream) -> Iterator[str]:
    """[DONE] comes once."""
    yield from (show(block.raw) for block in [b for b in stream.events if _is_done(b)][1:])


@rule(
    "error",
    source="OpenAI API reference: a stream is terminated by data: [DONE]",
    breaks="all clients: they stop at [DONE] and never see what follows",
    fix="send usage and everything else before `data: [DONE]`",
)
def done_not_last(stream: Stream) -> Iterator[str]:
    """Nothing follows [DONE]."""
    after = False
    for block in stream.events:
        if after and not _is_done(block):
            yield show(block.raw)
        after = after or _is_done(block)


@rule(
    "error",
    source=SCHEMA,
    breaks="typed clients (Go, Rust, Java), which refuse the event; others fail where they use it",
    fix="send choices in each chunk and delta in each choice; keep to the types of the schema",
)
def chunk_schema(stream: Stream) -> Iterator[str]:
    """Each chunk has choices with deltas, and the types of chat.completion.chunk."""
    for chunk in stream.chunks:
        yield from _schema_breaches(chunk)


@rule(
    "warning",
    source=SCHEMA,
    breaks="typed clients (Rust, Java), which refuse the event; most others read on",
    fix="send id, object, created and model in each chunk, and index in each choice",
)
def chunk_keys(stream: Stream) -> Iterator[str]:
    """Each chunk says which answer it belongs to, and each choice which one it is."""
    for chunk in stream.chunks:
        missing = [key for key in REQUIRED if key not in chunk and key != "choices"]
        yield from (f"no {key}: {brief(chunk)}" for key in missing)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict) and "index" not in choice:
                yield f"no index: {brief(choice)}"


def _schema_breaches(chunk: dict[str, Any]) -> Iterator[str]:
    for key, kind in REQUIRED.items():
        if key in chunk and type(chunk[key]) is not kind:
            yield f"{key}: {brief(chunk[key])}"
    if "choices" not in chunk:
        yield f"no choices: {brief(chunk)}"
    if isinstance(chunk.get("object"), str) and chunk["object"] != "chat.completion.chunk":
        yield f"object: {chunk['object']}"
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            yield f"a choice: {brief(choice)}"
            continue
        if type(choice.get("index", 0)) is not int:
            yield f"index: {brief(choice)}"
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            yield f"no delta: {brief(choice)}"
        elif not all(isinstance(delta.get(key), str | None) for key in ("content", "role")):
            yield f"delta: {brief(delta)}"


def _constant(key: str, stream: Stream) -> Iterator[str]:
    values = [chunk[key] for chunk in stream.chunks if key in chunk]
    if other := [value for value in values if value != values[0]]:
        yield f"{brief(values[0])}, then {brief(other[0])}"


@rule(
    "error",
    source=SCHEMA + ": each chunk has the same ID",
    breaks="clients that sort chunks by it: they make several messages of one",
    fix="choose the id once for each request",
)
def id_changes(stream: Stream) -> Iterator[str]:
    """The id is the same in all chunks."""
    return _constant("id", stream)


@rule(
    "warning",
    source=SCHEMA + ": each chunk has the same timestamp",
    breaks="clients that compare chunks",
    fix="take the time once for each request",
)
def created_changes(stream: Stream) -> Iterator[str]:
    """The time of creation is the same in all chunks."""
    return _constant("created", stream)


@rule(
    "warning",
    source=SCHEMA,
    breaks="clients that book tokens by model",
    fix="send the same name in each chunk",
)
def model_changes(stream: Stream) -> Iterator[str]:
    """The model is the same in all chunks."""
    return _constant("model", stream)


def _by_index(stream: Stream) -> dict[Any, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Return the parts of each choice."""
    sorted_parts: dict[Any, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for choice, delta in stream.parts:
        sorted_parts.setdefault(str(choice.get("index", 0)), []).append((choice, delta))
    return sorted_parts


@rule(
    "error",
    source="OpenAI API reference, streaming: the first delta holds the role",
    breaks="clients that make a message of the role: they have none, or one without author",
    fix='send `"delta": {"role": "assistant", "content": ""}` first for each choice',
)
def role_missing(stream: Stream) -> Iterator[str]:
    """Each choice has a role."""
    for parts in _by_index(stream).values():
        if not any(delta.get("role") for _, delta in parts):
            yield brief(parts[0][0])


@rule(
    "error",
    source="OpenAI API reference, streaming: the first delta holds the role",
    breaks="clients that begin a message at the role: the text before it is lost",
    fix="send the role in the first delta of each choice",
)
def role_late(stream: Stream) -> Iterator[str]:
    """The role comes before any text."""
    for parts in _by_index(stream).values():
        roles = [bool(delta.get("role")) for _, delta in parts]
        if any(roles) and not roles[0]:
            yield brief(parts[0][0])


@rule(
    "error",
    source="OpenAI API reference, streaming: the first delta holds the role",
    breaks="clients that join deltas (`assistantassistant`) or begin a message at each role",
    fix="send the role in the first delta only",
)
def role_repeated(stream: Stream) -> Iterator[str]:
    """The role is said once."""
    for parts in _by_index(stream).values():
        yield from [brief(choice) for choice, delta in parts if delta.get("role")][1:]


@rule(
    "warning",
    source=SCHEMA,
    breaks="clients that read it of each chunk (a KeyError); those that have a default do not",
    fix="send `finish_reason: null` until the end",
)
def finish_key(stream: Stream) -> Iterator[str]:
    """Each choice has the key finish_reason."""
    return (brief(choice) for choice, _ in stream.parts if "finish_reason" not in choice)


@rule(
    "error",
    source=SCHEMA,
    breaks="typed clients, which know these values only",
    fix="map the engine's reasons to stop and length",
)
def finish_value(stream: Stream) -> Iterator[str]:
    """A finish_reason is null or one of those in the schema."""
    for choice, _ in stream.parts:
        reason = choice.get("finish_reason")
        if reason is not None and not (isinstance(reason, str) and reason in REASONS):
            yield brief(choice)


def _finishes(parts: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Return the places of the parts with a finish reason."""
    return [n for n, (choice, _) in enumerate(parts) if choice.get("finish_reason") is not None]


@rule(
    "error",
    source=SCHEMA,
    breaks="clients that wait for it, and agents, which ask whether the answer was cut",
    fix="end each choice with an empty delta and a finish_reason",
)
def finish_missing(stream: Stream) -> Iterator[str]:
    """Each choice ends with a finish_reason."""
    for parts in [] if stream.errors else _by_index(stream).values():
        if not _finishes(parts):
            yield brief(parts[-1][0])


@rule(
    "error",
    source=SCHEMA,
    breaks="clients that end a message at it: they end it twice",
    fix="send the finish_reason in one chunk of each choice",
)
def finish_repeated(stream: Stream) -> Iterator[str]:
    """A finish_reason comes once for each choice."""
    for parts in _by_index(stream).values():
        yield from (brief(parts[place][0]) for place in _finishes(parts)[1:])


@rule(
    "error",
    source=SCHEMA,
    breaks="clients that stop at the finish_reason: the text behind it is lost",
    fix="send the finish_reason behind the last text",
)
def text_after_finish(stream: Stream) -> Iterator[str]:
    """No text follows a finish_reason."""
    for parts in _by_index(stream).values():
        for place in _finishes(parts)[:1]:
            yield from (brief(c) for c, delta in parts[place + 1 :] if delta.get("content"))


@rule(
    "warning",
    source="the request: it asks for a few words",
    breaks="users, who see nothing",
    fix="look whether text is sent under another key than delta.content",
)
def no_text(stream: Stream) -> Iterator[str]:
    """There is text in the answer."""
    if stream.chunks and not stream.spoken and not stream.errors:
        yield brief(stream.chunks[0])


RULES = (
    bad_json,
    done_missing,
    done_repeated,
    done_not_last,
    chunk_schema,
    chunk_keys,
    id_changes,
    created_changes,
    model_changes,
    role_missing,
    role_late,
    role_repeated,
    finish_key,
    finish_value,
    finish_missing,
    finish_repeated,
    text_after_finish,
    no_text,
)
