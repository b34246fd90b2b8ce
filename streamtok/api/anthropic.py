"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's format.

A request is translated to a chat; the answer is told in Anthropic's events, of which each has its
type for a name, and which end by themselves, without `[DONE]`. Errors have Anthropic's shape too.
Read next: `streamtok.api.anthropic_types`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from streamtok.api import answers, chat, requests
from streamtok.api.anthropic_types import (
    DOCUMENTED,
    BlockDelta,
    BlockStart,
    BlockStop,
    CountRequest,
    Ending,
    ErrorDetail,
    ErrorEvent,
    Event,
    MessageBody,
    MessageDelta,
    MessageRequest,
    MessageStart,
    MessageStop,
    MessageUsage,
    Ping,
    TextBlock,
    TextDelta,
    TokenCount,
    Turn,
)
from streamtok.api.choice import Piece
from streamtok.api.dialect import Occasion, Pieces, Told, usage
from streamtok.api.endpoint import Order, answer
from streamtok.api.requests import ChatRequest, Message
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest, RequestError
from streamtok.http.framings import TYPED_OFFERS
from streamtok.http.response import Response, json_response

ENDPOINT = "/v1/messages"
ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


async def message(services: Services, call: Call) -> Response:
    """`POST /v1/messages`: a chat in Anthropic's format."""
    fields, ignored = services.read(call, MessageRequest, DOCUMENTED)
    return await answer(services, call, _order(services, fields, ignored))


async def count_tokens(services: Services, call: Call) -> Response:
    """`POST /v1/messages/count_tokens`: how many tokens a prompt has."""
    fields, ignored = services.read(call, CountRequest, DOCUMENTED)
    services.check_model(fields.model)
    messages, begun = _messages(fields)
    count = len(chat.prompt_ids(services, messages, begun))
    body = answers.encode(TokenCount(count))
    return json_response(body, headers=requests.ignored_header(ignored))


def refuse(error: RequestError) -> Response:
    """Return the answer that tells the client of `error`."""
    return json_response(_error_body(error), error.status, error.headers())


def _order(services: Services, fields: MessageRequest, ignored: tuple[str, ...]) -> Order:
    messages, begun = _messages(fields)
    asked = ChatRequest(
        model=fields.model,
        messages=messages,
        max_tokens=fields.max_tokens,
        stop=fields.stop_sequences,
        stream=fields.stream,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
    )
    return replace(
        chat.order(services, asked, ignored, begun),
        endpoint=ENDPOINT,
        prefix="msg_",
        dialect=partial(MessageEvents, max_tokens=fields.max_tokens),
        offers=TYPED_OFFERS,
    )


def _messages(fields: CountRequest) -> tuple[list[Message], str]:
    """Return the messages of a chat, and what its answer begins with: an assistant's last turn.

    Turns of one side that follow each other are one message.

    Raises:
        InvalidRequest: that beginning ends with white space, which no token would continue.
    """
    turns = list(fields.messages)
    begun = _text(turns.pop().content) if turns[-1].role == "assistant" else ""
    if begun != begun.rstrip():
        place = f"messages[{len(turns)}].content"
        raise InvalidRequest(
            f"{place}: what the answer is to begin with cannot end with white space",
            param=place,
            code="invalid_value",
        )
    system = _text(fields.system or "")
    first = [Message(role="system", content=system)] if system else []
    sides = groupby(turns, key=lambda turn: turn.role)
    return first + [Message(role=role, content=_joined(said)) for role, said in sides], begun


def _joined(turns: Iterable[Turn]) -> str:
    return "\n".join(_text(turn.content) for turn in turns)


def _text(content: str | Sequence[TextBlock]) -> str:
    """Return the text of what may be blocks of it, each of which begins a line."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


class MessageEvents:
    """One answer in Anthropic's words: a message that begins, its one block, why it ended."""

    def __init__(self, occasion: Occasion, max_tokens: int) -> None:
        self._generation = occasion.generation
        self._max_tokens = max_tokens
        self._has_block = False
        self._ending = Ending(None, None)

    def opening(self) -> Sequence[Told]:
        """See `Dialect.opening`."""
        return (_told(MessageStart(self._body())),)

    def piece(self, piece: Piece) -> Iterator[Told]:
        """See `Dialect.piece`."""
        if piece.text and not self._has_block:
            self._has_block = True
            yield _told(BlockStart(0, TextBlock("")))
            yield _told(Ping())
        if piece.text:
            yield _told(BlockDelta(0, TextDelta(piece.text)), piece.text)
        if piece.finish_reason:
            self._ending = self._end(piece)

    async def closing(self) -> Sequence[Told]:
        """See `Dialect.closing`."""
        blocks = (_told(BlockStop(0)),) if self._has_block else ()
        return (*blocks, _told(MessageDelta(self._ending, self._usage())), _told(MessageStop()))

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """See `Dialect.failure`."""
        return "error", _error_body(error)

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Dialect.whole`."""
        body, (pieces,) = self._body(), choices
        ending = self._end(pieces[-1])
        body.stop_reason, body.stop_sequence = ending.stop_reason, ending.stop_sequence
        if text := "".join(piece.text for piece in pieces):
            body.content = [TextBlock(text)]
        return answers.encode(body)

    def _body(self) -> MessageBody:
        job = self._generation.job
        return MessageBody(id=job.id, model=job.model, usage=self._usage())

    def _usage(self) -> MessageUsage:
        counts = usage(self._generation)
        cached = counts.prompt_tokens_details.cached_tokens
        return MessageUsage(counts.prompt_tokens - cached, counts.completion_tokens, cached)

    def _end(self, piece: Piece) -> Ending:
        """Return why the message ended."""
        if piece.stop_text is not None:
            return Ending("stop_sequence", piece.stop_text)
        if piece.finish_reason == "stop":
            return Ending("end_turn", None)
        (sequence,) = self._generation.job.sequences
        cut = sequence.max_tokens < self._max_tokens
        return Ending("model_context_window_exceeded" if cut else "max_tokens", None)


def _told(event: Event, text: str = "") -> Told:
    return text, str(event.__struct_config__.tag), partial(answers.encode, event)


def _error_body(error: RequestError) -> bytes:
    kind = ERROR_TYPES.get(error.status, "invalid_request_error")
    if error.code == "request_timeout":
        kind = "timeout_error"
    return answers.encode(ErrorEvent(ErrorDetail(kind, error.message)))
