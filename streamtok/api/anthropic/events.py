"""Anthropic's dialect: a message that begins, its blocks one after the other, why it ended.

Each event has its type for a name, and the last one ends the stream, without `[DONE]`.
Read next: `streamtok.api.anthropic.messages`.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from streamtok.answer.complete import CompleteAnswer
from streamtok.answer.events import Began, Ended, Failed, Usage
from streamtok.answer.render import Chunk
from streamtok.api.anthropic.types import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Ending,
    ErrorDetail,
    ErrorEvent,
    Event,
    InputDelta,
    MessageBody,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageUsage,
    Ping,
    TextBlock,
    TextDelta,
    ToolUseBlock,
)
from streamtok.api.openai import answers
from streamtok.api.responses.transcript import Item, ItemBegan, ItemDialect, ItemEnded, ItemGrew
from streamtok.errors import RequestError

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "content_filter": "refusal"}


class MessageEvents(ItemDialect):
    """One answer in Anthropic's words.

    `is_cut` says that the context leaves less room than the client allows to be generated.
    """

    is_plain = False  # a text begins and ends with events of its own

    def __init__(self, new_call_id: Callable[[], str], is_cut: bool) -> None:
        self._new_call_id = new_call_id
        self._is_cut = is_cut
        super().__init__()

    async def end(self, event: Ended) -> Iterable[Chunk]:
        """See `Dialect.end`."""
        ending = _chunk(MessageDelta(self._ending(), _usage(event.usage)))
        return (*self.chunks(event), ending, _chunk(MessageStop()))

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """See `CompleteDialect.complete`; a call that was cut has no input, and is left out."""
        (choice,) = answer.choices
        items = [(item, self._block(item)) for item in self.transcript.take(choice.events)]
        ending = self._ending()
        body = MessageBody(
            id=answer.began.id,
            model=answer.began.model,
            usage=_usage(answer.usage),
            content=[block for item, block in items if _fill(item, block)],
            stop_reason=ending.stop_reason,
            stop_sequence=ending.stop_sequence,
        )
        return answers.encode(body)

    def _began(self, event: Began) -> Iterator[Chunk]:
        body = MessageBody(id=event.id, model=event.model, usage=_usage(event.usage))
        yield _chunk(MessageStart(body))

    def _failed(self, event: Failed) -> Iterator[Chunk]:
        yield "", "error", error_body(event.error)

    def _item_began(self, change: ItemBegan) -> Iterator[Chunk]:
        yield _chunk(BlockStart(change.item.number, self._block(change.item)))
        if change.item.number == 0:
            yield _chunk(Ping())

    def _item_grew(self, change: ItemGrew) -> Iterator[Chunk]:
        if change.item.tool:
            yield _chunk(BlockDelta(change.item.number, InputDelta(change.delta)))
        else:
            yield _chunk(BlockDelta(change.item.number, TextDelta(change.delta)), change.delta)

    def _item_ended(self, change: ItemEnded) -> Iterator[Chunk]:
        yield _chunk(BlockStop(change.item.number))

    def _block(self, item: Item) -> TextBlock | ToolUseBlock:
        """Return an item as it begins."""
        return ToolUseBlock(self._new_call_id(), item.tool, {}) if item.tool else TextBlock("")

    def _ending(self) -> Ending:
        """Return why the message ended."""
        reason = self.transcript.reason
        if self.transcript.stop_text is not None:
            return Ending("stop_sequence", self.transcript.stop_text)
        if reason in REASONS:
            return Ending(REASONS[reason], None)
        return Ending("model_context_window_exceeded" if self._is_cut else "max_tokens", None)


def _fill(item: Item, block: TextBlock | ToolUseBlock) -> bool:
    """Give a block what is written in an item; return whether it is whole."""
    if isinstance(block, TextBlock):
        block.text = item.text
        return True
    try:
        block.input = msgspec.json.decode(item.text)
    except msgspec.DecodeError:
        return False
    return True


def _usage(usage: Usage) -> MessageUsage:
    uncached = usage.prompt_tokens - usage.cached_tokens
    return MessageUsage(uncached, usage.completion_tokens, usage.cached_tokens)


def _chunk(event: Event, text: str = "") -> Chunk:
    return text, str(event.__struct_config__.tag), answers.encode(event)


def error_body(error: RequestError) -> bytes:
    """Return an error as JSON text."""
    kind = ERROR_TYPES.get(error.status, "invalid_request_error")
    if error.code == "request_timeout":
        kind = "timeout_error"
    return answers.encode(ErrorEvent(ErrorDetail(kind, error.message)))
