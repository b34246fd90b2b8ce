"""What a prompt becomes on its way to the model: ids, text, a rendered template, and the settings.

The four endpoints have the names and fields they have in llama.cpp's server. None of them computes
anything with the model.
"""

from collections.abc import Sequence
from functools import partial

from streamtok.api.conversation import Conversation
from streamtok.api.more.answers import (
    Detokenized,
    GenerationSettings,
    Prompt,
    Props,
    TokenPiece,
    Tokens,
)
from streamtok.api.more.types import DetokenizeRequest, TemplateRequest, TokenizeRequest
from streamtok.api.openai import answers
from streamtok.api.openai.history import read_messages, tools
from streamtok.api.parameters import check_ids, render
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.api.validation import ignored_header
from streamtok.http.response import Response, json_response
from streamtok.text.templates.chat import JinjaTemplate

AT_ONCE = 10_000  # tokens that are written in one go


async def tokenize(services: Services, call: Call) -> Response:
    """`POST /tokenize`: a text's ids, with the text of each where `with_pieces` is true."""
    fields, ignored = await services.read(call, TokenizeRequest)

    def work() -> bytes:
        template = services.template
        assert isinstance(template, JinjaTemplate)  # which `app` has plugged in
        as_text = template.special_tokens.as_text
        encode = services.tokenizer.encode if fields.parse_special else as_text
        ids = encode(fields.content, special=fields.add_special)
        tokens = [_piece(services, token) if fields.with_pieces else token for token in ids]
        return b'{"tokens":%b,"count":%d}' % (_list(tokens), len(ids))

    return json_response(await services.run(call, work), headers=ignored_header(ignored))


async def detokenize(services: Services, call: Call) -> Response:
    """`POST /detokenize`: the text of ids, special tokens by their names."""
    fields, ignored = await services.read(call, DetokenizeRequest)

    def work() -> str:
        check_ids(services, fields.tokens, "tokens")
        return services.tokenizer.decode(fields.tokens, special=True)

    return _answer(Detokenized(await services.run(call, work)), ignored)


async def apply_template(services: Services, call: Call) -> Response:
    """`POST /apply-template`: the prompt that a chat's messages become."""
    fields, ignored = await services.read(call, TemplateRequest)
    chat = Conversation(
        messages=read_messages(fields.messages),
        tools=tools(fields.tools or ()),
        answers=fields.add_generation_prompt,
        variables=fields.chat_template_kwargs,
    )
    prompt = await services.run(call, partial(render, services, chat))
    return _answer(Prompt(prompt), ignored)


async def props(services: Services, _: Call) -> Response:
    """`GET /props`: context, template, defaults, and how many sequences run at once."""
    tokenizer = services.tokenizer
    return _answer(
        Props(
            GenerationSettings(services.engine.context, services.defaults),
            total_slots=services.engine.streams,
            model_alias=services.model,
            chat_template=services.template.source,
            bos_token=tokenizer.special_text("bos_token"),
            eos_token=tokenizer.special_text("eos_token"),
            faults=services.faults is not None,
        )
    )


def _list(tokens: Sequence[int | TokenPiece]) -> bytes:
    """Return the JSON of a list, made in pieces: other threads run between them."""
    parts = (tokens[start : start + AT_ONCE] for start in range(0, len(tokens), AT_ONCE))
    return b"[" + b",".join(answers.encode(part)[1:-1] for part in parts) + b"]"


def _piece(services: Services, token: int) -> TokenPiece:
    """Return a token with its text, or its bytes where they are no text by themselves."""
    octets = services.detokenizers.token_bytes(token)
    try:
        return TokenPiece(token, octets.decode())
    except UnicodeDecodeError:
        return TokenPiece(token, list(octets))


def _answer(body: object, ignored: tuple[str, ...] = ()) -> Response:
    return json_response(answers.encode(body), headers=ignored_header(ignored))


ROUTES = (
    Route(
        "POST",
        "/tokenize",
        tokenize,
        Operation(
            Tokens, TokenizeRequest, example={"content": "Once upon a time", "with_pieces": True}
        ),
    ),
    Route(
        "POST",
        "/detokenize",
        detokenize,
        Operation(Detokenized, DetokenizeRequest, example={"tokens": [1, 2]}),
    ),
    Route(
        "POST",
        "/apply-template",
        apply_template,
        Operation(
            Prompt,
            TemplateRequest,
            example={"messages": [{"role": "user", "content": "Who are you?"}]},
        ),
    ),
    Route("GET", "/props", props, Operation(Props)),
)
