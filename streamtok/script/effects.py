"""What an answer of a script has beside its text: an error, a fault, and the usage it reports.

Read next: `streamtok.faults.inject`.
"""

from collections.abc import Mapping
from contextlib import aclosing
from http import HTTPStatus

from msgspec import structs
from msgspec.structs import replace

from streamtok.answer.ask import Ask
from streamtok.answer.events import AnswerEvent, AnswerEvents, Ended
from streamtok.answer.events import Usage as Spent
from streamtok.answer.render import Interceptor
from streamtok.errors import RequestError
from streamtok.faults.inject import Faults
from streamtok.http.framings import Framing
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.script.rules import Answer, Usage


class ScriptedError(RequestError):
    """An error that a script answers with."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status is not None
        self.status = answer.status
        self.type = "invalid_request_error" if self.status < 500 else "server_error"
        self._retry_after_s = answer.retry_after_s
        known = self.status in set(HTTPStatus)
        phrase = HTTPStatus(self.status).phrase if known else f"status {self.status}"
        super().__init__(answer.message or f"{phrase}, as the script says", code=answer.code)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return `Retry-After`, if there is one (RFC 9110 section 10.2.3)."""
        after_s = self._retry_after_s
        return () if after_s is None else (("retry-after", str(after_s)),)


class Effects:
    """Plans what happens to one answer: see `streamtok.api.services.FaultInjector`."""

    def __init__(self, answer: Answer, name: str, faults: Faults) -> None:
        self.field = faults.field
        self._answer = answer
        self._name = name
        self._faults = faults

    def plan(self, request: Request, framing: Framing | None, ask: Ask) -> Interceptor:
        """See `FaultInjector.plan`."""
        planned = self._faults.plan_scripted(request, framing, ask, self._answer.fault or "")
        return Changes(planned, self._answer.usage, self._name)

    def end(self) -> None:
        """See `FaultInjector.end`."""
        self._faults.end()


class Changes:
    """Changes one answer: its faults, then the `usage` it reports; the access log has the rule."""

    def __init__(self, fault: Interceptor | None, usage: Usage | None, name: str) -> None:
        self._fault = fault
        self._usage = usage
        self._name = name

    def events(self, events: AnswerEvents) -> AnswerEvents:
        """See `Interceptor.events`."""
        if self._fault:
            events = self._fault.events(events)
        return _reporting(events, self._usage) if self._usage else events

    def response(self, response: Response) -> Response:
        """See `Interceptor.response`."""
        summary = response.summary
        response = replace(response, summary=lambda: f"{summary()}, script: {self._name}")
        return self._fault.response(response) if self._fault else response


async def _reporting(events: AnswerEvents, usage: Usage) -> AnswerEvents:
    """Yield `events` with `usage` in place of what was spent."""
    given = {key: value for key, value in structs.asdict(usage).items() if value is not None}
    at_first = {key: value for key, value in given.items() if key != "completion_tokens"}
    async with aclosing(events):
        async for group in events:
            changes = given if isinstance(group[-1], Ended) else at_first
            yield [_reported(event, changes) for event in group]


def _reported(event: AnswerEvent, given: Mapping[str, int]) -> AnswerEvent:
    """Return `event` with what is `given` in place of what was spent, if it says that."""
    spent = getattr(event, "usage", None)
    if not isinstance(spent, Spent):
        return event
    return structs.replace(event, usage=structs.replace(spent, **given))
