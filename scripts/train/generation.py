"""Asks a model folder many things at once, through streamtok's own numpy engine.

So what is evaluated is what the server answers. No HTTP is involved. `checks.py` judges the
answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamtok.config import EngineConfig
from streamtok.engine.base import TokenStream
from streamtok.engine.local import LocalEngine
from streamtok.messages import Failed, Finished, SamplingParams, SequenceRequest, TokenEvent
from streamtok.model.decoder import Decoder, load
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer

STEP_TOKENS = 256


@dataclass(frozen=True)
class Answer:
    """What the model said, how long it was, and whether it ended by itself."""

    request: str
    text: str
    seed: int
    tokens: int
    ended: bool


class Assistant:
    """A loaded model that answers chats of one user message."""

    def __init__(self, folder: Path) -> None:
        self._decoder: Decoder = load(folder)
        self._tokenizer = Tokenizer(folder)
        self._template = ChatTemplate(self._tokenizer)

    def answer_all(
        self, requests: Sequence[str], sampling: SamplingParams, max_tokens: int
    ) -> list[Answer]:
        """Answer every request; the seed of a request is its number."""
        return asyncio.run(self._answer_all(requests, sampling, max_tokens))

    async def _answer_all(
        self, requests: Sequence[str], sampling: SamplingParams, max_tokens: int
    ) -> list[Answer]:
        config = EngineConfig(max_queue=len(requests), step_tokens=STEP_TOKENS)
        engine = LocalEngine(self._decoder, config)
        try:
            streams = [
                engine.submit(str(seed), [self._sequence(request, sampling, seed, max_tokens)])
                for seed, request in enumerate(requests)
            ]
            collected = map(self._collect, streams, requests, range(len(requests)))
            return await asyncio.gather(*collected)
        finally:
            await engine.close()

    def _sequence(
        self, request: str, sampling: SamplingParams, seed: int, max_tokens: int
    ) -> SequenceRequest:
        prompt = self._template.render([{"role": "user", "content": request}])
        ids = self._tokenizer.encode(prompt, special=False)
        seeded = replace(sampling, seed=seed)
        return SequenceRequest(0, ids, seeded, max_tokens, self._tokenizer.stop_ids)

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
