"""Finds the answer to each request: by the first rule that matches, or from the model.

Read next: `streamtok.script.lines`.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from streamtok.answer.ask import Ask
from streamtok.api.input import validation
from streamtok.api.services import Call, Services
from streamtok.errors import ConfigError, NotFound
from streamtok.faults.inject import Faults
from streamtok.script.effects import Effects, ScriptedError
from streamtok.script.engine import ScriptEngine
from streamtok.script.lines import Line, SpanReader, Writer, spans
from streamtok.script.matching import Asked, differences
from streamtok.script.rules import Answer, Rule, Script

ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/v1/generate": "generate",
}
MOST_CALLS = 1000  # that are kept


class Scripted(Struct, frozen=True):
    """A request that has come: what it was, its JSON, and the rule that answered, if one did."""

    asked: Asked
    body: Mapping[str, object]
    rule: str | None


class Scene:
    """One rule, and how often it has answered: for each value of the header that counts."""

    def __init__(self, rule: Rule, name: str, defaults: Script, writer: Writer) -> None:
        self.rule = rule
        self.name = name
        self._taken: Counter[str] = Counter()
        self._answers = [(one, _line(one, name, defaults, writer)) for one in rule.sequence]

    def take(self, counted: str) -> tuple[Answer, Line | None] | None:
        """Return the next answer; None if all have been given, and that is all there is."""
        count, taken = len(self._answers), self._taken[counted]
        if taken >= count:
            if self.rule.after == "none" and self.rule.answers is not None:
                return None
            taken = taken % count if self.rule.after == "first" else count - 1
        self._taken[counted] += 1
        return self._answers[taken]


class Director:
    """See `streamtok.api.services.Director`.

    With `only`, what no rule matches is an error; else it goes to the model, if it names that by
    one of `own_names`. `calls` are the last requests that came. Of an answer, what the request
    wants it to be is ignored unless the server `checks` such.

    Raises:
        ConfigError: the model's tokenizer cannot write an answer.
    """

    def __init__(
        self,
        script: Script,
        services: Services,
        engine: ScriptEngine,
        own_names: Collection[str],
        *,
        only: bool,
        checks: bool,
    ) -> None:
        self.calls: deque[Scripted] = deque(maxlen=MOST_CALLS)
        self.own_names = own_names
        self._count_by = (script.count_by or "").lower()
        self._only = only
        self._checks = checks
        self._engine = engine
        given = services.faults
        self.faults = given if isinstance(given, Faults) else Faults(listens=False)
        writer = Writer(services.tokenizer, services.detokenizers)
        self._scenes = [
            Scene(rule, name, script, writer)
            for name, rule in zip(script.names, script.rules, strict=True)
        ]
        digest = hashlib.sha256(msgspec.json.encode(script)).hexdigest()
        self._fingerprint = f"fp_{digest[:16]}"

    def direct(self, services: Services, call: Call, ask: Ask) -> tuple[Services, Ask]:
        """See `streamtok.api.services.Director.direct`."""
        asked = _asked(services, call, ask)
        counted = asked.headers.get(self._count_by, "")
        for scene in self._scenes:
            if any(differences(scene.rule.match, asked)):
                continue
            if (taken := scene.take(counted)) is not None:
                self._note(asked, call, scene.name)
                return self._answered(services, ask, scene.name, *taken)
        self._note(asked, call, None)
        if self._only:
            raise NotFound(self._miss(asked), code="no_rule")
        replace(services, aliases=self.own_names).check_model(ask.named)
        assert self._engine.model is not None
        return replace(services, engine=self._engine.model), ask

    def _note(self, asked: Asked, call: Call, rule: str | None) -> None:
        body = validation.read_object(call.request.body) if call.request.body else {}
        self.calls.append(Scripted(asked, body, rule))

    def _answered(
        self, services: Services, ask: Ask, name: str, answer: Answer, line: Line | None
    ) -> tuple[Services, Ask]:
        """Return what answers with `line`. Raises ScriptedError where there is none."""
        if line is None:
            raise ScriptedError(answer)
        reader = (lambda: SpanReader(line.spans)) if line.has_calls else None
        ask = replace(ask, model=ask.named or ask.model, rules=replace(ask.rules, reader=reader))
        if not self._checks:
            ask = replace(ask, constraint=None, parts=())
        return (
            replace(
                services,
                engine=self._engine.saying(line, self._fingerprint),
                faults=Effects(answer, name, self.faults),
            ),
            ask,
        )

    def _miss(self, asked: Asked) -> str:
        """Return what to say of a request that no rule matches."""
        wrong = [(list(differences(scene.rule.match, asked)), scene) for scene in self._scenes]
        text = f"no rule of the script matches this request: {asked}"
        if not wrong:
            return text
        keys, nearest = min(wrong, key=lambda pair: len(pair[0]))
        problem = f"does not match by {', '.join(keys)}" if keys else "has given all its answers"
        return f"{text}; the nearest, {nearest.name}, {problem}"


def _line(answer: Answer, name: str, defaults: Script, writer: Writer) -> Line | None:
    """Return what the engine says for an answer; None for an error."""
    if answer.status is not None:
        return None
    parts = spans(answer)
    try:
        ids = writer.ids("".join(part.text for part in parts))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    first_s, rate = answer.first_token_s, answer.tokens_per_s
    return Line(
        ids,
        parts,
        answer.finish,
        defaults.first_token_s if first_s is None else first_s,
        defaults.tokens_per_s if rate is None else rate,
    )


def _asked(services: Services, call: Call, ask: Ask) -> Asked:
    """Return what rules look at of a request. A completion has its prompt for a message."""
    messages = ask.chat.messages if ask.chat else ()
    last = messages[-1] if messages else None
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    new = messages[answers[-1] + 1 :] if answers else messages
    return Asked(
        endpoint=ENDPOINTS[ask.surface.path],
        model=ask.named or services.model,
        text=(last.content or "") if last else services.detokenizers.text(ask.prompts[0]),
        role=last.role if last else "user",
        system="\n".join(m.content or "" for m in messages if m.role == "system"),
        results=[message.content or "" for message in new if message.role == "tool"],
        tools=[tool.name for tool in ask.chat.tools] if ask.chat else [],
        turn=1 + len(answers),
        headers={name: call.request.header(name) or "" for name, _ in call.request.headers},
        stream=ask.stream,
    )
