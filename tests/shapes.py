"""Tokenizers of every shape that models have, small: they differ in how tokens become text."""

import json
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

SAMPLE = "the cat, das Mädchen, 日本語のテキスト, 😀😀 naïve café "
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
PIECES = ("▁", "a", "b", "c", "▁a", "ab", "▁▁", "é")
FIRST_BYTE, FIRST_PIECE = 3, 3 + len(BYTES)


def byte_level() -> Backend:
    """Return a byte-level tokenizer with tokens that end within a character, and added ones."""
    from streamtok.testing import byte_tokenizer  # which scripts do without

    backend = byte_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([SAMPLE] * 3, trainer)
    backend.add_tokens(["<think>", "日本", "café"])
    return backend


def sentencepiece() -> Backend:
    """Return a tokenizer with a decoder like that of Llama 2: marked spaces, byte fallback."""
    vocab = {token: index for index, token in enumerate(("<unk>", "<s>", "</s>", *BYTES, *PIECES))}
    merges = [("▁", "a"), ("a", "b"), ("▁", "▁")]
    backend = Backend(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return backend


def normalising() -> Backend:
    """Return the older form of the same, as Llama 2's own file has it: by a normaliser."""
    backend = sentencepiece()
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return backend


def metaspace() -> Backend:
    """Return a unigram tokenizer, as T5 has one, whose decoder is Metaspace."""
    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((piece, -2.0) for piece in PIECES)]
    backend = Backend(models.Unigram(vocab, unk_id=0))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return backend


def word_pieces() -> Backend:
    """Return a tokenizer like BERT's, which marks what continues a word."""
    words = ("[UNK]", "[CLS]", "a", "b", "ab", "##a", "##b", "##ab", ".", ",", "'", "n", "t", "##é")
    backend = Backend(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.add_special_tokens(["[UNK]", "[CLS]"])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    return backend


def suffixes() -> Backend:
    """Return a tokenizer like the first GPT's, which marks the ends of words."""
    words = ("<unk>", "a", "b", "ab", "a</w>", "b</w>", "ab</w>", ".</w>")
    backend = Backend(
        models.BPE(
            {word: index for index, word in enumerate(words)},
            [("a", "b"), ("a", "b</w>")],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    backend.add_special_tokens(["<unk>"])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.BPEDecoder("</w>")
    return backend


def words() -> Backend:
    """Return a tokenizer without a decoder: there is a space between all tokens."""
    backend = Backend(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "é日": 3}, "<unk>"))
    backend.add_special_tokens(["<unk>"])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


SHAPES = (byte_level, sentencepiece, normalising, metaspace, word_pieces, suffixes, words)


TEXTS_WITH_SPECIALS = ("ab", "a b", "<s>a", "<s> a", "a</s>b", "a</s> b", "<s></s>a", " a", "a  b")


ENDS: tuple[dict[str, bool], ...] = (
    {},
    {"add_bos_token": True},
    {"add_bos_token": False},
    {"add_bos_token": True, "add_eos_token": True},
    {"add_eos_token": True},
)


def llama_folder(folder: Path, form: str, **keys: object) -> None:
    """Write the tokenizer of a Llama: in the older form, `normalising`, or as `metaspace`.

    `keys` are more of its `tokenizer_config.json`.
    """
    backend = normalising() if form == "normalising" else sentencepiece()
    if form == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    settings = {"tokenizer_class": "LlamaTokenizer", **tokens, **keys}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
