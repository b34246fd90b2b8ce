"""`POST /v1/completions`: a text in, its continuation out.

Read next: `streamtok.api.parameters`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard, cast

from msgspec import UNSET
from msgspec.structs import replace

from streamtok.answer.ask import Ask, Surface
from streamtok.answer.complete import CompleteChoice
from streamtok.answer.events import ChoiceEnded, ChoiceEvent, Echo, TextDelta, Token
from streamtok.api.conversation import Wanted
from streamtok.api.endpoint import answer
from streamtok.api.openai.answers import Completion, CompletionChoice, CompletionLogprobs
from streamtok.api.openai.history import forms
from streamtok.api.openai.streaming import Chunks
from streamtok.api.openai.types import CompletionRequest
from streamtok.api.parameters import check_count, check_ids, check_length, check_streamed, draft
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Constrained, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.detokenizer import Detokenizers

ENDPOINT = "/v1/completions"
COMPLETION = Surface(ENDPOINT, "cmpl-", "prompt")
MAX_TOKENS = 16  # OpenAI's default


async def complete(services: Services, call: Call) -> Response:
    """Continue a text, several texts, or texts that are token ids already."""
    fields, ignored = await services.read(call, CompletionRequest)
    asked = await services.run(call, partial(ask, services, call, fields))
    return await answer(services, call, asked, dialect(services, fields, asked), ignored)


def ask(
    services: Services, call: Call, fields: CompletionRequest, surface: Surface = COMPLETION
) -> Ask:
    """Return what a request asks for.

    Raises:
        RequestError: it cannot be had.
    """
    check_streamed(fields.stream_options, fields.stream)
    drafted = draft(services, call, fields, surface)
    wanted = Wanted(forms=tuple(forms(fields)), endless=bool(fields.ignore_eos))
    made = services.constraints.make(wanted) if wanted else Constrained()
    options = fields.stream_options
    candidates = _candidates(fields)
    check_count(services, candidates * (len(fields.prompt) if is_batch(fields.prompt) else 1))
    prompts = list(read_prompts(services, fields.prompt, "prompt"))
    chosen = candidates > drafted.choices  # by their log-probabilities
    top_logprobs = 0 if chosen and fields.logprobs is None else fields.logprobs
    return replace(
        drafted,
        prompts=[ids for ids, _ in prompts],
        max_tokens=MAX_TOKENS if fields.max_tokens is None else fields.max_tokens,
        sampling=replace(drafted.sampling, top_logprobs=top_logprobs),
        candidates=candidates,
        rules=replace(
            drafted.rules, detailed=top_logprobs is not None or bool(fields.return_token_ids)
        ),
        echoes=[_text(services, fields, *prompt) for prompt in prompts] if fields.echo else (),
        score_prompts=bool(fields.echo) and fields.logprobs is not None,
        constraint=made.constraint,
        running_usage=options is not None and options.continuous_usage_stats,
    )


def dialect(services: Services, fields: CompletionRequest, asked: Ask) -> Chunks:
    """Return the JSON of a completion."""
    shape = CompletionShape(services.detokenizers, fields, asked.prompts)
    return Chunks(shape, fields.stream_options)


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
        self.is_plain = not (self._wants_logprobs or self._wants_ids)
        # Each choice's prompt, until it has been reported
        self._unreported = {
            index: list(ids)
            for index, ids in enumerate(ids for ids in prompts for _ in range(fields.n or 1))
        }
        self.parts: Mapping[type[ChoiceEvent], Callable[[Any], CompletionChoice]] = {
            Echo: self._echo,
            TextDelta: self._text_delta,
            ChoiceEnded: self._ended,
        }

    def opening(self, index: int) -> None:
        """Return nothing: a completion begins with its text."""

    def complete(self, index: int, choice: CompleteChoice) -> CompletionChoice:
        """Return the whole text."""
        reported = [*choice.prompt_tokens, *choice.generated]
        return self._choice(index, choice.text, reported, choice.reason, choice.generated)

    def _echo(self, event: Echo) -> CompletionChoice:
        return self._choice(event.index, event.text, event.tokens, None, ())

    def _text_delta(self, event: TextDelta) -> CompletionChoice:
        return self._choice(event.index, event.text, event.tokens, None, event.tokens)

    def _ended(self, event: ChoiceEnded) -> CompletionChoice:
        """Return the finish reason beside an empty text."""
        tokens = (event.stop,) if event.stop else ()
        return self._choice(event.index, "", tokens, event.reason, tokens)

    def _choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[Token],
        reason: str | None,
        generated: Iterable[Token],
    ) -> CompletionChoice:
        choice = CompletionChoice(index, text, self._logprobs(tokens), reason)
        if self._wants_ids:
            choice.token_ids = [token.id for token in generated]
            choice.prompt_token_ids = self._unreported.pop(index, UNSET)
        return choice

    def _logprobs(self, tokens: Sequence[Token]) -> CompletionLogprobs | None:
        if not tokens or not self._wants_logprobs:
            return None
        return CompletionLogprobs(
            tokens=[self._text(token.id) for token in tokens],
            token_logprobs=[t.logprobs.logprob if t.logprobs else None for t in tokens],
            top_logprobs=[self._top(token) for token in tokens],
            text_offset=[token.offset for token in tokens],
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


def is_batch(prompt: object) -> TypeGuard[list[Any]]:
    """Whether `prompt` is several: texts, or lists of token ids."""
    return isinstance(prompt, list) and not isinstance(prompt[0], int)


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
            check_length(services, text, field)
            ids = services.tokenizer.encode(text, special=True)
            yield ids or services.tokenizer.beginning, text
    elif all(isinstance(item, list) for item in prompts):
        for given in cast("list[list[int]]", prompts):
            yield _checked(services, given, field), None
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


OPERATION = Operation(
    Completion,
    CompletionRequest,
    event=Completion,
    example={"prompt": "Once upon a time", "max_tokens": 8},
)
ROUTES = (Route("POST", ENDPOINT, complete, OPERATION, limited=True),)
