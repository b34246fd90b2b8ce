"""Exercise 2: server-sent events in the chunks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamtok.teach.build.chunked import ask_paced, check_pace
from streamtok.teach.build.exercise import Exercise, Wrong, check, shown
from streamtok.teach.build.kit import STORY
from streamtok.teach.build.program import serving
from streamtok.teach.build.wire import read_chunks, read_head

DONE = b"data: [DONE]"


def grade(file: Path) -> Iterator[str]:
    """Send one request; read its chunks, the events in them and the JSON in these."""
    with serving(file) as program:
        response = ask_paced(program)
    fields, start = read_head(response.raw)
    chunks = read_chunks(response.raw, start)
    yield "the body is framed in chunks"
    media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    check(
        media_type == "text/event-stream",
        f"the Content-Type is {media_type or 'missing'}: EventSource and OpenAI's clients expect "
        "`text/event-stream`",
    )
    yield "the head says that events follow"
    blocks = read_blocks(b"".join(data for _, data in chunks))
    yield f"{len(blocks)} events, each ended by an empty line"
    check(DONE in blocks, _no_done(blocks))
    check(
        blocks[-1] == DONE and blocks.count(DONE) == 1,
        "`data: [DONE]` must be the last event, once: clients stop reading there",
    )
    values = [_value(block) for block in blocks[:-1]]
    yield "each holds JSON, and `[DONE]` is the last"
    _check_texts(values)
    yield "the texts are the tokens, and the last of them says why the answer ended"
    check_pace(response, chunks)
    yield "each was sent as soon as its token existed"


def read_blocks(body: bytes) -> list[bytes]:
    """Return the lines of each event. Raises Wrong."""
    check(body, "the body is empty")
    check(b"data:" in body, f"no line begins with `data: `: {shown(body)}")
    check(
        b"\n\n" in body,
        "no empty line ends the events: a client collects lines until one comes, and then "
        "dispatches the event (two \\n in a row)",
    )
    check(
        body.endswith(b"\n\n"),
        f"the last event, {shown(body[-40:])}, is not ended by an empty line: clients drop it",
    )
    blocks = [block for block in body.split(b"\n\n") if block]
    for block in blocks:
        for line in block.split(b"\n"):
            check(
                line.startswith((b"data:", b":", b"event:", b"id:", b"retry:")),
                f"a line of an event begins with no field: {shown(line)}. A line break in the text "
                "must be written as JSON does, as \\n in the string",
            )
        check(
            block.count(b"data:") == 1 or b"\ndata:" not in block,
            f"two events are not separated by an empty line: {shown(block)}",
        )
    return blocks


def _no_done(blocks: list[bytes]) -> str:
    if b'data: "[DONE]"' in blocks:
        return '`"[DONE]"` has quotes: the last event is no JSON, it is `data: [DONE]`'
    return (
        "the last event is not `data: [DONE]`: clients of OpenAI's API wait for it, and without it "
        "they cannot tell a complete answer from one that was cut"
    )


def _value(block: bytes) -> Any:
    data = block.removeprefix(b"data:").strip()
    try:
        return json.loads(data)
    except ValueError:
        python = b"'" in data and data.startswith(b"{'")
        raise Wrong(
            f"this is no JSON: {shown(data)}"
            + ("; that is how Python writes a dict, json.dumps writes JSON" if python else "")
            + ("" if python else "; json.dumps escapes quotes and line breaks")
        ) from None


def _check_texts(values: list[Any]) -> None:
    try:
        choices = [value["choices"][0] for value in values]
        texts = [choice["text"] for choice in choices]
        reasons = [choice["finish_reason"] for choice in choices]
    except (LookupError, TypeError) as error:
        raise Wrong(
            'each event is {"choices": [{"index": 0, "text": ..., "finish_reason": ...}]}; '
            f"missing: {error}"
        ) from None
    check(
        "".join(texts) == "".join(STORY),
        f"the texts together are {shown(''.join(texts))}, expected {shown(''.join(STORY))}",
    )
    check(
        reasons[-1] == "stop" and not any(reasons[:-1]),
        'finish_reason is null in each event but the last, which has "stop" (and may have no text)',
    )


EXERCISE = Exercise(
    name="events",
    title="Server-sent events on top",
    task=(
        "Write `respond` again. Now each chunk carries an event, `data: ` and one line of JSON and "
        'an empty line. The JSON is `{"choices": [{"index": 0, "text": TOKEN, "finish_reason": '
        'null}]}`; in the last one the text is empty and the reason is `"stop"`. After it comes '
        "`data: [DONE]`. The tokens have quotes and line breaks in them."
    ),
    hints=(
        (
            "The Content-Type is `text/event-stream`. The chunks are as before: `chunk(data)` of "
            "the kit frames one, `LAST_CHUNK` ends the body."
        ),
        (
            'An event ends with an empty line, so with two \\n: `f"data: {text}\\n\\n"`. These are '
            "bytes of the body; the \\r\\n of chunks are beside them."
        ),
        "json.dumps makes the JSON. An f-string does not escape what stands in a token.",
    ),
    real=(
        "Hugging Face's hosted server ended its streams without `[DONE]`, and clients hung "
        "(huggingface/text-generation-inference #1896); so did minimind's example "
        "(jingyaogong/minimind #738). A gateway wrote an error into an event that had no end yet, "
        "which made both unreadable (Wei-Shaw/sub2api #1471)."
    ),
    grade=grade,
)
