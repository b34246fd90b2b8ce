"""What a script consists of: rules, each of which says which requests get which answers.

The types are the reference of the file's keys; `streamtok.script.files` reads it. Pure.
Read next: `streamtok.script.matching`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Endpoint = Literal["chat", "completions", "responses", "messages", "embeddings", "generate"]
Text = Annotated[str, Meta(min_length=1)]
Texts = Text | Annotated[list[Text], Meta(min_length=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Rate = Annotated[float, Meta(ge=0.001, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Match(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which requests a rule is for: all that is given must hold.

    `model` and the values of `headers` are patterns, where `*` stands for anything. `contains` (all
    of the texts) and `regex` look at the text of the last message, `role` is whose it is, `system`
    must be in the system's. `tool_results` must each be in a result that has come since the last
    answer (an empty list: there is none), and `tools` must all be offered (an empty list: there are
    none). `turn` counts the answers of a conversation from 1.
    """

    endpoint: Endpoint | Annotated[list[Endpoint], Meta(min_length=1)] | None = None
    model: Texts | None = None
    contains: Texts | None = None
    regex: Text | None = None
    role: Literal["system", "user", "assistant", "tool"] | None = None
    system: Texts | None = None
    tool_results: Text | list[Text] | None = None
    tools: list[Text] | None = None
    turn: Annotated[int, Meta(ge=1)] | None = None
    headers: dict[str, str] | None = None
    stream: bool | None = None


class Call(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that is called; `arguments` that are a string stand in the answer as they are."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+$")]
    arguments: dict[str, Any] | str = {}


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens that the answer reports, instead of those there were. The ledger has the latter."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None


class Answer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is answered: `text` or `json`, and `tool_calls`; or an error's `status`.

    `finish` is why it ends, where it is not "stop", or "tool_calls" behind calls. `first_token_s`
    is the time to the first token, `tokens_per_s` the pace after it; at once, if not given. `fault`
    is what goes wrong, as in the header `X-Fault`. An error has a `message` and a `code`, and may
    say when to come back.
    """

    text: str | None = None
    json: Any | UnsetType = UNSET
    tool_calls: Annotated[list[Call], Meta(min_length=1)] | None = None
    finish: Literal["stop", "length", "content_filter"] = "stop"
    usage: Usage | None = None
    first_token_s: Seconds | None = None
    tokens_per_s: Rate | None = None
    fault: Text | None = None
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    message: Text | None = None
    code: Text | None = None
    retry_after_s: Count | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answers for the requests that match: one for each, or `answers` one after the other.

    After the last of several `answers`, the rule gives that one again ("last"), begins again
    ("first"), or matches no more ("none").
    """

    match: Match = Match()
    name: Text | None = None
    answer: Answer | str | None = None
    answers: Annotated[list[Answer | str], Meta(min_length=1)] | None = None
    after: Literal["last", "first", "none"] = "last"

    @property
    def sequence(self) -> Sequence[Answer]:
        """The answers, in order."""
        given = self.answers or [self.answer or ""]
        return [one if isinstance(one, Answer) else Answer(text=one) for one in given]

    @property
    def counts(self) -> bool:
        """Whether what it answers depends on how often it has answered."""
        return len(self.sequence) > 1 or (self.answers is not None and self.after == "none")


class Script(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules in the order in which they are tried, and the pace of answers that have none.

    `answers` are counted apart for each value of the header `count_by`, if it is given.
    """

    rules: list[Rule]
    count_by: Text | None = None
    first_token_s: Seconds = 0
    tokens_per_s: Rate | None = None

    @property
    def names(self) -> Sequence[str]:
        """What the rules are called in messages."""
        return [rule.name or f"rule {number}" for number, rule in enumerate(self.rules, 1)]

    @property
    def counting(self) -> Sequence[str]:
        """The names of the rules that count."""
        return [name for name, rule in zip(self.names, self.rules, strict=True) if rule.counts]
