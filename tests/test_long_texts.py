"""Long texts are tokenised in pieces, with the ids of the whole, by every kind of tokenizer."""

from functools import cache
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from streamtok.config import default_model
from streamtok.errors import InvalidRequest
from streamtok.text.long import LongTexts, pieces
from streamtok.text.templates.special import SpecialTokens

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = "<|end|>"
TEXT = (
    "Once upon a time, a little fox (it's 7 years old) found 12345 lanterns.\n\nShe said: Run!\n"
    'été à Zürich 字字，字。 {"a": [1,2,3]} x=y/z - end\t of  it\r\n'
) * 20
WORDS = [*TEXT.split(" ")[:30], "\n", "  ", SPECIAL]
WORDS += ["字，字", "été", "1,2", "x.y", "'s", "\t", "e\u0301"]


def byte_level(pattern: str) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(made, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))


def gpt2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(made, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))


def sentencepiece(kind: str) -> Tokenizer:
    """Make one as Llama 2's, which has no pre-tokenizer, or with Metaspace, or of unigrams."""
    first: list[str | AddedToken] = ["<unk>"]
    if kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        unigrams = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=first)
        return trained(made, unigrams)
    made = Tokenizer(models.BPE(fuse_unk=True, byte_fallback=kind == "llama"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    if kind == "llama":
        first += [f"<0x{byte:02X}>" for byte in range(256)]
    trained(made, trainers.BpeTrainer(vocab_size=200 + len(first), special_tokens=first))
    if kind == "llama":
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    return made


def wordpiece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained(made, trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]", "[CLS]"]))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [CLS]", special_tokens=[("[CLS]", made.token_to_id("[CLS]"))]
    )
    return made


def trained(made: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    made.train_from_iterator([TEXT], trainer)
    made.add_special_tokens([AddedToken(SPECIAL)])
    return made


MADE = {
    "gpt2": gpt2,
    "gpt2-split": lambda: byte_level(GPT2),
    "llama3": lambda: byte_level(LLAMA3),
    "qwen": lambda: byte_level(QWEN),
    "o200k": lambda: byte_level(O200K),
    "llama2": lambda: sentencepiece("llama"),
    "metaspace": lambda: sentencepiece("metaspace"),
    "unigram": lambda: sentencepiece("unigram"),
    "wordpiece": wordpiece,
    "shipped": lambda: Tokenizer.from_file(str(Path(default_model()) / "tokenizer.json")),
}


@cache
def made(name: str) -> tuple[Tokenizer, LongTexts]:
    backend = MADE[name]()
    return backend, LongTexts(backend)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 8)
    monkeypatch.setattr(pieces, "MOST", 4096)


@pytest.mark.parametrize("name", MADE)
@given(st.data())
@examples(30)
def test_the_ids_are_those_of_the_whole(name: str, data: st.DataObject) -> None:
    backend, texts = made(name)
    words = st.sampled_from(WORDS) | st.text(max_size=3)
    joined = data.draw(st.sampled_from([" ", "", "\n", ", "]))
    text = joined.join(data.draw(st.lists(words, max_size=30)))
    for special in (False, True):
        whole = backend.encode(text, add_special_tokens=special).ids
        assert texts.ids(text, special=special) == whole


@pytest.mark.parametrize("name", MADE)
def test_texts_are_cut_and_places_are_those_of_the_whole(name: str) -> None:
    backend, texts = made(name)
    whole = backend.encode(TEXT, add_special_tokens=False)
    parts = list(texts.encodings(TEXT))
    assert len(parts) > len(TEXT) / 80
    assert [token for _, part in parts for token in part.ids] == whole.ids
    ends = [at + end for at, part in parts for _, end in part.offsets]
    assert ends == [end for _, end in whole.offsets]


@pytest.mark.parametrize("text", ["x" * 5000, "fox " * 2 + "\u5b57" * 5000])
def test_what_cannot_be_cut_is_refused_from_a_length_on(text: str) -> None:
    _, texts = made("gpt2")
    assert len(texts.ids(text[:4000])) > 100
    with pytest.raises(InvalidRequest, match=r"from character [08] on it has no end of a word"):
        texts.ids(text)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": normalizers.Strip()},
        {"normalizer": normalizers.Replace("x y", "z")},
        {"pre_tokenizer": pre_tokenizers.Split(Regex(r"(?<=x) "), "isolated")},
        {"pre_tokenizer": pre_tokenizers.Split(Regex(r"^\S+|\s+\S+"), "isolated")},
        {"pre_tokenizer": pre_tokenizers.FixedLength(length=5)},
    ],
    ids=["strip", "replace", "behind", "anchor", "fixed"],
)
def test_other_kinds_are_encoded_whole(change: dict[str, object]) -> None:
    backend = gpt2()
    for name, part in change.items():
        setattr(backend, name, part)
    texts = LongTexts(backend)
    assert texts.ids(TEXT) == backend.encode(TEXT, add_special_tokens=False).ids
    assert len(list(texts.encodings(TEXT))) == 1


def test_special_tokens_far_in_a_text_stay_text_where_they_are_not_the_templates() -> None:
    backend, _ = made("gpt2")
    tokens = SpecialTokens(backend)
    message = TEXT + SPECIAL + TEXT
    marks = tokens.marks(message, "")
    assert marks is not None
    written = SPECIAL + tokens.marked(message, marks) + SPECIAL
    own = backend.token_to_id(SPECIAL)
    ids = tokens.encode(written, marks)
    assert [place for place, token in enumerate(ids) if token == own] == [0, len(ids) - 1]
    assert backend.decode(ids[1:-1], skip_special_tokens=False) == " " + message
