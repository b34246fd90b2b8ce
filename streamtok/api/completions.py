"""`POST /v1/completions`: a text in, its continuation out."""

from collections.abc import Sequence
from typing import cast

from streamtok.api import requests
from streamtok.api.answers import CompletionChoice, CompletionLogprobs
from streamtok.api.endpoint import Order, answer, check_ids
from streamtok.api.generation import Piece
from streamtok.api.requests import CompletionRequest
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.detokenizer import Detokenizers

ENDPOINT = "/v1/completions"
MAX_TOKENS = 16  # OpenAI's default


async def complete(services: Services, call: Call) -> Response:
    """Continue a text, several texts, or texts that are token ids already."""
    fields, ignored = requests.convert(requests.read_object(call.request.body), CompletionRequest)
    return await answer(services, call, order(services, fields, ignored))


def order(services: Services, fields: CompletionRequest, ignored: tuple[str, ...] = ()) -> Order:
    """Return what a request asks for.

    Raises:
        RequestError: it cannot be had.
    """
    services.check_model(fields.model)
    return Order(
        endpoint=ENDPOINT,
        fields=fields,
        prompts=_prompts(services, fields.prompt),
        max_tokens=fields.max_tokens or MAX_TOKENS,
        top_logprobs=fields.logprobs,
        shape=CompletionShape(services.detokenizers, fields.logprobs is not None),
        ignored=ignored,
    )


class CompletionShape:
    """The JSON of a completion."""

    prefix = "cmpl"
    streamed = "text_completion"
    whole = "text_completion"

    def __init__(self, detokenizers: Detokenizers, logprobs: bool) -> None:
        self._detokenizers = detokenizers
        self._wants_logprobs = logprobs
        self._offsets: dict[int, int] = {}  # characters reported so far, by choice

    def opening(self, index: int) -> None:
        """Return nothing: a completion begins with its text."""

    def part(self, piece: Piece) -> CompletionChoice:
        """Return text."""
        return CompletionChoice(piece.index, piece.text, self._logprobs(piece.index, [piece]), None)

    def end(self, index: int, finish_reason: str) -> CompletionChoice:
        """Return the finish reason beside an empty text."""
        return CompletionChoice(index, "", None, finish_reason)

    def choice(self, index: int, pieces: Sequence[Piece]) -> CompletionChoice:
        """Return the whole text."""
        text = "".join(piece.text for piece in pieces)
        return CompletionChoice(
            index, text, self._logprobs(index, pieces), pieces[-1].finish_reason
        )

    def _logprobs(self, index: int, pieces: Sequence[Piece]) -> CompletionLogprobs | None:
        if not self._wants_logprobs:
            return None
        logprobs = CompletionLogprobs([], [], [], [])
        for token in (token for piece in pieces for token in piece.tokens):
            text, offset = self._text(token.id), self._offsets.get(index, 0)
            logprobs.tokens.append(text)
            logprobs.token_logprobs.append(token.logprobs.logprob)
            top = {self._text(other): value for other, value in token.logprobs.top}
            logprobs.top_logprobs.append(top | {text: token.logprobs.logprob})
            logprobs.text_offset.append(offset)
            self._offsets[index] = offset + len(text)
        return logprobs

    def _text(self, token_id: int) -> str:
        return self._detokenizers.token_bytes(token_id).decode("utf-8", "replace")


def _prompts(
    services: Services, prompt: str | list[str | int | list[int]]
) -> list[tuple[int, ...]]:
    """Return the token ids of each prompt."""
    if isinstance(prompt, str):
        return [services.tokenizer.encode(prompt, special=True)]
    if all(isinstance(item, str) for item in prompt):
        return [services.tokenizer.encode(str(item), special=True) for item in prompt]
    if all(isinstance(item, int) for item in prompt):
        return [_checked(services, cast("list[int]", prompt))]
    if all(isinstance(item, list) for item in prompt):
        return [_checked(services, cast("list[int]", item)) for item in prompt]
    raise InvalidRequest(
        "prompt: expected a string, or a list of strings, of token ids or of lists of token ids",
        param="prompt",
        code="invalid_value",
    )


def _checked(services: Services, ids: Sequence[int]) -> tuple[int, ...]:
    """Check that `ids` are tokens, and at least one."""
    check_ids(services, ids, "prompt")
    if not ids:
        raise InvalidRequest("prompt: a list of token ids must not be empty", param="prompt")
    return tuple(ids)
