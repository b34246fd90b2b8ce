"""The tokenizer of a model folder: ids, special tokens, and what is wrong with a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from shapes import ENDS, TEXTS_WITH_SPECIALS, llama_folder
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers

from streamtok.errors import ModelError
from streamtok.model.generation_config import read_optional
from streamtok.testing import SPECIALS, byte_tokenizer
from streamtok.text.tokenizer import Tokenizer, byte_alphabet

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"))
BOS, END = 256, 260


def write(folder: Path, **files: Any) -> Path:
    """Write tokenizer.json, and each of `files` as the JSON file of that name."""
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write(tmp_path_factory.mktemp("tokenizer")))


@examples(50)
@given(text=TEXTS)
def test_a_text_survives_encoding(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=True)
    assert ids[0] == BOS
    assert ids[1:] == tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids) == text


@examples(50)
@given(text=st.text(st.characters(codec="utf-8")))
def test_the_byte_alphabet_is_that_of_the_library(text: str) -> None:
    alphabet = byte_alphabet()
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    shown = "".join(part for part, _ in splitter.pre_tokenize_str(text))
    assert bytes(alphabet[character] for character in shown) == text.encode()
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))


def test_special_tokens_in_a_text_become_themselves(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"{SPECIALS[2]}a{SPECIALS[4]}", special=False)
    assert (ids[0], ids[-1], len(ids)) == (258, END, 3)
    assert tokenizer.decode(ids) == "a"


def test_the_vocabulary_counts_added_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab == 256 + len(SPECIALS)
    assert tokenizer.special_ids == frozenset(range(256, 256 + len(SPECIALS)))


def test_no_settings_of_the_file_cut_or_fill_a_prompt(tmp_path: Path) -> None:
    backend = byte_tokenizer()
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer(tmp_path).encode("ten bytes.", special=False)) == 10
    assert len(Tokenizer(tmp_path).encode("ab", special=False)) == 2


@pytest.mark.parametrize(
    ("named", "eos_token", "ids"),
    [
        (None, None, set()),
        (256, None, {256}),
        ([256, 260], None, {256, 260}),
        (256, SPECIALS[4], {256, 260}),
        (None, {"content": SPECIALS[4]}, {260}),
        (None, "no such token", set()),
    ],
)
def test_stop_ids_are_those_named_and_that_of_eos(
    tmp_path: Path, named: Any, eos_token: Any, ids: set[int]
) -> None:
    folder = write(
        tmp_path,
        generation_config={"eos_token_id": named},
        tokenizer_config={"eos_token": eos_token},
    )
    assert Tokenizer(folder).stop_ids == ids


@pytest.mark.parametrize("named", ["2", [2, "3"], 1.5, [[2]], {"id": 2}])
def test_stop_ids_that_are_no_integers_are_an_error(tmp_path: Path, named: Any) -> None:
    folder = write(tmp_path, generation_config={"eos_token_id": named})
    with pytest.raises(ModelError, match=r"generation_config\.json: eos_token_id: expected"):
        Tokenizer(folder)


@pytest.mark.parametrize(
    ("value", "text"),
    [("<s>", "<s>"), ({"content": "<s>", "lstrip": False}, "<s>"), (None, ""), ({}, "")],
)
def test_special_tokens_are_named_by_text_or_object(tmp_path: Path, value: Any, text: str) -> None:
    folder = write(tmp_path, tokenizer_config={"bos_token": value})
    assert Tokenizer(folder).special_text("bos_token") == text
    assert Tokenizer(folder).special_text("eos_token") == ""


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'"\xff"', b""])
def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer(tmp_path)


def test_a_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read: No such file"):
        Tokenizer(tmp_path)


def test_an_optional_file_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    assert read_optional(path) == {}
    path.write_text('{"top_k": 5}')
    assert read_optional(path) == {"top_k": 5}
    path.write_text("[]")
    with pytest.raises(ModelError, match=r"generation_config\.json: expected a JSON object"):
        read_optional(path)


# What tokenizer_config.json adds


def added(token: str, **flags: bool) -> dict[str, Any]:
    return {"content": token, "lstrip": False, "rstrip": False, "normalized": False} | flags


def test_added_tokens_are_those_of_both_files(tmp_path: Path) -> None:
    known = {"256": added(SPECIALS[0], special=True), "262": added("<tool>", special=False)}
    decoder = known | {"261": added("<|new|>", special=True)}
    folder = write(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode("<|new|><tool>", special=False) == (261, 262)
    assert 261 in tokenizer.special_ids
    assert 262 not in tokenizer.special_ids
    assert Tokenizer(folder, 261).encode("<tool>", special=False)[0] < 256


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        ({"300": added("<|new|>")}, "'<|new|>' has the id 300, and would get 261"),
        ({"x": added("<|new|>")}, "expected tokens by their ids: invalid literal"),
        (["<|new|>"], "expected tokens by their ids"),
        ({"261": "<|new|>"}, "expected tokens by their ids"),
    ],
)
def test_added_tokens_that_are_wrong_are_named(tmp_path: Path, decoder: Any, said: str) -> None:
    folder = write(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    with pytest.raises(ModelError) as caught:
        Tokenizer(folder)
    assert said in str(caught.value)
    assert "tokenizer_config.json: added_tokens_decoder: " in str(caught.value)


def test_a_tokenizer_in_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(ModelError, match=r"No such file.*can make it of tokenizer\.model"):
        Tokenizer(tmp_path)


# A Llama folder: what transformers 5 gives is in `tests/golden`, by `scripts/golden/token_ids.py`

TRANSFORMERS = json.loads((Path(__file__).parent / "golden" / "token_ids.json").read_text())


def ids_of(folder: Path, form: str) -> dict[str, list[int]]:
    llama_folder(folder, form)
    tokenizer = Tokenizer(folder)
    return {text: list(tokenizer.encode(text, special=False)) for text in TEXTS_WITH_SPECIALS}


def test_a_newer_llama_folder_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    assert ids_of(tmp_path, "metaspace") == TRANSFORMERS["metaspace"]


def test_an_older_one_gives_those_of_its_own_file(tmp_path: Path) -> None:
    """Which its makers had: a word after a special token has a space before it, as at the start.

    transformers 5 builds another tokenizer from the vocabulary, which differs there and where a
    text begins with a space.
    """
    found, other = ids_of(tmp_path, "normalising"), TRANSFORMERS["normalising"]
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    assert found == {
        text: backend.encode(text, add_special_tokens=False).ids for text in TEXTS_WITH_SPECIALS
    }
    word, rest = backend.token_to_id("▁a"), backend.token_to_id("a")
    assert (found["<s>a"], other["<s>a"]) == ([1, word], [1, rest])
    differ = {text for text in TEXTS_WITH_SPECIALS if found[text] != other[text]}
    assert differ == {"<s>a", "<s> a", "a</s>b", "a</s> b", "<s></s>a", " a"}


@pytest.mark.parametrize("flags", ENDS)
def test_a_llamas_texts_begin_and_end_as_in_transformers(
    tmp_path: Path, flags: dict[str, bool]
) -> None:
    llama_folder(tmp_path, "metaspace", **flags)
    ids = Tokenizer(tmp_path).encode("ab", special=True)
    assert list(ids) == TRANSFORMERS["ends"][json.dumps(flags)]
