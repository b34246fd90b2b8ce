"""The dialect of OpenAI's Responses API: a response that grows, in numbered, typed events.

Where the response is to be stored, that is done before the last event says that it is complete, so
that a client that has read it can continue from it. Read next: `streamtok.api.responses.responses`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator

from streamtok.answer.complete import CompleteAnswer
from streamtok.answer.events import Began, Ended, Failed, Token, Usage
from streamtok.answer.render import Chunk
from streamtok.api.openai import answers
from streamtok.api.openai.answers import ChatLogprob
from streamtok.api.openai.chat import chat_logprob
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
    ResponseQueued,
    ResponseUsage,
)
from streamtok.api.responses.transcript import Item, ItemBegan, ItemDialect, ItemEnded, ItemGrew
from streamtok.api.responses.types import LOGPROBS, OutputText, ResponseRequest, TextConfig
from streamtok.api.services import Services
from streamtok.messages import SamplingParams

Keep = Callable[[ResponseBody], Awaitable[bool]]  # whether it could be stored


class ResponseEvents(ItemDialect):
    """One answer in the words of the Responses API: a message of one text, calls, or both."""

    is_plain = False  # the whole text is sent again at the end

    def __init__(
        self,
        services: Services,
        fields: ResponseRequest,
        sampling: SamplingParams,
        keep: Keep | None,
    ) -> None:
        self._new_id = services.new_id
        self._detokenizers = services.detokenizers
        self._clock = services.meter.clock
        self._fields = fields
        self._sampling = sampling
        self._keep = keep
        self._obfuscated = bool(fields.stream_options and fields.stream_options.include_obfuscation)
        self._numbers = iter(range(2**63))
        super().__init__()
        self._output: list[OutputItem] = []  # the transcript's items as JSON
        self._body: ResponseBody | None = None

    async def queued(self, began: Began) -> ResponseBody:
        """Return the response as it is before its turn, and keep it."""
        body = self._new_body(began)
        body.status = "queued"
        if self._keep is not None:
            body.store = await self._keep(body)
        return body

    async def end(self, event: Ended) -> Iterable[Chunk]:
        """See `Dialect.end`."""
        ended = list(self.chunks(event))
        body = await self._finish(event.usage)
        last = ResponseCompleted if body.status == "completed" else ResponseIncomplete
        return (*ended, _chunk(last(next(self._numbers), body)))

    async def complete(self, answer: CompleteAnswer) -> bytes:
        """See `CompleteDialect.complete`."""
        (choice,) = answer.choices
        self._body = self._new_body(answer.began)
        for item in self.transcript.take(choice.events):
            self._add(item)
        return answers.encode(await self._finish(answer.usage))

    def _began(self, event: Began) -> Iterator[Chunk]:
        body = self._body = self._new_body(event)
        if self._fields.background:
            body.status = "queued"
            yield _chunk(ResponseCreated(next(self._numbers), body))
            yield _chunk(ResponseQueued(next(self._numbers), body))
            body.status = "in_progress"
        else:
            yield _chunk(ResponseCreated(next(self._numbers), body))
        yield _chunk(ResponseInProgress(next(self._numbers), body))

    def _failed(self, event: Failed) -> Iterator[Chunk]:
        began = event.began
        body = self._new_body(began) if began is not None else self._body
        assert body is not None
        body.output = self._filled("incomplete")
        body.status = "failed"
        body.error = ResponseError("server_error", event.error.message)
        yield _chunk(ResponseFailed(next(self._numbers), body))

    def _item_began(self, change: ItemBegan) -> Iterator[Chunk]:
        item = self._add(change.item)
        yield _chunk(ItemAdded(next(self._numbers), change.item.number, item))
        if isinstance(item, OutputMessage):
            yield _chunk(PartAdded(*self._place(), 0, OutputText("")))

    def _item_grew(self, change: ItemGrew) -> Iterator[Chunk]:
        delta: OutputTextDelta | ArgumentsDelta
        if change.item.tool:
            delta, text = ArgumentsDelta(*self._place(), change.delta), ""
        else:
            logprobs = self._logprobs(change.tokens)
            delta, text = OutputTextDelta(*self._place(), 0, change.delta, logprobs), change.delta
        if self._obfuscated:
            obfuscate(delta)
        yield _chunk(delta, text)

    def _item_ended(self, change: ItemEnded) -> Iterator[Chunk]:
        item = self._filled(self._status if change.is_last else "completed")[-1]
        if isinstance(item, OutputMessage):
            (part,) = item.content
            yield _chunk(OutputTextDone(*self._place(), 0, part.text, part.logprobs))
            yield _chunk(PartDone(*self._place(), 0, part))
        else:
            yield _chunk(ArgumentsDone(*self._place(), item.name, item.arguments))
        yield _chunk(ItemDone(next(self._numbers), change.item.number, item))

    def _add(self, item: Item) -> OutputItem:
        """Add an item to the output."""
        output: OutputItem
        if item.tool:
            ids = self._new_id("fc_"), self._new_id("call_")
            output = FunctionCall(*ids, item.tool, "", "in_progress")
        else:
            output = OutputMessage(self._new_id("msg_"), "in_progress", [])
        self._output.append(output)
        return output

    def _filled(self, status: str) -> list[OutputItem]:
        """Return the output with all of its text; the last item has this `status`."""
        for item, output in zip(self.transcript.items, self._output, strict=True):
            output.status = "completed"
            if isinstance(output, OutputMessage):
                output.content = [OutputText(item.text, logprobs=self._logprobs(item.tokens))]
            else:
                output.arguments = item.text
        if self._output:
            self._output[-1].status = status
        return self._output

    def _logprobs(self, tokens: Iterable[Token]) -> list[ChatLogprob]:
        """Return the log-probabilities of text, where they were asked for."""
        if LOGPROBS not in (self._fields.include or ()):
            return []
        return [chat_logprob(self._detokenizers, token) for token in tokens]

    @property
    def _status(self) -> str:
        complete = self.transcript.reason in ("stop", "tool_calls")
        return "completed" if complete else "incomplete"

    async def _finish(self, usage: Usage) -> ResponseBody:
        """Complete the response, and have it stored."""
        body = self._body
        assert body is not None
        body.status, body.output = self._status, self._filled(self._status)
        if body.status == "completed":
            body.completed_at = int(self._clock.wall_s())
        else:
            filtered = self.transcript.reason == "content_filter"
            body.incomplete_details = IncompleteDetails(
                "content_filter" if filtered else "max_output_tokens"
            )
        body.usage = ResponseUsage(
            usage.prompt_tokens,
            InputDetails(usage.cached_tokens),
            usage.completion_tokens,
            OutputDetails(),
            usage.total_tokens,
        )
        if self._keep is not None:
            body.store = await self._keep(body)
        return body

    def _place(self) -> tuple[int, str, int]:
        """Return the next number, and where in the output the last item is."""
        return next(self._numbers), self._output[-1].id, len(self._output) - 1

    def _new_body(self, began: Began) -> ResponseBody:
        """Return the response before anything is known of its answer."""
        fields = self._fields
        return ResponseBody(
            id=began.id,
            created_at=began.created,
            instructions=fields.instructions,
            max_output_tokens=fields.max_output_tokens,
            model=began.model,
            parallel_tool_calls=fields.parallel_tool_calls is not False,
            previous_response_id=fields.previous_response_id,
            store=self._keep is not None,
            temperature=self._sampling.temperature,
            text=fields.text or TextConfig(),
            tool_choice=fields.tool_choice or "auto",
            tools=fields.tools or [],
            top_logprobs=fields.top_logprobs or 0,
            top_p=self._sampling.top_p,
            truncation=fields.truncation or "disabled",
            user=fields.user,
            metadata=fields.metadata or {},
            background=bool(fields.background),
        )


def _chunk(event: Event, text: str = "") -> Chunk:
    return text, str(event.__struct_config__.tag), answers.encode(event)
