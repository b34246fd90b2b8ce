"""Stop strings: the result of a slow search over the whole text, however the text was cut."""

from collections.abc import Sequence

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok.text.stops import StopMatcher

TEXTS = st.text("ab", max_size=24)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)
CUT_TEXTS = st.lists(st.text("ab", max_size=6), max_size=8)


def search(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """Return what to show of `text`, and the stop string that is met in it first."""
    for end in range(1, len(text) + 1):
        if complete := [stop for stop in stops if text[:end].endswith(stop)]:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def overlap(text: str, stops: Sequence[str]) -> str:
    """Return the longest end of `text` that is a beginning of a stop string, but not all of it."""
    ends = (text[start:] for start in range(len(text)))
    return next((end for end in ends if any(s.startswith(end) and s != end for s in stops)), "")


@examples(300)
@given(pieces=CUT_TEXTS, stops=STOPS)
def test_the_cutting_does_not_matter(pieces: list[str], stops: list[str]) -> None:
    shown, matched = search("".join(pieces), stops)
    matcher, out = StopMatcher(stops), ""
    for piece in pieces:
        out += matcher.feed(piece)
        assert shown.startswith(out)
    assert (out + matcher.flush(), matcher.matched) == (shown, matched)


@examples(200)
@given(text=TEXTS, stops=STOPS)
def test_what_is_held_back_is_the_least_possible(text: str, stops: list[str]) -> None:
    matcher, out = StopMatcher(stops), ""
    for end, character in enumerate(text, 1):
        out += matcher.feed(character)
        if matcher.matched is not None:
            return
        assert out + overlap(text[:end], stops) == text[:end]


@pytest.mark.parametrize(
    ("stops", "text", "shown", "matched"),
    [
        (["bc", "abcd"], "xabcd", "xa", "bc"),
        (["ab", "xab"], "xab", "", "xab"),
        (["aab"], "aaab", "a", "aab"),
        (["\n\n"], "one\ntwo\n\nthree", "one\ntwo", "\n\n"),
        (["é"], "café", "caf", "é"),
        (["long one"], "long on", "long on", None),
        ([], "anything", "anything", None),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_where_stop_strings_overlap_the_first_complete_one_decides(
    stops: list[str], text: str, shown: str, matched: str | None, size: int
) -> None:
    matcher = StopMatcher(stops)
    out = "".join(matcher.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert (out + matcher.flush(), matcher.matched) == (shown, matched)


def test_after_a_match_nothing_comes_out() -> None:
    matcher = StopMatcher(["."])
    assert matcher.feed("one. two") == "one"
    assert (matcher.feed(" three"), matcher.flush(), matcher.matched) == ("", "", ".")


def test_what_was_held_back_comes_out_once() -> None:
    matcher = StopMatcher(["stop"])
    assert (matcher.feed("the st"), matcher.flush(), matcher.flush()) == ("the ", "st", "")
