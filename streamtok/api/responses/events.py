"""The dialect of OpenAI's Responses API: a response that grows, told in numbered, typed events.

Where the response is to be kept, that is done before the last event says that it is complete, so
that who has read it can go on from it. Read next: `streamtok.api.responses.responses`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from streamtok.answer.choice import Piece
from streamtok.answer.dialect import Occasion, Pieces, Told
from streamtok.api.openai import answers
from streamtok.api.openai.answers import usage
from streamtok.api.openai.streaming import obfuscate
from streamtok.api.responses.answers import (
    ArgumentsDelta,
    ArgumentsDone,
    Event,
    FunctionCall,
    IncompleteDetails,
    InputDetails,
    ItemAdded,
    ItemDone,
    OutputDetails,
    OutputItem,
    OutputMessage,
    OutputTextDelta,
    OutputTextDone,
    PartAdded,
    PartDone,
    ResponseBody,
    ResponseCompleted,
    ResponseCreated,
    ResponseError,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseUsage,
)
from streamtok.api.responses.types import OutputText, ResponseRequest, TextConfig
from streamtok.errors import RequestError

Keep = Callable[[ResponseBody], Awaitable[bool]]  # whether it could


class ResponseEvents:
    """One answer in the words of the Responses API: a message of one text, calls, or both."""

    def __init__(
        self,
        occasion: Occasion,
        fields: ResponseRequest,
        new_id: Callable[[str], str],
        keep: Keep | None,
    ) -> None:
        self._occasion = occasion
        self._new_id = new_id
        self._keep = keep
        self._obfuscated = bool(fields.stream_options and fields.stream_options.include_obfuscation)
        self._numbers = iter(range(2**63))
        self._items: list[OutputItem] = []
        self._written: list[str] = []  # of the last item
        self._reason: str | None = None
        self._body = _body(occasion, fields, keep is not None)

    def opening(self) -> Iterator[Told]:
        """See `Dialect.opening`."""
        yield self._told(ResponseCreated(next(self._numbers), self._body))
        yield self._told(ResponseInProgress(next(self._numbers), self._body))

    def piece(self, piece: Piece) -> Iterator[Told]:
        """See `Dialect.piece`."""
        self._reason = piece.finish_reason
        if piece.text:
            if not self._items:
                message = OutputMessage(self._new_id("msg_"), "in_progress", [])
                yield from self._begin(message)
                yield self._told(PartAdded(*self._place(), 0, OutputText("")))
            delta = OutputTextDelta(*self._place(), 0, piece.text)
            yield self._more(delta, piece.text)
        for part in piece.calls:
            if part.name:
                ids = self._new_id("fc_"), self._new_id("call_")
                yield from self._begin(FunctionCall(*ids, part.name, "", "in_progress"))
            if part.arguments:
                yield self._more(ArgumentsDelta(*self._place(), part.arguments))

    async def closing(self) -> Sequence[Told]:
        """See `Dialect.closing`."""
        ended = list(self._end(self._status))
        await self._finish()
        last = ResponseCompleted if self._status == "completed" else ResponseIncomplete
        return (*ended, self._told(last(next(self._numbers), self._body)))

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """See `Dialect.failure`."""
        self._fill("incomplete")
        self._body.status = "failed"
        self._body.error = ResponseError("server_error", error.message)
        self._body.output = self._items
        _, name, encode = self._told(ResponseFailed(next(self._numbers), self._body))
        return name, encode()

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Whole.whole`."""
        (pieces,) = choices
        for piece in pieces:
            for _ in self.piece(piece):
                pass  # the items are made on the way
        self._fill(self._status)
        await self._finish()
        return answers.encode(self._body)

    @property
    def _status(self) -> str:
        return "completed" if self._reason in ("stop", "tool_calls") else "incomplete"

    def _begin(self, item: OutputItem) -> Iterator[Told]:
        """Yield the end of the last item, and the beginning of this one."""
        yield from self._end("completed")
        self._items.append(item)
        yield self._told(ItemAdded(next(self._numbers), len(self._items) - 1, item))

    def _more(self, delta: OutputTextDelta | ArgumentsDelta, text: str = "") -> Told:
        self._written.append(delta.delta)
        if self._obfuscated:
            obfuscate(delta)
        return self._told(delta, text)

    def _end(self, status: str) -> Iterator[Told]:
        """Yield the end of the last item, if there is one."""
        if not self._items:
            return
        self._fill(status)
        item = self._items[-1]
        if isinstance(item, OutputMessage):
            (part,) = item.content
            yield self._told(OutputTextDone(*self._place(), 0, part.text))
            yield self._told(PartDone(*self._place(), 0, part))
        else:
            yield self._told(ArgumentsDone(*self._place(), item.name, item.arguments))
        yield self._told(ItemDone(next(self._numbers), len(self._items) - 1, item))

    def _fill(self, status: str) -> None:
        """Give the last item what was written of it, and its `status`."""
        written, self._written = "".join(self._written), []
        if not self._items:
            return
        item = self._items[-1]
        item.status = status
        if isinstance(item, OutputMessage):
            item.content = [OutputText(written)]
        else:
            item.arguments = written

    async def _finish(self) -> None:
        """Complete the response, and have it kept."""
        body = self._body
        body.status, body.output = self._status, self._items
        if body.status == "completed":
            body.completed_at = self._occasion.now
        else:
            body.incomplete_details = IncompleteDetails("max_output_tokens")
        counts = usage(self._occasion.generation)
        body.usage = ResponseUsage(
            counts.prompt_tokens,
            InputDetails(counts.prompt_tokens_details.cached_tokens),
            counts.completion_tokens,
            OutputDetails(),
            counts.total_tokens,
        )
        if self._keep is not None:
            body.store = await self._keep(body)

    def _place(self) -> tuple[int, str, int]:
        """Return the next number, and where in the output the last item stands."""
        return next(self._numbers), self._items[-1].id, len(self._items) - 1

    @staticmethod
    def _told(event: Event, text: str = "") -> Told:
        return text, str(event.__struct_config__.tag), partial(answers.encode, event)


def _body(occasion: Occasion, fields: ResponseRequest, store: bool) -> ResponseBody:
    """Return the response before anything is known of its answer."""
    job = occasion.generation.job
    sampling = job.sequences[0].sampling
    return ResponseBody(
        id=job.id,
        created_at=occasion.now,
        instructions=fields.instructions,
        max_output_tokens=fields.max_output_tokens,
        model=job.model,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        previous_response_id=fields.previous_response_id,
        store=store,
        temperature=sampling.temperature,
        text=fields.text or TextConfig(),
        tool_choice=fields.tool_choice or "auto",
        tools=fields.tools or [],
        top_p=sampling.top_p,
        user=fields.user,
        metadata=fields.metadata or {},
    )
