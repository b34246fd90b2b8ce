"""`POST /v1/chat/completions`: messages in, a message out.

Read next: `streamtok.api.conversation`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from streamtok.answer.ask import Ask, Surface
from streamtok.answer.complete import CompleteChoice
from streamtok.answer.events import (
    ChoiceEnded,
    ChoiceEvent,
    TextDelta,
    Token,
    ToolCallBegan,
    ToolCallDelta,
)
from streamtok.api.endpoint import answer
from streamtok.api.openai import answers
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
    TopLogprob,
)
from streamtok.api.openai.history import conversation, wanted
from streamtok.api.openai.streaming import Chunks
from streamtok.api.openai.types import ChatRequest
from streamtok.api.parameters import ask_chat, check_streamed
from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.errors import InvalidRequest
from streamtok.http.response import Response
from streamtok.text.detokenizer import Detokenizers

ENDPOINT = "/v1/chat/completions"
CHAT = Surface(ENDPOINT, "chatcmpl-", "messages")


async def chat(services: Services, call: Call) -> Response:
    """Answer a chat."""
    fields, ignored = await services.read(call, ChatRequest)
    asked = await services.run(call, partial(ask, services, call, fields))
    return await answer(services, call, asked, dialect(services, fields, asked), ignored)


def ask(services: Services, call: Call, fields: ChatRequest, surface: Surface = CHAT) -> Ask:
    """Return what a request asks for.

    Raises:
        RequestError: it cannot be had.
    """
    check_streamed(fields.stream_options, fields.stream)
    if fields.top_logprobs is not None and not fields.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    fields.max_tokens = fields.max_completion_tokens or fields.max_tokens
    asked = ask_chat(services, call, fields, conversation(fields), wanted(fields), surface)
    top_logprobs = (fields.top_logprobs or 0) if fields.logprobs else None
    detailed = bool(fields.logprobs or fields.return_token_ids)
    options = fields.stream_options
    running_usage = options is not None and options.continuous_usage_stats
    if not (detailed or running_usage):
        return asked
    return replace(
        asked,
        sampling=replace(asked.sampling, top_logprobs=top_logprobs),
        rules=replace(asked.rules, detailed=detailed),
        running_usage=running_usage,
    )


def dialect(services: Services, fields: ChatRequest, asked: Ask) -> Chunks:
    """Return the JSON of a chat's answer."""
    shape = ChatShape(services, fields, asked.prompts[0], calls=asked.rules.reader is not None)
    return Chunks(shape, fields.stream_options)


class ChatShape:
    """The JSON of a chat; `calls` says that its answer may call tools."""

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
        self.is_plain = not (self._wants_logprobs or self._wants_ids)
        self.prompt_token_ids: list[int] | UnsetType = (
            list(prompt_ids) if self._wants_ids else UNSET
        )
        self.parts: Mapping[type[ChoiceEvent], Callable[[Any], ChatChunkChoice]] = {
            TextDelta: self._text,
            ToolCallBegan: self._call_began,
            ToolCallDelta: self._call_delta,
            ChoiceEnded: self._ended,
        }

    def opening(self, index: int) -> ChatChunkChoice:
        """Return the role, which is said once."""
        return ChatChunkChoice(
            index, Delta(role="assistant", content=None if self._may_call else ""), None, None
        )

    def complete(self, index: int, choice: CompleteChoice) -> ChatChoice:
        """Return the whole message."""
        message = ChatMessage(choice.text)
        if choice.calls:
            message.content = choice.text or None
            message.tool_calls = [
                ToolCallBody(self._new_call_id(), FunctionBody(call.name, call.arguments))
                for call in choice.calls
            ]
        logprobs = self._logprobs(choice.generated)
        return ChatChoice(index, message, logprobs, choice.reason, self._ids(choice.generated))

    def _text(self, event: TextDelta) -> ChatChunkChoice:
        content = UNSET if self._may_call and not event.text else event.text
        return self._part(event, Delta(content=content))

    def _call_began(self, event: ToolCallBegan) -> ChatChunkChoice:
        function = FunctionDelta(event.name, "")
        call = answers.ToolCallDelta(event.number, self._new_call_id(), "function", function)
        return self._part(event, Delta(tool_calls=[call]))

    def _call_delta(self, event: ToolCallDelta) -> ChatChunkChoice:
        call = answers.ToolCallDelta(
            event.number, function=FunctionDelta(arguments=event.arguments)
        )
        return self._part(event, Delta(tool_calls=[call]))

    def _part(
        self, event: TextDelta | ToolCallBegan | ToolCallDelta, delta: Delta
    ) -> ChatChunkChoice:
        logprobs, ids = self._logprobs(event.tokens), self._ids(event.tokens)
        return ChatChunkChoice(event.index, delta, logprobs, None, ids)

    def _ended(self, event: ChoiceEnded) -> ChatChunkChoice:
        """Return the finish reason beside an empty delta.

        The token that ended the answer is reported here: usage counts it too, as in a completion.
        """
        stop = (event.stop,) if event.stop else ()
        logprobs = self._logprobs(stop) if stop else None
        return ChatChunkChoice(event.index, Delta(), logprobs, event.reason, self._ids(stop))

    def _ids(self, tokens: Iterable[Token]) -> list[int] | UnsetType:
        return [token.id for token in tokens] if self._wants_ids else UNSET

    def _logprobs(self, tokens: Iterable[Token]) -> ChatLogprobs | None:
        if not self._wants_logprobs:
            return None
        return ChatLogprobs([chat_logprob(self._detokenizers, token) for token in tokens])


def chat_logprob(detokenizers: Detokenizers, token: Token) -> ChatLogprob:
    """Return a token that was reported with its log-probabilities."""

    def alternative(token_id: int, logprob: float) -> TopLogprob:
        octets = detokenizers.token_bytes(token_id)
        return TopLogprob(octets.decode("utf-8", "replace"), logprob, list(octets))

    assert token.logprobs is not None
    own = alternative(token.id, token.logprobs.logprob)
    top = [alternative(*other) for other in token.logprobs.top]
    return ChatLogprob(own.token, own.logprob, own.bytes, top)


OPERATION = Operation(
    answers.ChatCompletion,
    ChatRequest,
    event=answers.ChatCompletionChunk,
    example={"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8},
)
ROUTES = (Route("POST", ENDPOINT, chat, OPERATION, limited=True),)
