"""The fields that chats and completions have in common, as what is asked of the engine.

Read next: `streamtok.api.openai.chat`.
"""

from collections.abc import Collection

from streamtok.answer.ask import Ask, Surface
from streamtok.answer.choice import TextRules
from streamtok.api.openai.types import SamplingFields
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.messages import SamplingParams

MAX_DIGITS = 10  # of a token id: int() refuses to read thousands of them


def draft(services: Services, call: Call, fields: SamplingFields, surface: Surface) -> Ask:
    """Return what `fields` ask for, still without prompts.

    Raises:
        RequestError: it cannot be had.
    """
    services.check_model(fields.model)
    options = fields.stream_options
    if options is not None and not fields.stream:
        raise InvalidRequest(
            "stream_options is only allowed where stream is true", param="stream_options"
        )
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
        running_usage=options is not None and options.continuous_usage_stats,
        trace=call.request.trace,
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


def _sampling(services: Services, fields: SamplingFields) -> SamplingParams:
    """Return how to sample: the request's own parameters before the model's, before neutral."""
    given = {
        name: value for name in services.defaults if (value := getattr(fields, name)) is not None
    }
    return SamplingParams(
        **{**services.defaults, **given},
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        logit_bias=_logit_bias(services, fields),
        seed=services.new_seed() if fields.seed is None else fields.seed,
    )


def _stop_ids(services: Services, fields: SamplingFields) -> frozenset[int]:
    given = frozenset(fields.stop_token_ids or ())
    check_ids(services, given, "stop_token_ids")
    return given if fields.ignore_eos else given | services.tokenizer.stop_ids


def _stops(fields: SamplingFields) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    if fields.stop is None:
        return ()
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop)


def _logit_bias(services: Services, fields: SamplingFields) -> tuple[tuple[int, float], ...]:
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
