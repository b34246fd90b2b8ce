"""Generation parameters that all APIs share, and how they become an `Ask`.

`Parameters` are neutral: OpenAI's two older endpoints take them as JSON by these very names, the
other APIs' requests are converted to them. A request's `Ask` is drafted from its parameters, and a
chat's is completed here too. Read next: `streamtok.api.endpoint`.
"""

from collections.abc import Collection
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from streamtok.answer.ask import Ask, Surface
from streamtok.answer.choice import TextRules
from streamtok.api.conversation import Conversation, Wanted
from streamtok.api.services import Call, Constrained, Services
from streamtok.errors import ContextTooLong, InvalidRequest
from streamtok.messages import SamplingParams
from streamtok.text.template import PromptOptions

MAX_DIGITS = 10  # of a token id: int() refuses to read thousands of them
MAX_CHOICES = 128
MaxTokens = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
TopK = Annotated[int, Meta(ge=-1)]  # 0 and -1: all tokens
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
TokenId = Annotated[int, Meta(ge=0)]
StopText = Annotated[str, Meta(min_length=1)]


class Parameters(Struct, kw_only=True):
    """How to generate. None means "not given": the model's own default then holds."""

    model: str | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    stream: bool | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    return_token_ids: bool | None = None


def ask_chat(
    services: Services,
    call: Call,
    parameters: Parameters,
    chat: Conversation,
    wanted: Wanted,
    surface: Surface,
) -> Ask:
    """Return what a chat asks for; its answer may be all that the context has room for.

    Raises:
        RequestError: it cannot be had.
    """
    drafted = draft(services, call, parameters, surface)
    made = services.constraints.make(wanted) if wanted else Constrained()
    try:
        most = services.tokenizer.most_characters(services.engine.context)
        chat = chat if chat.tools == wanted.tools else replace(chat, tools=wanted.tools)
        ids = prompt_ids(services, chat, most)
    except ContextTooLong as error:
        error.param = surface.prompt_field
        raise
    return replace(
        drafted,
        prompts=(ids,),
        chat=chat,
        max_tokens=parameters.max_tokens or services.engine.context,
        rules=replace(drafted.rules, reader=made.reader) if made.reader else drafted.rules,
        constraint=made.constraint,
        parts=made.parts,
    )


def prompt_ids(
    services: Services, chat: Conversation, most_characters: int | None = None
) -> tuple[int, ...]:
    """Return the tokens of the prompt that a chat becomes, up to where its answer begins.

    Raises:
        InvalidRequest: the chat cannot be rendered.
        ContextTooLong: it has more than `most_characters`.
    """
    return services.template.encode(*_for_template(chat, most_characters))


def check_count(services: Services, count: int) -> None:
    """Check that the engine has room for `count` sequences, before anything is tokenised.

    Raises:
        InvalidRequest: it never has.
    """
    if count > services.engine.room:
        raise InvalidRequest(
            f"{count} sequences are asked for; the server has room for {services.engine.room}",
            param="n",
        )


def check_length(services: Services, text: str, param: str) -> None:
    """Check that a prompt in the field `param` may fit the context, before it is tokenised.

    Raises:
        ContextTooLong: no text as long as this has so few tokens.
    """
    most = services.tokenizer.most_characters(services.engine.context)
    if most is not None and len(text) > most:
        raise ContextTooLong(
            f"the prompt has {len(text)} characters; the model's context holds {most} at most",
            param=param,
        )


def render(services: Services, chat: Conversation) -> str:
    """Return the prompt that a chat becomes, as text.

    Raises:
        InvalidRequest: the chat cannot be rendered.
    """
    return services.template.render(*_for_template(chat))


def _for_template(
    chat: Conversation, most_characters: int | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], PromptOptions]:
    options = PromptOptions(
        add_generation_prompt=chat.answers,
        continue_final_message=chat.continues,
        variables=chat.variables,
        begun=chat.begun,
        parse_special=chat.parse_special,
        most_characters=most_characters,
    )
    messages = [message.for_template() for message in chat.messages]
    return messages, [tool.for_template() for tool in chat.tools], options


def draft(services: Services, call: Call, fields: Parameters, surface: Surface) -> Ask:
    """Return what `fields` ask for, still without prompts.

    Raises:
        RequestError: it cannot be had.
    """
    services.check_model(fields.model)
    choices = fields.n or 1
    return Ask(
        surface=surface,
        model=services.model,
        key=call.key,
        caller=call.caller,
        stream=bool(fields.stream),
        prompts=(),
        max_tokens=0,
        sampling=_sampling(services, fields),
        choices=choices,
        candidates=choices,
        min_tokens=fields.min_tokens or 0,
        stop_ids=_stop_ids(services, fields),
        rules=TextRules(_stops(fields), special=fields.skip_special_tokens is False),
        trace=call.request.trace,
        named=fields.model,
    )


def check_streamed(options: object, stream: bool | None) -> None:
    """Check that options for a stream are given only where there is one.

    Raises:
        InvalidRequest: there are some, and there is none.
    """
    if options is not None and not stream:
        raise InvalidRequest(
            "stream_options is only allowed where stream is true", param="stream_options"
        )


def check_ids(services: Services, ids: Collection[int], param: str) -> None:
    """Check that the `ids` in the field `param` are tokens.

    Raises:
        InvalidRequest: one is not.
    """
    vocab = services.engine.vocab
    if wrong := [token for token in ids if token >= vocab]:
        raise InvalidRequest(
            f"{param}: {wrong[0]} is not a token id; expected 0 to {vocab - 1}",
            param=param,
            code="invalid_value",
        )


def _sampling(services: Services, fields: Parameters) -> SamplingParams:
    """Return how to sample: the request's own parameters before the model's, before neutral."""
    given = {
        name: value for name in services.defaults if (value := getattr(fields, name)) is not None
    }
    if given.get("top_k") == -1:  # vLLM's word for all tokens
        given["top_k"] = 0
    return SamplingParams(
        **{**services.defaults, **given},
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        logit_bias=_logit_bias(services, fields),
        seed=services.new_seed() if fields.seed is None else fields.seed,
    )


def _stop_ids(services: Services, fields: Parameters) -> frozenset[int]:
    given = frozenset(fields.stop_token_ids or ())
    check_ids(services, given, "stop_token_ids")
    return given if fields.ignore_eos else given | services.tokenizer.stop_ids


def _stops(fields: Parameters) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())


def _logit_bias(services: Services, fields: Parameters) -> tuple[tuple[int, float], ...]:
    """Return the biases by token id, which JSON can only name by a string."""
    bias, vocab = fields.logit_bias or {}, services.engine.vocab
    for token in bias:
        is_id = token.isascii() and token.isdigit() and len(token) <= MAX_DIGITS
        if not is_id or int(token) >= vocab:
            raise InvalidRequest(
                f"logit_bias: {token!r} is not a token id; expected 0 to {vocab - 1}",
                param="logit_bias",
                code="invalid_value",
            )
    return tuple((int(token), value) for token, value in bias.items())
