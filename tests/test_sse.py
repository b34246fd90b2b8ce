"""Server-sent events: what is encoded is decoded, wherever the bytes were cut."""

from itertools import pairwise

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok.http.sse import DONE, EventDecoder, ServerEvent, encode

LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))
FIELDS = st.sampled_from(
    [b"data: x", b"data:y", b"data", b"event: e", b"id: 1", b"id", b": c", b"data: \xc3\xa9", b""]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def decode(*pieces: bytes) -> list[ServerEvent]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@given(texts=st.lists(LINES, max_size=4), cuts=st.lists(st.integers(0, 60)))
def test_what_was_encoded_comes_back_from_any_pieces(texts: list[str], cuts: list[int]) -> None:
    stream = b"".join(encode(text.encode()) for text in texts)
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert [event.data for event in decode(*pieces)] == texts


@examples(100)
@given(lines=st.lists(st.tuples(FIELDS, ENDS), max_size=10))
def test_a_cut_at_any_byte_changes_nothing(lines: list[tuple[bytes, bytes]]) -> None:
    stream = b"\xef\xbb\xbf" + b"".join(field + end for field, end in lines)
    whole = decode(stream)
    for place in range(len(stream)):
        assert decode(stream[:place], stream[place:]) == whole
    assert decode(*(bytes([byte]) for byte in stream)) == whole


@examples(100)
@given(fields=st.lists(FIELDS, max_size=10), end=ENDS)
def test_all_line_ends_mean_the_same(fields: list[bytes], end: bytes) -> None:
    with_lf = b"".join(field + b"\n" for field in fields)
    assert decode(b"".join(field + end for field in fields)) == decode(with_lf)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The four examples of the standard
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent("YHOO\n+2\n10")]),
        (
            b": c\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [
                ServerEvent("first event", id="1"),
                ServerEvent("second event"),
                ServerEvent(" third event"),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [ServerEvent(""), ServerEvent("\n")]),
        (b"data:test\n\ndata: test\n\n", [ServerEvent("test"), ServerEvent("test")]),
    ],
    ids=["lines", "comments and ids", "empty", "one space"],
)
def test_the_examples_of_the_standard(stream: bytes, events: list[ServerEvent]) -> None:
    assert decode(stream) == events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: x\n", [], id="no empty line, no event"),
        pytest.param(b"event: e\n\ndata: x\n\n", [ServerEvent("x")], id="event without data"),
        pytest.param(b"event: e\ndata: x\n\n", [ServerEvent("x", "e")], id="type"),
        pytest.param(b"event: e\nevent:\ndata: x\n\n", [ServerEvent("x")], id="empty type"),
        pytest.param(
            b"id: 1\n\ndata: x\n\ndata: y\n\n",
            [ServerEvent("x", id="1"), ServerEvent("y", id="1")],
            id="an id stays, also that of an event without data",
        ),
        pytest.param(b"id: 1\nid: a\0b\ndata: x\n\n", [ServerEvent("x", id="1")], id="id with NUL"),
        pytest.param(b"retry: 10\nfoo: bar\nDATA: x\n data: x\n\n", [], id="unknown fields"),
        pytest.param(b"data: a:b: c\n\n", [ServerEvent("a:b: c")], id="colons in the value"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", [ServerEvent("x")], id="BOM"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", [], id="second BOM"),
        pytest.param(b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [ServerEvent("x")], id="late BOM"),
        pytest.param(b"data: \xff\n\n", [ServerEvent("\ufffd")], id="not UTF-8"),
        pytest.param(
            "data: a\u2028b\u0085c\x0bd\n\n".encode(),
            [ServerEvent("a\u2028b\u0085c\x0bd")],
            id="no line ends but CR and LF",
        ),
        pytest.param(b"data: x\r\n\r\n", [ServerEvent("x")], id="CR LF is one line end"),
        pytest.param(b"data: x\n\r\n", [ServerEvent("x")], id="LF CR LF are two"),
    ],
)
def test_corner_cases(stream: bytes, events: list[ServerEvent]) -> None:
    assert decode(stream) == events


def test_an_event_is_there_with_the_cr_that_ends_it() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: x\r\r") == [ServerEvent("x")]
    assert decoder.feed(b"\ndata: y\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\n") == [ServerEvent("y")]


def test_an_event_is_one_data_line() -> None:
    assert encode(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert decode(DONE) == [ServerEvent("[DONE]")]


@pytest.mark.parametrize("data", [b"a\nb", b"a\rb"])
def test_a_line_break_cannot_be_encoded(data: bytes) -> None:
    with pytest.raises(AssertionError):
        encode(data)
