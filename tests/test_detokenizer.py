"""Detokenisers: pieces add up to the whole text, hold no part of a character, cost the same."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from shapes import (
    BYTES,
    FIRST_BYTE,
    FIRST_PIECE,
    SHAPES,
    byte_level,
    metaspace,
    normalising,
    sentencepiece,
)
from tokenizers import Tokenizer as Backend

from streamtok.text.detokenizer import (
    ByteLevelDetokenizer,
    Detokenizers,
    WindowDetokenizer,
    byte_pieces,
)
from streamtok.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
TEXTS = st.text(st.sampled_from("ab  é日😀▁\ufffd") | st.characters(codec="utf-8"))


class CountingTokenizer(Tokenizer):
    """Remembers the longest list of ids that was decoded."""

    longest = 0

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        self.longest = max(self.longest, len(ids))
        return super().decode(ids, special=special)


@pytest.fixture(scope="module", params=[byte_level, sentencepiece])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return load(request.param(), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def byte_tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(byte_level(), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def space_tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(sentencepiece(), tmp_path_factory.mktemp("tokenizer"))


def load(backend: Backend, folder: Path) -> CountingTokenizer:
    backend.save(str(folder / "tokenizer.json"))
    return CountingTokenizer(folder)


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    detokenizer = Detokenizers(tokenizer).make()
    return [*(detokenizer.feed(token) for token in ids), detokenizer.flush()]


def test_the_tokenizers_own_decoder_decides_how(
    byte_tokens: Tokenizer, space_tokens: Tokenizer
) -> None:
    assert isinstance(Detokenizers(byte_tokens).make(), ByteLevelDetokenizer)
    assert isinstance(Detokenizers(space_tokens).make(), WindowDetokenizer)


@examples(100)
@given(text=TEXTS)
def test_pieces_of_a_text_add_up_and_hold_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=False)
    parts = pieces(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids)
    if REPLACEMENT not in text:
        assert REPLACEMENT not in "".join(parts)
        assert parts[-1] == ""


@examples(100)
@given(data=st.data())
def test_pieces_of_any_byte_level_ids_add_up(byte_tokens: Tokenizer, data: st.DataObject) -> None:
    """Also those that are no text, special or unknown."""
    ids = data.draw(st.lists(st.integers(0, byte_tokens.vocab + 2)))
    assert "".join(pieces(byte_tokens, ids)) == byte_tokens.decode(ids)


@examples(100)
@given(data=st.data())
def test_pieces_of_any_window_ids_add_up(space_tokens: Tokenizer, data: st.DataObject) -> None:
    """Also special and unknown ones; bytes only where they make characters.

    How many U+FFFD a run of bytes that is no text becomes depends, in a byte fallback, on the whole
    of the run, which a stream cannot wait for.
    """
    others = st.integers(FIRST_PIECE, space_tokens.vocab + 2) | st.integers(0, 2)
    characters = TEXTS.map(lambda text: space_tokens.encode(text, special=False))
    runs = data.draw(st.lists(others.map(lambda token: (token,)) | characters))
    ids = [token for run in runs for token in run]
    assert "".join(pieces(space_tokens, ids)) == space_tokens.decode(ids)


@examples(50)
@given(ids=st.lists(st.integers(0, 300), max_size=40))
def test_ids_that_are_no_text_never_raise(space_tokens: Tokenizer, ids: list[int]) -> None:
    assert all(isinstance(piece, str) for piece in pieces(space_tokens, ids))


@examples(100)
@given(text=TEXTS)
def test_no_more_than_an_unfinished_character_is_held_back(
    byte_tokens: Tokenizer, text: str
) -> None:
    table = byte_pieces(byte_tokens)
    detokenizer, fed, shown = ByteLevelDetokenizer(table, {}), b"", ""
    for token in byte_tokens.encode(text, special=False):
        fed += table.get(token, b"")  # a special one, whose name is in the text, has none
        shown += detokenizer.feed(token)
        held = fed.removeprefix(shown.encode())
        assert len(shown.encode()) + len(held) == len(fed)
        assert len(held) <= 3
        assert held.decode("utf-8", "ignore") == ""


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([FIRST_PIECE, FIRST_PIECE + 1, FIRST_PIECE + 2] * 50, id="pieces"),
        pytest.param([FIRST_BYTE + byte for byte in "é日😀".encode() * 30], id="characters"),
        pytest.param([FIRST_BYTE + byte for byte in REPLACEMENT.encode() * 60], id="U+FFFD"),
        pytest.param([FIRST_BYTE + 0xFF] * 200, id="no text"),
    ],
)
def test_a_token_costs_the_same_however_long_the_text(tmp_path: Path, ids: list[int]) -> None:
    tokenizer = load(sentencepiece(), tmp_path)
    detokenizer = WindowDetokenizer(tokenizer)
    text = "".join(detokenizer.feed(token) for token in ids) + detokenizer.flush()
    assert tokenizer.longest <= 24
    assert text == tokenizer.decode(ids)


def test_the_end_of_an_unfinished_character_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🦀", special=False)[:-1]
    *_, last = parts = pieces(tokenizer, ids)
    assert REPLACEMENT in last
    assert "".join(parts) == tokenizer.decode(ids)


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids
    detokenizer = Detokenizers(tokenizer).make()
    assert "".join(detokenizer.feed(token) for token in tokenizer.special_ids) == ""


def test_two_sequences_do_not_share_state(tokenizer: Tokenizer) -> None:
    detokenizers = Detokenizers(tokenizer)
    first, second = detokenizers.make(), detokenizers.make()
    for token in tokenizer.encode("😀", special=False)[:-1]:
        first.feed(token)
    ids = tokenizer.encode("ab", special=False)
    assert "".join(map(second.feed, ids)) == "ab"


def test_the_bytes_of_tokens_add_up_to_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab a  é日", special=False)
    octets = b"".join(map(Detokenizers(tokenizer).token_bytes, ids))
    assert octets.decode().strip(" ") == "ab a  é日"


@pytest.mark.parametrize(("token", "octets"), [("▁a", b" a"), ("▁", b" "), ("<0xE2>", b"\xe2")])
def test_the_bytes_of_a_token_are_those_within_a_text(
    space_tokens: Tokenizer, token: str, octets: bytes
) -> None:
    index = space_tokens.backend.token_to_id(token)
    assert index is not None
    assert Detokenizers(space_tokens).token_bytes(index) == octets


def test_the_bytes_of_a_special_token_are_its_name(tokenizer: Tokenizer) -> None:
    for token in tokenizer.special_ids:
        name = Detokenizers(tokenizer).token_bytes(token).decode()
        assert tokenizer.backend.token_to_id(name) == token


def test_an_unknown_id_has_no_bytes(tokenizer: Tokenizer) -> None:
    assert Detokenizers(tokenizer).token_bytes(tokenizer.vocab) == b""


# After a prompt


@pytest.fixture(scope="module", params=SHAPES)
def any_tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return load(request.param(), tmp_path_factory.mktemp("tokenizer"))


def answer(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], **options: bool) -> str:
    detokenizer = Detokenizers(tokenizer).make(prompt, **options)
    return "".join(map(detokenizer.feed, ids)) + detokenizer.flush()


def runs(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Lists of any ids, bytes of a byte fallback only where they make characters."""
    whole = [t for t in range(tokenizer.vocab + 2) if t not in range(FIRST_BYTE, FIRST_PIECE)]
    if tokenizer.backend.id_to_token(FIRST_BYTE) != BYTES[0]:
        whole = list(range(tokenizer.vocab + 2))
    characters = TEXTS.map(lambda text: tokenizer.encode(text, special=False))
    pieces = st.sampled_from(whole).map(lambda token: (token,)) | characters
    return st.lists(pieces).map(lambda parts: [token for part in parts for token in part])


@examples(200)
@given(data=st.data(), special=st.booleans())
def test_an_answer_is_the_whole_less_the_prompt(
    any_tokenizer: Tokenizer, data: st.DataObject, special: bool
) -> None:
    """Whatever the prompt, whatever its length: from nothing to more than is looked at."""
    prompt, ids = data.draw(runs(any_tokenizer)), data.draw(runs(any_tokenizer))
    before = any_tokenizer.decode(prompt, special=special)
    whole = any_tokenizer.decode([*prompt, *ids], special=special)
    after = answer(any_tokenizer, prompt, ids, special=special)
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(whole, before, strict=False))
    assert after == whole[len(list(shared)) :]


@examples(100)
@given(data=st.data())
def test_an_answer_completes_what_the_prompt_left(
    any_tokenizer: Tokenizer, data: st.DataObject
) -> None:
    """With the prompt's text before it nothing is missing, and nothing there twice."""
    ids = any_tokenizer.encode(data.draw(TEXTS), special=False)
    cut = data.draw(st.integers(0, len(ids)))
    detokenizers = Detokenizers(any_tokenizer)
    prompt, detokenizer = detokenizers.text(ids[:cut]), detokenizers.make(ids[:cut])
    detokenizer.follow(prompt)
    after = "".join(map(detokenizer.feed, ids[cut:])) + detokenizer.flush()
    if REPLACEMENT not in any_tokenizer.decode(ids):
        assert prompt + after == any_tokenizer.decode(ids)


@pytest.mark.parametrize("shape", [sentencepiece, normalising, metaspace])
def test_the_first_word_of_an_answer_keeps_its_space(shape: Any, tmp_path: Path) -> None:
    tokenizer = load(shape(), tmp_path)
    ids = {piece: tokenizer.backend.token_to_id(piece) for piece in ("▁a", "b", "<s>", "</s>")}
    begin, word, end, rest = ids["<s>"], ids["▁a"], ids["</s>"], ids["b"]
    assert answer(tokenizer, [begin, word, rest], [word, rest]) == " ab"
    assert answer(tokenizer, [begin, rest, end], [word]) == " a"
    assert answer(tokenizer, [], [word]) == "a"
    assert answer(tokenizer, [begin], [word]) == "a"  # a text begins here, as its prompt would
    assert answer(tokenizer, [begin], [word], within=True) == " a"
    assert answer(tokenizer, [begin, rest], [word, begin, rest], special=True) == " a<s>b"


def test_a_character_may_end_in_the_answer(any_tokenizer: Tokenizer) -> None:
    ids = any_tokenizer.encode("日", special=False)
    if any_tokenizer.decode(ids) != "日" or len(ids) != 3:
        return  # one that has no bytes
    for cut in (1, 2):
        assert answer(any_tokenizer, ids[:cut], ids[cut:]) == "日"
        broken = any_tokenizer.encode("a", special=False)
        assert answer(any_tokenizer, ids[:cut], broken).strip() == "a"
        assert answer(any_tokenizer, ids[:cut], []) == ""


def test_a_long_prompt_costs_no_more(tmp_path: Path) -> None:
    tokenizer = load(sentencepiece(), tmp_path)
    ids = tokenizer.encode("日本語 " * 500, special=False)
    tokenizer.longest = 0
    assert answer(tokenizer, ids, [FIRST_PIECE + 4]) == " a"
    assert tokenizer.longest <= 24
