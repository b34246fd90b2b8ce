"""Anthropic's dialect: a message that begins, its blocks one after the other, why it ended.

Each event has its type for a name, and the last one ends the stream, without `[DONE]`.
Read next: `streamtok.api.anthropic.messages`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from streamtok.answer.choice import Piece
from streamtok.answer.dialect import Occasion, Pieces, Told
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
from streamtok.api.openai.answers import usage
from streamtok.errors import RequestError

ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
REASONS = {"stop": "end_turn", "tool_calls": "tool_use"}


class MessageEvents:
    """One answer in Anthropic's words."""

    def __init__(self, occasion: Occasion, max_tokens: int, new_call_id: Callable[[], str]) -> None:
        self._generation = occasion.generation
        self._max_tokens = max_tokens
        self._new_call_id = new_call_id
        self._blocks: list[TextBlock | ToolUseBlock] = []
        self._written = ""  # the text of the last block, or its input as JSON
        self._ending = Ending(None, None)

    def opening(self) -> Sequence[Told]:
        """See `Dialect.opening`."""
        return (_told(MessageStart(self._body())),)

    def piece(self, piece: Piece) -> Iterator[Told]:
        """See `Dialect.piece`."""
        if piece.text:
            if not self._blocks:
                yield from self._begin(TextBlock(""))
            yield self._more(TextDelta(piece.text), piece.text)
        for part in piece.calls:
            if part.name:
                yield from self._begin(ToolUseBlock(self._new_call_id(), part.name, {}))
            if part.arguments:
                yield self._more(InputDelta(part.arguments), part.arguments)
        if piece.finish_reason:
            self._ending = self._end(piece)

    async def closing(self) -> Sequence[Told]:
        """See `Dialect.closing`."""
        ending = _told(MessageDelta(self._ending, self._usage()))
        return (*self._stop(), ending, _told(MessageStop()))

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """See `Dialect.failure`."""
        return "error", error_body(error)

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Whole.whole`; a call that was cut has no input, and is left out."""
        (pieces,) = choices
        for piece in pieces:
            for _ in self.piece(piece):
                pass  # the blocks are made on the way
        if not self._fill():
            self._blocks.pop()
        body = self._body()
        body.content = self._blocks
        body.stop_reason = self._ending.stop_reason
        body.stop_sequence = self._ending.stop_sequence
        return answers.encode(body)

    def _begin(self, block: TextBlock | ToolUseBlock) -> Iterator[Told]:
        """Yield the end of the last block, and the beginning of this one."""
        yield from self._stop()
        self._fill()
        self._blocks.append(block)
        yield _told(BlockStart(len(self._blocks) - 1, block))
        if len(self._blocks) == 1:
            yield _told(Ping())

    def _more(self, delta: TextDelta | InputDelta, written: str) -> Told:
        self._written += written
        text = written if isinstance(delta, TextDelta) else ""
        return _told(BlockDelta(len(self._blocks) - 1, delta), text)

    def _stop(self) -> Sequence[Told]:
        return (_told(BlockStop(len(self._blocks) - 1)),) if self._blocks else ()

    def _fill(self) -> bool:
        """Give the last block what was written of it; return whether it was all."""
        written, self._written = self._written, ""
        if not self._blocks:
            return True
        block = self._blocks[-1]
        if isinstance(block, TextBlock):
            block.text = written
            return True
        try:
            block.input = msgspec.json.decode(written)
        except msgspec.DecodeError:
            return False
        return True

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
        if piece.finish_reason in REASONS:
            return Ending(REASONS[piece.finish_reason], None)
        (sequence,) = self._generation.job.sequences
        cut = sequence.max_tokens < self._max_tokens
        return Ending("model_context_window_exceeded" if cut else "max_tokens", None)


def _told(event: Event, text: str = "") -> Told:
    return text, str(event.__struct_config__.tag), partial(answers.encode, event)


def error_body(error: RequestError) -> bytes:
    """Return an error as JSON text."""
    kind = ERROR_TYPES.get(error.status, "invalid_request_error")
    if error.code == "request_timeout":
        kind = "timeout_error"
    return answers.encode(ErrorEvent(ErrorDetail(kind, error.message)))
