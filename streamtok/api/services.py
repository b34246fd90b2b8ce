"""What every endpoint is given: model, engine, accounting; built once, by `streamtok.app`.

Read next: `streamtok.ids`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field

from streamtok.answer.ask import Ask, Timers
from streamtok.answer.choice import CallReader
from streamtok.answer.generation import Generation
from streamtok.answer.limits import network
from streamtok.answer.meter import Meter
from streamtok.answer.render import Interceptor, Renderer
from streamtok.api.conversation import Wanted
from streamtok.api.validation import BodyReader, Kind
from streamtok.engine.base import Engine
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.framings import Framing
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Body
from streamtok.messages import Constraint
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer

Result = TypeVar("Result")


class Call(Struct, frozen=True):
    """A request, and the name of the API key it came with: empty where none is needed.

    With `sees_all` it may read the usage of every key.
    """

    request: Request
    key: str = ""
    sees_all: bool = True

    @property
    def caller(self) -> str:
        """Whose limits the request counts for."""
        return self.key or network(self.request.peer)


class FaultInjector(Protocol):
    """Makes answers go wrong where requests ask for it: see `streamtok.faults`."""

    @property
    def field(self) -> str:
        """The field of a request's body that asks for it."""

    def plan(self, request: Request, framing: Framing | None, ask: Ask) -> Interceptor | None:
        """Return what is to happen to the answer to `request`, if anything.

        Raises:
            RequestError: it asks for this error, or for what there is not.
        """

    def end(self) -> None:
        """Hold nothing up any more: the server is stopping."""


class Director(Protocol):
    """Decides what answers each request, if not the model: see `streamtok.script`."""

    def direct(self, services: "Services", call: Call, ask: Ask) -> tuple["Services", Ask]:
        """Return what answers `ask`, and what it is asked. Raises RequestError if nothing does."""


class Constrained(Struct, frozen=True):
    """What an answer must be, if anything; made of `parts`, to find the one that is wrong.

    `reader` makes what reads the calls of tools in it, where there may be some.
    """

    constraint: Constraint | None = None
    parts: Sequence[Constraint] = ()
    reader: Callable[[], CallReader] | None = None


class Constraints(Protocol):
    """Makes constraints of what requests want: see `streamtok.api.constraints`."""

    def make(self, wanted: Wanted) -> Constrained:
        """Return what an answer must be.

        Raises:
            InvalidRequest: what is wanted does not fit together.
        """

    async def check(self, constraint: Constraint, parts: Sequence[Constraint]) -> None:
        """Check that an answer can be that.

        Raises:
            InvalidRequest: it cannot, or nothing can be enforced here.
        """


class Offload:
    """Runs what requests of any size need, such as tokenising; here at once, on the event loop.

    `streamtok.app` plugs in `streamtok.api.access.lanes`, where long work delays no stream.
    """

    async def run(self, size: int, caller: str, work: Callable[[], Result]) -> Result:
        """Return the result of `work` on `size` bytes that `caller` has sent."""
        return work()

    def close(self) -> None:
        """Stop what runs it."""


class Services(Struct, frozen=True):
    """A loaded model and what serves it.

    `defaults` are the sampling parameters a request gets that does not name its own; `new_id`
    makes a request's id from what it begins with; `timers` watch over each. `faults` are what
    clients may ask to go wrong, where they may; `director` may send a request to another engine;
    `refuse_unknown` fields, or ignore them. `stored_responses` is how many are kept for each key.
    `constraints` makes what answers must be. `aliases` are other names of the model; among them "*"
    stands for any. `offload` does what would hold up the event loop.
    """

    engine: Engine
    model: str
    created: int
    tokenizer: Tokenizer
    detokenizers: Detokenizers
    template: ChatTemplate
    defaults: Mapping[str, Any]
    meter: Meter
    new_id: Callable[[str], str]
    new_seed: Callable[[], int]
    close_after_stream: bool
    timers: Timers
    constraints: Constraints
    faults: FaultInjector | None = None
    director: Director | None = None
    refuse_unknown: bool = False
    stored_responses: int = 0
    aliases: Collection[str] = ()
    find_trace: Callable[[str, str], Any] = lambda *_: None  # by a key and a request's id
    offload: Offload = field(default_factory=Offload)
    reader: BodyReader = field(default_factory=BodyReader)
    headers_of: Callable[[str], HeaderList] = lambda _: ()  # by a request's id
    direct: Callable[[Body, Generation, Renderer], Body] = lambda body, *_: body  # `answer.direct`

    async def run(self, call: Call, work: Callable[[], Result]) -> Result:
        """Return the result of `work` on what `call` has sent, done elsewhere if that is long."""
        request = call.request
        size = len(request.body) + len(request.target)
        return await self.offload.run(size, call.caller, work)

    async def read(self, call: Call, kind: type[Kind]) -> tuple[Kind, tuple[str, ...]]:
        """Return the JSON of a request as a `kind`, and the names of fields that no one knows.

        Raises:
            InvalidRequest: it is no JSON object, a field has a wrong value or is not supported, or
                it is unknown and such are refused.
        """
        fields, unknown = await self.run(call, partial(self.reader.read, call.request.body, kind))
        own = self.faults.field if self.faults else None
        wrong = [name for name in unknown if name != own]
        if wrong and self.refuse_unknown:
            raise InvalidRequest(
                f"{wrong[0]}: there is no such field", param=wrong[0], code="unknown_parameter"
            )
        return fields, unknown

    def check_model(self, name: str | None) -> None:
        """Check that `name` is the model served here; None stands for it.

        Raises:
            NotFound: it is not.
        """
        if name not in (None, self.model, *self.aliases) and "*" not in self.aliases:
            raise NotFound(
                f"the model {name!r} does not exist; this server has {self.model!r}",
                param="model",
                code="model_not_found",
            )
