"""`POST /v1/chat/completions`: messages in, a message out."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET, UnsetType

from streamtok.answer.choice import Piece, Token, token_ids
from streamtok.api.constraints.structured import constraint
from streamtok.api.constraints.tools import offer
from streamtok.api.endpoint import CHAT_PREFIX, Order, answer
from streamtok.api.openai.answers import (
    ChatChoice,
    ChatChunkChoice,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    Delta,
    FunctionBody,
    FunctionDelta,
    ToolCallBody,
    ToolCallDelta,
    TopLogprob,
)
from streamtok.api.openai.history import for_template
from streamtok.api.openai.streaming import Chunks
from streamtok.api.openai.types import ChatRequest, Message, StreamOptions
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.template import PromptOptions
from streamtok.text.tool_calls.reader import CallPart

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
    parallel = fields.parallel_tool_calls is not False
    offered = offer(fields, fields.tools or (), fields.tool_choice, parallel)
    tools = offered.described if offered else ()
    ids = prompt_ids(services, fields.messages, begun, tools)
    shape = ChatShape(services, fields, ids, calls=offered is not None)
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
        constraint=offered.constraint if offered else constraint(fields),
        parts=offered.parts if offered else (),
        calls=offered is not None,
    )


def prompt_ids(
    services: Services,
    messages: Sequence[Message],
    begun: str = "",
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, ...]:
    """Return the tokens of the prompt that `messages` become, up to what is `begun` of the answer.

    Raises:
        InvalidRequest: they cannot be rendered.
    """
    return services.template.encode(for_template(messages), tools, PromptOptions(begun=begun))


class ChatShape:
    """The JSON of a chat."""

    streamed = "chat.completion.chunk"
    whole = "chat.completion"

    def __init__(
        self, services: Services, fields: ChatRequest, prompt_ids: Sequence[int], calls: bool
    ) -> None:
        self._detokenizers = services.detokenizers
        self._new_call_id = partial(services.new_id, "call_")
        self._may_call = calls
        self._wants_logprobs = bool(fields.logprobs)
        self._wants_ids = bool(fields.return_token_ids)
        self.prompt_token_ids: list[int] | UnsetType = (
            list(prompt_ids) if self._wants_ids else UNSET
        )

    def opening(self, index: int) -> ChatChunkChoice:
        """Return the role, which is said once."""
        return ChatChunkChoice(
            index, Delta(role="assistant", content=None if self._may_call else ""), None, None
        )

    def part(self, piece: Piece) -> ChatChunkChoice:
        """Return text, and what is new of calls."""
        delta = Delta(content=piece.text)
        if self._may_call:
            delta.content = piece.text or UNSET
            delta.tool_calls = [self._call(part) for part in piece.calls] or UNSET
        logprobs, ids = self._logprobs([piece]), self._ids([piece])
        return ChatChunkChoice(piece.index, delta, logprobs, None, ids)

    def end(self, piece: Piece) -> ChatChunkChoice:
        """Return the finish reason beside an empty delta."""
        ids = self._ids([piece])
        return ChatChunkChoice(piece.index, Delta(), None, piece.finish_reason, ids)

    def choice(self, index: int, pieces: Sequence[Piece]) -> ChatChoice:
        """Return the whole message."""
        calls = self._calls(part for piece in pieces for part in piece.calls)
        text = "".join(piece.text for piece in pieces)
        message = ChatMessage(text or None, tool_calls=calls) if calls else ChatMessage(text)
        reason = pieces[-1].finish_reason
        assert reason is not None
        return ChatChoice(index, message, self._logprobs(pieces), reason, self._ids(pieces))

    def _call(self, part: CallPart) -> ToolCallDelta:
        """Return what is new of a call: what it is, once, and some of its arguments."""
        function = FunctionDelta(arguments=part.arguments)
        if not part.name:
            return ToolCallDelta(part.number, function=function)
        function.name = part.name
        return ToolCallDelta(part.number, self._new_call_id(), "function", function)

    def _calls(self, parts: Iterable[CallPart]) -> list[ToolCallBody]:
        """Return whole calls."""
        calls: list[ToolCallBody] = []
        for part in parts:
            if part.name:
                calls.append(ToolCallBody(self._new_call_id(), FunctionBody(part.name, "")))
            calls[-1].function.arguments += part.arguments
        return calls

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
