"""The dialect of OpenAI's Responses API: a response that grows, told in numbered, typed events.

Where the response is to be kept, that is done before the last event says that it is complete, so
that who has read it can go on from it. Read next: `streamtok.api.responses`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from streamtok.api import answers
from streamtok.api.choice import Piece
from streamtok.api.dialect import Occasion, Pieces, Told, usage
from streamtok.api.responses_types import (
    Event,
    IncompleteDetails,
    InputDetails,
    ItemAdded,
    ItemDone,
    OutputDetails,
    OutputMessage,
    OutputText,
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
    ResponseRequest,
    ResponseUsage,
    TextConfig,
)
from streamtok.api.streaming import obfuscate
from streamtok.errors import RequestError

Keep = Callable[[ResponseBody, str], Awaitable[bool]]  # a response and its text; whether it could


class ResponseEvents:
    """One answer in the words of the Responses API: an output of one message of one text."""

    def __init__(self, occasion: Occasion, fields: ResponseRequest, keep: Keep | None) -> None:
        self._occasion = occasion
        self._keep = keep
        self._obfuscated = bool(fields.stream_options and fields.stream_options.include_obfuscation)
        self._numbers = iter(range(2**63))
        self._texts: list[str] = []
        self._reason: str | None = None
        self._body = _body(occasion, fields, keep is not None)
        self._item_id = self._body.id.replace("resp_", "msg_")

    def opening(self) -> Iterator[Told]:
        """See `Dialect.opening`."""
        yield self._told(ResponseCreated(next(self._numbers), self._body))
        yield self._told(ResponseInProgress(next(self._numbers), self._body))

    def piece(self, piece: Piece) -> Iterator[Told]:
        """See `Dialect.piece`."""
        self._reason = piece.finish_reason
        if not piece.text:
            return
        if not self._texts:
            item = OutputMessage(self._item_id, "in_progress", [])
            yield self._told(ItemAdded(next(self._numbers), 0, item))
            yield self._told(PartAdded(*self._place(), OutputText("")))
        self._texts.append(piece.text)
        delta = OutputTextDelta(*self._place(), piece.text)
        if self._obfuscated:
            obfuscate(delta)
        yield self._told(delta, piece.text)

    async def closing(self) -> Sequence[Told]:
        """See `Dialect.closing`."""
        await self._finish()
        told = []
        for item in self._body.output:
            (part,) = item.content
            told += [
                self._told(OutputTextDone(*self._place(), part.text)),
                self._told(PartDone(*self._place(), part)),
                self._told(ItemDone(next(self._numbers), 0, item)),
            ]
        last = ResponseCompleted if self._body.status == "completed" else ResponseIncomplete
        return (*told, self._told(last(next(self._numbers), self._body)))

    def failure(self, error: RequestError) -> tuple[str, bytes]:
        """See `Dialect.failure`."""
        self._body.status = "failed"
        self._body.error = ResponseError("server_error", error.message)
        self._body.output = self._output("incomplete")
        _, name, encode = self._told(ResponseFailed(next(self._numbers), self._body))
        return name, encode()

    async def whole(self, choices: Sequence[Pieces]) -> bytes:
        """See `Dialect.whole`."""
        (pieces,) = choices
        self._texts = [piece.text for piece in pieces if piece.text]
        self._reason = pieces[-1].finish_reason
        await self._finish()
        return answers.encode(self._body)

    async def _finish(self) -> None:
        """Complete the response, and have it kept."""
        body = self._body
        body.status = "completed" if self._reason == "stop" else "incomplete"
        if body.status == "completed":
            body.completed_at = self._occasion.now
        else:
            body.incomplete_details = IncompleteDetails("max_output_tokens")
        body.output = self._output(body.status)
        counts = usage(self._occasion.generation)
        body.usage = ResponseUsage(
            counts.prompt_tokens,
            InputDetails(counts.prompt_tokens_details.cached_tokens),
            counts.completion_tokens,
            OutputDetails(),
            counts.total_tokens,
        )
        if self._keep is not None:
            body.store = await self._keep(body, "".join(self._texts))

    def _output(self, status: str) -> list[OutputMessage]:
        if not self._texts:
            return []
        return [OutputMessage(self._item_id, status, [OutputText("".join(self._texts))])]

    def _place(self) -> tuple[int, str, int, int]:
        """Return the next number, and where in the output the text stands."""
        return next(self._numbers), self._item_id, 0, 0

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
        previous_response_id=fields.previous_response_id,
        store=store,
        temperature=sampling.temperature,
        text=fields.text or TextConfig(),
        top_p=sampling.top_p,
        user=fields.user,
        metadata=fields.metadata or {},
    )
