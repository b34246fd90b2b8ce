"""Asks a model folder many things at once, through streamtok's own numpy engine.

So what is evaluated is what the server answers. No HTTP is involved. `checks.py` judges the
answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from streamtok.config import EngineConfig
from streamtok.engine.base import TokenStream
from streamtok.engine.local import LocalEngine
from streamtok.messages import Failed, Finished, SamplingParams, SequenceRequest, TokenEvent
from streamtok.model.base import Decoder
from streamtok.model.load import load
from streamtok.text.templates.chat import JinjaTemplate
from streamtok.text.tokenizer import Tokenizer

STEP_TOKENS = 256
Turn = tuple[str, str]  # role and content


@dataclass(frozen=True)
class Answer:
    """What the model said, how long it was, and whether it ended by itself."""

    request: str
    text: str
    seed: int
    tokens: int
    ended: bool


def default_sampling(folder: Path) -> SamplingParams:
    """The sampling settings of the folder's `generation_config.json`."""
    values = json.loads((folder / "generation_config.json").read_text("utf-8"))
    names = ("temperature", "top_p", "top_k", "min_p")
    return SamplingParams(**{name: values[name] for name in names if name in values})


class ContextFullError(ValueError):
    """A chat leaves no token for an answer."""


class Assistant:
    """A loaded model that answers chats."""

    def __init__(self, folder: Path) -> None:
        self._decoder: Decoder = load(folder)
        self._tokenizer = Tokenizer(folder)
        self._template = JinjaTemplate(self._tokenizer)

    def answer_all(
        self,
        chats: Sequence[str | Sequence[Turn]],
        sampling: SamplingParams,
        max_tokens: int,
        seeds: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Answer every chat, or request alone; its seed is its number unless `seeds` are given.

        Raises:
            ContextFullError: a chat is too long to be answered.
        """
        turns = [[("user", chat)] if isinstance(chat, str) else list(chat) for chat in chats]
        seeds = range(len(turns)) if seeds is None else seeds
        return asyncio.run(self._answer_all(turns, sampling, max_tokens, seeds))

    async def _answer_all(
        self,
        chats: list[list[Turn]],
        sampling: SamplingParams,
        max_tokens: int,
        seeds: Sequence[int],
    ) -> list[Answer]:
        config = EngineConfig(max_queue=len(chats), step_tokens=STEP_TOKENS)
        engine = LocalEngine(self._decoder, config)
        try:
            streams = [
                engine.submit(str(number), [self._sequence(chat, sampling, seed, max_tokens)])
                for number, (chat, seed) in enumerate(zip(chats, seeds, strict=True))
            ]
            collected = map(self._collect, streams, [chat[-1][1] for chat in chats], seeds)
            return await asyncio.gather(*collected)
        finally:
            await engine.close()

    def _sequence(
        self, chat: list[Turn], sampling: SamplingParams, seed: int, max_tokens: int
    ) -> SequenceRequest:
        messages = [{"role": role, "content": content} for role, content in chat]
        ids = self._tokenizer.encode(self._template.render(messages), special=False)
        left = self._decoder.config.context - len(ids)
        if left < 1:
            raise ContextFullError(f"a chat of {len(ids)} tokens fills the context")
        seeded = replace(sampling, seed=seed)
        return SequenceRequest(0, ids, seeded, min(max_tokens, left), self._tokenizer.stop_ids)

    async def _collect(self, stream: TokenStream, request: str, seed: int) -> Answer:
        ids: list[int] = []
        ended = False
        async for event in stream:
            if isinstance(event, TokenEvent):
                ids.append(event.token_id)
            elif isinstance(event, Finished):
                ended = event.reason == "stop"
            elif isinstance(event, Failed):
                raise event.error
        return Answer(request, self._tokenizer.decode(ids), seed, len(ids), ended)
