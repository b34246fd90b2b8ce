"""`POST /v1/completions`: a text in, its continuation out."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

from msgspec import UNSET

from streamtok.answer.choice import Piece, Token, token_ids, tokens
from streamtok.api.constraints.structured import constraint
from streamtok.api.endpoint import Order, answer, check_ids
from streamtok.api.openai.answers import CompletionChoice, CompletionLogprobs
from streamtok.api.openai.streaming import Chunks
from streamtok.api.openai.types import CompletionRequest, StreamOptions
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.detokenizer import Detokenizers

ENDPOINT = "/v1/completions"
MAX_TOKENS = 16  # OpenAI's default


async def complete(services: Services, call: Call) -> Response:
    """Continue a text, several texts, or texts that are token ids already."""
    fields, ignored = services.read(call, CompletionRequest)
    return await answer(services, call, order(services, fields, ignored))


def order(services: Services, fields: CompletionRequest, ignored: tuple[str, ...] = ()) -> Order:
    """Return what a request asks for.

    Raises:
        RequestError: it cannot be had.
    """
    services.check_model(fields.model)
    candidates = _candidates(fields)
    prompts = list(read_prompts(services, fields.prompt, "prompt"))
    shape = CompletionShape(services.detokenizers, fields, [ids for ids, _ in prompts])
    return Order(
        endpoint=ENDPOINT,
        fields=fields,
        prompts=[ids for ids, _ in prompts],
        max_tokens=MAX_TOKENS if fields.max_tokens is None else fields.max_tokens,
        top_logprobs=fields.logprobs,
        prefix="cmpl-",
        dialect=partial(Chunks, shape=shape, options=fields.stream_options or StreamOptions()),
        ignored=ignored,
        candidates=candidates,
        echoes=[_text(services, fields, *prompt) for prompt in prompts] if fields.echo else (),
        constraint=constraint(fields),
    )


class CompletionShape:
    """The JSON of a completion."""

    streamed = "text_completion"
    whole = "text_completion"
    prompt_token_ids = UNSET  # each choice has its own

    def __init__(
        self,
        detokenizers: Detokenizers,
        fields: CompletionRequest,
        prompts: Sequence[tuple[int, ...]],
    ) -> None:
        self._detokenizers = detokenizers
        self._wants_logprobs = fields.logprobs is not None
        self._wants_ids = bool(fields.return_token_ids)
        # Each choice's prompt, until it has been told
        self._untold = {
            index: list(ids)
            for index, ids in enumerate(ids for ids in prompts for _ in range(fields.n or 1))
        }

    def opening(self, index: int) -> None:
        """Return nothing: a completion begins with its text."""

    def part(self, piece: Piece) -> CompletionChoice:
        """Return text."""
        return self.choice(piece.index, [piece])

    def end(self, piece: Piece) -> CompletionChoice:
        """Return the finish reason beside an empty text."""
        return self.choice(piece.index, [piece])

    def choice(self, index: int, pieces: Sequence[Piece]) -> CompletionChoice:
        """Return the whole text."""
        text = "".join(piece.text for piece in pieces)
        choice = CompletionChoice(index, text, self._logprobs(pieces), pieces[-1].finish_reason)
        if self._wants_ids:
            choice.token_ids = token_ids(pieces)
            choice.prompt_token_ids = self._untold.pop(index, UNSET)
        return choice

    def _logprobs(self, pieces: Sequence[Piece]) -> CompletionLogprobs | None:
        reported = list(tokens(pieces)) if self._wants_logprobs else []
        if not reported:
            return None
        return CompletionLogprobs(
            tokens=[self._text(token.id) for token in reported],
            token_logprobs=[t.logprobs.logprob if t.logprobs else None for t in reported],
            top_logprobs=[self._top(token) for token in reported],
            text_offset=[token.offset for token in reported],
        )

    def _top(self, token: Token) -> dict[str, float] | None:
        """Return the likeliest tokens, and the one that is there, with their log-probabilities."""
        if token.logprobs is None:
            return None
        top = {self._text(other): value for other, value in token.logprobs.top}
        return top | {self._text(token.id): token.logprobs.logprob}

    def _text(self, token_id: int) -> str:
        """Return a token's text, or its bytes: texts are keys here, and so must differ."""
        octets = self._detokenizers.token_bytes(token_id)
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{octet:02x}" for octet in octets)


def _candidates(fields: CompletionRequest) -> int:
    """Return how many choices to generate of each prompt.

    Raises:
        InvalidRequest: they are too few, or to be chosen from while they are streamed.
    """
    choices = fields.n or 1
    if fields.best_of is None:
        return choices
    if fields.best_of < choices:
        problem = f"expected at least n, {choices}"
    elif fields.best_of > 1 and fields.stream:
        problem = "the best are known at the end only, so that they cannot be streamed"
    else:
        return fields.best_of
    raise InvalidRequest(f"best_of: {problem}", param="best_of", code="invalid_value")


def read_prompts(
    services: Services, prompt: str | list[str | int | list[int]] | None, field: str
) -> Iterator[tuple[tuple[int, ...], str | None]]:
    """Yield the token ids of each prompt in a `field`, with its text where it is one.

    Raises:
        InvalidRequest: the field mixes both, or has what is no token.
    """
    prompts: Sequence[object] = prompt if isinstance(prompt, list) else [prompt or ""]
    if all(isinstance(item, int) for item in prompts):
        prompts = [prompts]
    if all(isinstance(item, str) for item in prompts):
        for text in cast("list[str]", prompts):
            yield services.tokenizer.encode(text, special=True), text
    elif all(isinstance(item, list) for item in prompts):
        for ids in cast("list[list[int]]", prompts):
            yield _checked(services, ids, field), None
    else:
        raise InvalidRequest(
            f"{field}: expected a string, or a list of strings, of token ids or of lists of token "
            "ids",
            param=field,
            code="invalid_value",
        )


def _text(
    services: Services, fields: CompletionRequest, ids: tuple[int, ...], text: str | None
) -> str:
    """Return what an answer that echoes the prompt begins with."""
    if text is not None:
        return text
    return services.detokenizers.text(ids, special=fields.skip_special_tokens is False)


def _checked(services: Services, ids: Sequence[int], field: str) -> tuple[int, ...]:
    """Check that `ids` are tokens, and at least one."""
    check_ids(services, ids, field)
    if not ids:
        raise InvalidRequest(f"{field}: a list of token ids must not be empty", param=field)
    return tuple(ids)
