"""Rules on what a stream says beside its text: usage, and errors.

Read next: `streamtok.teach.doctor.behaviour`, the rules on more than one answer.
"""

from collections.abc import Iterator
from typing import Any

from streamtok.teach.doctor.chunks import brief
from streamtok.teach.doctor.eventstream import Stream
from streamtok.teach.doctor.rules import rule

ERROR_KEYS = frozenset({"message", "type", "param", "code"})


def has_message(error: Any) -> bool:
    """Whether an error object says what is wrong."""
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def _usages(stream: Stream) -> list[tuple[int, dict[str, Any]]]:
    """Return the usage objects, with the places of their chunks."""
    usages = [(place, chunk.get("usage")) for place, chunk in enumerate(stream.chunks)]
    return [(place, usage) for place, usage in usages if isinstance(usage, dict)]


@rule(
    "error",
    source="OpenAI API reference, stream_options.include_usage",
    breaks="clients that book tokens: they count none",
    fix="send a chunk with `choices: []` and usage before [DONE]",
)
def usage_missing(stream: Stream) -> Iterator[str]:
    """Usage is sent where stream_options.include_usage asks for it."""
    if stream.usage_asked and stream.chunks and not stream.errors and not _usages(stream):
        yield brief(stream.chunks[-1])


@rule(
    "warning",
    source="OpenAI API reference, stream_options.include_usage",
    breaks="clients that take choices[0] of each chunk: they did not ask for one without",
    fix="send usage only where include_usage is true",
)
def usage_unasked(stream: Stream) -> Iterator[str]:
    """Usage is not sent where nobody asked for it."""
    if not stream.usage_asked:
        yield from (brief(usage) for _, usage in _usages(stream))


@rule(
    "error",
    source="OpenAI API reference, CompletionUsage",
    breaks="clients that book tokens: sums do not agree",
    fix="total_tokens = prompt_tokens + completion_tokens, all of them integers",
)
def usage_sum(stream: Stream) -> Iterator[str]:
    """Usage holds three integers, the last of which is the sum of the others."""
    for _, usage in _usages(stream):
        prompt, completion, total = (
            usage.get(f"{what}_tokens") for what in ("prompt", "completion", "total")
        )
        if type(prompt) is not int or type(completion) is not int or prompt + completion != total:
            yield brief(usage)


@rule(
    "warning",
    source="OpenAI API reference, stream_options.include_usage: null in all chunks but the last",
    breaks="clients that add up what they get: they count tokens more than once",
    fix="send `usage: null` in all chunks before the last",
)
def usage_early(stream: Stream) -> Iterator[str]:
    """Usage comes in the last chunk only."""
    last = len(stream.chunks) - 1
    if stream.usage_asked:
        yield from (brief(stream.chunks[n]) for n, _ in _usages(stream) if n != last)


@rule(
    "warning",
    source="OpenAI API reference, stream_options.include_usage: a null value in all other chunks",
    breaks="typed clients that expect the key",
    fix="send `usage: null` in all chunks before the last",
)
def usage_null(stream: Stream) -> Iterator[str]:
    """Where usage was asked for, each chunk has the key."""
    if stream.usage_asked and _usages(stream):
        yield from (brief(chunk) for chunk in stream.chunks if "usage" not in chunk)


@rule(
    "warning",
    source="OpenAI API reference, stream_options.include_usage: choices is an empty array",
    breaks="clients that know the usage chunk by its empty choices",
    fix="send usage in a chunk of its own, with `choices: []`",
)
def usage_choices(stream: Stream) -> Iterator[str]:
    """The chunk with usage has no choices."""
    for place, _ in _usages(stream)[-1:]:
        if stream.usage_asked and stream.chunks[place].get("choices"):
            yield brief(stream.chunks[place])


@rule(
    "error",
    source="OpenAI API reference, error object",
    breaks="openai-python and openai-node: the error they raise says nothing",
    fix='send `{"error": {"message", "type", "param", "code"}}` with all four keys',
)
def error_event(stream: Stream) -> Iterator[str]:
    """An error event holds OpenAI's error object, with a message."""
    yield from (brief(error) for error in stream.errors if not has_message(error))


@rule(
    "warning",
    source="OpenAI API reference, error object",
    breaks="typed clients, and those that decide by type or code; others show the message",
    fix="send all four keys; type, param and code may be null",
)
def error_event_keys(stream: Stream) -> Iterator[str]:
    """An error event's object has its four keys."""
    for error in stream.errors:
        if has_message(error) and not error.keys() >= ERROR_KEYS:
            yield brief(error)


@rule(
    "error",
    source="OpenAI API reference",
    breaks="clients that look whether the key is there: they raise an error where there is none",
    fix="leave the key out",
)
def error_null(stream: Stream) -> Iterator[str]:
    """A chunk without an error does not have the key."""
    return (brief(chunk) for chunk in stream.chunks if "error" in chunk)


@rule(
    "error",
    source="OpenAI API reference",
    breaks="users: the answer is not complete",
    fix="see the error, and the server's log",
)
def stream_failed(stream: Stream) -> Iterator[str]:
    """A stream for a valid request does not end in an error."""
    for error in stream.errors:
        if has_message(error):
            yield brief(error)


RULES = (
    usage_missing,
    usage_unasked,
    usage_sum,
    usage_early,
    usage_null,
    usage_choices,
    error_event,
    error_event_keys,
    error_null,
    stream_failed,
)
