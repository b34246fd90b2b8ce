"""What is done at once for many tokens gives the same bytes as the slow, readable way for each."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtok.answer.events import AnswerEvent, Began, ChoiceEnded, TextDelta, Usage
from streamtok.answer.render import Dialect, Renderer
from streamtok.api.openai.chat import ChatShape
from streamtok.api.openai.completions import CompletionShape
from streamtok.api.openai.streaming import Chunks
from streamtok.api.openai.types import ChatRequest, CompletionRequest
from streamtok.engine.base import TokenStream
from streamtok.http.body import BodyFramer
from streamtok.http.framings import EVENT_STREAM, JSON_LINES, PLAIN_TEXT, Framing
from streamtok.messages import Event, Finished, TokenEvent, Waiting

USAGE = Usage(3, 0, 0)
BEGAN = Began("id-1", 1, 'a "model" with \\0 and \0', "fp", 3, USAGE)
HEADS = {
    "chunked": (b"1.1", []),
    "until the end of the connection": (b"1.0", []),
    "of a declared length": (b"1.1", [("content-length", "{}")]),
}


def connection(version: bytes, headers: list[tuple[str, str]]) -> h11.Connection:
    """Return a connection whose head has been sent."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
    while server.next_event() is not h11.NEED_DATA and server.their_state is not h11.DONE:
        pass
    server.send(h11.Response(status_code=200, headers=headers))
    return server


@pytest.mark.parametrize("kind", HEADS)
@given(items=st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=8))
def test_chunks_are_framed_together_as_h11_frames_each(kind: str, items: list[list[bytes]]) -> None:
    version, fields = HEADS[kind]
    length = sum(len(chunk) for item in items for chunk in item)
    headers = [(name, value.format(length)) for name, value in fields]
    fast, slow = connection(version, headers), connection(version, headers)
    framer = BodyFramer(fast, None, singly=False)
    for item in items:
        expected = b"".join(slow.send(h11.Data(data=chunk)) or b"" for chunk in item)
        assert b"".join(framer.frame(item)) == expected
    assert fast.send(h11.EndOfMessage()) == slow.send(h11.EndOfMessage())
    assert fast.our_state is slow.our_state


def test_a_body_that_h11_does_not_take_is_refused_by_it() -> None:
    server = connection(*HEADS["chunked"])
    framer = BodyFramer(server, None, singly=False)
    assert framer.frame([b"a", b"bc"]) == [b"1\r\na\r\n2\r\nbc\r\n"]
    server.send(h11.EndOfMessage())
    with pytest.raises(h11.LocalProtocolError):
        framer.frame([b"d"])


class Slow:
    """A dialect none of whose chunks are made without it."""

    is_plain = False

    def __init__(self, dialect: Chunks) -> None:
        self._dialect = dialect
        self.chunks, self.end, self.complete = dialect.chunks, dialect.end, dialect.complete


def dialects() -> Iterable[Chunks]:
    """Yield a chat's and a completion's."""
    services: Any = type("Services", (), {"detokenizers": None, "new_id": str})
    chat = ChatRequest(messages=[])
    yield Chunks(ChatShape(services, chat, (1, 2), calls=False), None)
    yield Chunks(ChatShape(services, chat, (1, 2), calls=True), None)
    yield Chunks(CompletionShape(services.detokenizers, CompletionRequest(prompt=""), [(1,)]), None)


@pytest.mark.parametrize("framing", [EVENT_STREAM, JSON_LINES, PLAIN_TEXT])
@given(texts=st.lists(st.tuples(st.integers(0, 2), st.text(min_size=1)), max_size=20))
def test_chunks_of_text_are_what_the_dialect_makes(
    framing: Framing, texts: list[tuple[int, str]]
) -> None:
    deltas = [TextDelta(index, text, 1) for index, text in [*texts, (1, "\0"), (1, "")]]
    deltas[-1] = TextDelta(1, '"\\u0000"', 1)
    groups: list[Sequence[AnswerEvent]] = [
        [BEGAN],
        deltas[:3],
        deltas[3:],
        [ChoiceEnded(1, "stop", 0)],
    ]
    for fast, slow in zip(dialects(), map(Slow, dialects()), strict=True):
        assert fast.is_plain
        assert made(fast, framing, groups) == made(slow, framing, groups)


def made(
    dialect: Dialect, framing: Framing, groups: Sequence[Sequence[AnswerEvent]]
) -> list[list[bytes]]:
    """Return the chunks of each group."""
    renderer = Renderer(dialect, framing)
    return [renderer.chunks(group) for group in groups]


@given(st.lists(st.sampled_from(["token", "waiting", "finished"]), max_size=60), st.integers(1, 20))
def test_groups_of_events_are_the_events_one_by_one(kinds: list[str], most: int) -> None:
    async def run() -> None:
        told: tuple[list[int], list[int]] = [], []
        single, grouped = (TokenStream(70, counts.append) for counts in told)
        of: dict[str, Event | Waiting] = {"waiting": Waiting(), "finished": Finished(0, "stop", 0)}
        for number, kind in enumerate(kinds):
            for stream in (single, grouped):
                stream.queue.put_nowait(of.get(kind, TokenEvent(0, number)))
        one_by_one = [await anext(single) for _ in kinds]
        got: list[Event | Waiting] = []
        while len(got) < len(kinds):
            group = await grouped.group(most)
            assert 0 < len(group) <= most
            assert len(group) == 1 or all(isinstance(event, TokenEvent) for event in group)
            got += group
        assert got == one_by_one
        assert grouped.taken == single.taken
        assert grouped.taken - max(told[1], default=0) <= most + 15

    asyncio.run(run())
