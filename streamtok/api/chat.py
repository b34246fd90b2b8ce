"""`POST /v1/chat/completions`: messages in, a message out."""

from collections.abc import Sequence
from functools import partial

from msgspec import UNSET, UnsetType

from streamtok.api.answers import (
    ChatChoice,
    ChatChunkChoice,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    Delta,
    TopLogprob,
)
from streamtok.api.choice import Piece, Token, token_ids
from streamtok.api.endpoint import CHAT_PREFIX, Order, answer
from streamtok.api.requests import ChatRequest, Message, RefusalPart, StreamOptions
from streamtok.api.services import Call, Services
from streamtok.api.streaming import Chunks
from streamtok.api.structured import constraint
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.detokenizer import Detokenizers

ENDPOINT = "/v1/chat/completions"


async def chat(services: Services, call: Call) -> Response:
    """Answer a chat."""
    fields, ignored = services.read(call, ChatRequest)
    return await answer(services, call, order(services, fields, ignored))


def order(
    services: Services, fields: ChatRequest, ignored: tuple[str, ...] = (), begun: str = ""
) -> Order:
    """Return what a request asks for; its answer goes on from what is `begun`.

    Raises:
        RequestError: it cannot be had.
    """
    services.check_model(fields.model)
    if fields.top_logprobs is not None and not fields.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    ids = prompt_ids(services, fields.messages, begun)
    shape = ChatShape(services.detokenizers, fields, ids)
    return Order(
        endpoint=ENDPOINT,
        fields=fields,
        prompts=(ids,),
        max_tokens=fields.max_completion_tokens or fields.max_tokens or services.engine.context,
        top_logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
        prefix=CHAT_PREFIX,
        dialect=partial(Chunks, shape=shape, options=fields.stream_options or StreamOptions()),
        ignored=ignored,
        prompt_field="messages",
        constraint=constraint(fields),
    )


def prompt_ids(services: Services, messages: Sequence[Message], begun: str = "") -> tuple[int, ...]:
    """Return the tokens of the prompt that `messages` become, up to what is `begun` of the answer.

    Raises:
        InvalidRequest: they cannot be rendered.
    """
    prompt = services.template.render(for_template(messages)) + begun
    return services.tokenizer.encode(prompt, special=False)


def for_template(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return `messages` as chat templates know them.

    Raises:
        InvalidRequest: one has no content, or such that it cannot have.
    """
    return [
        {"role": _role(message), "content": _content(message, index)}
        | ({"name": message.name} if message.name else {})
        for index, message in enumerate(messages)
    ]


class ChatShape:
    """The JSON of a chat."""

    streamed = "chat.completion.chunk"
    whole = "chat.completion"

    def __init__(
        self, detokenizers: Detokenizers, fields: ChatRequest, prompt_ids: Sequence[int]
    ) -> None:
        self._detokenizers = detokenizers
        self._wants_logprobs = bool(fields.logprobs)
        self._wants_ids = bool(fields.return_token_ids)
        self.prompt_token_ids: list[int] | UnsetType = (
            list(prompt_ids) if self._wants_ids else UNSET
        )

    def opening(self, index: int) -> ChatChunkChoice:
        """Return the role, which is said once."""
        return ChatChunkChoice(index, Delta(role="assistant", content=""), None, None)

    def part(self, piece: Piece) -> ChatChunkChoice:
        """Return text."""
        delta = Delta(content=piece.text)
        logprobs, ids = self._logprobs([piece]), self._ids([piece])
        return ChatChunkChoice(piece.index, delta, logprobs, None, ids)

    def end(self, piece: Piece) -> ChatChunkChoice:
        """Return the finish reason beside an empty delta."""
        ids = self._ids([piece])
        return ChatChunkChoice(piece.index, Delta(), None, piece.finish_reason, ids)

    def choice(self, index: int, pieces: Sequence[Piece]) -> ChatChoice:
        """Return the whole message."""
        message = ChatMessage("".join(piece.text for piece in pieces))
        reason = pieces[-1].finish_reason
        assert reason is not None
        return ChatChoice(index, message, self._logprobs(pieces), reason, self._ids(pieces))

    def _ids(self, pieces: Sequence[Piece]) -> list[int] | UnsetType:
        return token_ids(pieces) if self._wants_ids else UNSET

    def _logprobs(self, pieces: Sequence[Piece]) -> ChatLogprobs | None:
        if not self._wants_logprobs:
            return None
        return ChatLogprobs([self._logprob(token) for piece in pieces for token in piece.tokens])

    def _logprob(self, token: Token) -> ChatLogprob:
        assert token.logprobs is not None
        top = [self._alternative(*alternative) for alternative in token.logprobs.top]
        own = self._alternative(token.id, token.logprobs.logprob)
        return ChatLogprob(own.token, own.logprob, own.bytes, top)

    def _alternative(self, token_id: int, logprob: float) -> TopLogprob:
        octets = self._detokenizers.token_bytes(token_id)
        return TopLogprob(octets.decode("utf-8", "replace"), logprob, list(octets))


def _role(message: Message) -> str:
    # What OpenAI now calls the developer is what templates know as the system.
    return "system" if message.role == "developer" else message.role


def _content(message: Message, index: int) -> str:
    if message.audio is not None:
        raise _wrong(f"messages[{index}].audio", "audio is not supported by this server")
    spoken = message.role == "assistant"
    if message.refusal and not spoken:
        raise _wrong(f"messages[{index}].refusal", "only the assistant refuses")
    content = message.content if message.content is not None else message.refusal
    if content is None:
        raise _wrong(f"messages[{index}].content", f"a {message.role} message needs content")
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if isinstance(part, RefusalPart) and not spoken:
            place = f"messages[{index}].content[{number}].type"
            raise _wrong(place, "only the assistant refuses")
    return "".join(p.refusal if isinstance(p, RefusalPart) else p.text for p in content)


def _wrong(place: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {problem}", param=place, code="invalid_value")
