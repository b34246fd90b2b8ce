"""What the endpoints are made from; put together once, by `streamtok.app`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamtok.answer.ask import Ask, Timers
from streamtok.answer.limits import network
from streamtok.answer.meter import Meter
from streamtok.answer.render import Interceptor
from streamtok.api.openai import types as requests
from streamtok.api.openai.types import OPENAI, Documented, Kind
from streamtok.engine.base import Engine
from streamtok.engine.extras.grammars import Grammars
from streamtok.errors import InvalidRequest, NotFound
from streamtok.http.framings import Framing
from streamtok.http.request import Request
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and the name of the API key it came with: empty where none is needed."""

    request: Request
    key: str = ""

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


@dataclass(frozen=True, slots=True)
class Services:
    """One model, ready to serve, and what keeps its books.

    `defaults` are the sampling parameters a request gets that does not name its own; `new_id`
    makes a request's id from what it begins with; `timers` watch over each. `faults` are what
    clients may ask to go wrong, where they may; `refuse_unknown` fields, or ignore them.
    `stored_responses` is how many are kept for each key. `grammars` compiles what answers must be,
    where the library for it is installed.
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
    faults: FaultInjector | None = None
    refuse_unknown: bool = False
    stored_responses: int = 0
    grammars: Grammars | None = None

    def read(
        self, call: Call, kind: type[Kind], documented: Documented = OPENAI
    ) -> tuple[Kind, tuple[str, ...]]:
        """Return the JSON of a request as a `kind`, and the names of fields that no one knows.

        Raises:
            InvalidRequest: it is no JSON object, a field has a wrong value or is not supported, or
                it is unknown and such are refused.
        """
        value = requests.read_object(call.request.body)
        fields, unknown = requests.convert(value, kind, documented)
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
        if name not in (None, self.model):
            raise NotFound(
                f"the model {name!r} does not exist; this server has {self.model!r}",
                param="model",
                code="model_not_found",
            )
