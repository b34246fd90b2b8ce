"""The tokenizer of the shipped model: byte-level BPE with the marks of the chat format.

It trains the tokenizer and turns documents into token ids. A plain document is
`<|endoftext|>text`; a chat is `<|endoftext|>` and then `<|role|>content<|end|>` for each message.
The server has its own tokenizer, which reads the same `tokenizer.json`. `token_stream.py` is the
place to read next.
"""

from __future__ import annotations

from collections.abc import Iterable

from mixture import Document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|end|>"
SPECIAL_TOKENS = [END_OF_TEXT, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens, among them all 256 bytes and the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = (END_OF_TEXT, token_id(tokenizer, END_OF_TEXT))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
        special_tokens=[begin],
    )
    return tokenizer


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    """The text of every token."""
    return [tokenizer.decode([index]) for index in range(tokenizer.get_vocab_size())]


def encode_documents(tokenizer: Tokenizer, documents: list[Document]) -> list[list[int]]:
    """Token ids of every document, in the order of `documents`.

    Text is encoded apart from the marks, so that a mark written out inside a text stays text.
    """
    texts = [text for document in documents for text in contents(document)]
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    encoded = iter(plain.encode_batch(texts, add_special_tokens=False))
    sequences = []
    for document in documents:
        ids = [token_id(tokenizer, END_OF_TEXT)]
        for role, _ in document.messages:
            ids += [token_id(tokenizer, f"<|{role}|>"), *next(encoded).ids]
            ids.append(token_id(tokenizer, END_OF_TURN))
        if not document.messages:
            ids += next(encoded).ids
        sequences.append(ids)
    return sequences


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token; raise `KeyError` where the vocabulary lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def contents(document: Document) -> list[str]:
    """The texts of a document: its messages, or its plain text alone."""
    return [content for _, content in document.messages] or [document.text]
