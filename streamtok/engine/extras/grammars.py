"""What a grammar lets a text go on with: masks over token ids, by the library llguidance.

A `Constraint` is compiled once, and what was compiled is kept for the next request that has the
same. Each sequence then has a `Guide`, which says what may come next and takes what was drawn. The
end of the text may come where the grammar is satisfied, and special tokens nowhere, unless a
grammar names them. A grammar from a stranger costs a bounded time: the library counts its work and
gives up, which is an error of that one request.

The library is the extra "structured". It is loaded for the first text that needs it, which takes
some 60 ms that nobody else waits for.
Read next: `streamtok.engine.verifier`, which asks for each position.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from importlib.util import find_spec
from threading import Lock
from time import thread_time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from streamtok.engine.extras.names import Names, QuoteTokens
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from streamtok.engine.sequence import Mask

MAX_CHARACTERS = 131072  # of a grammar; 2000 properties of an object take 0.3 s to compile
KEPT = 32  # compiled grammars
MAX_STATES = 25_000  # of a lexer, which grows with what it has seen: half a kilobyte each
CHEAP_S = 0.005  # of processor time, to compile a grammar anew for each text
DEAR_S = 0.1  # more than that is never spent where it would delay others
SHORT = 8192  # characters
TRIES = 64  # parts of a short schema that are compiled by themselves, to find the one that is wrong
# A model that may write white space anywhere may write it for ever.
SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
PARTS = ("properties", "patternProperties", "$defs", "definitions")  # of a schema, by name
ITEMS = ("anyOf", "allOf", "oneOf", "prefixItems")  # by number
PART = ("items", "additionalProperties")


class Vocabulary(Struct, frozen=True):
    """The tokens of a model: its `tokenizer.json`, how many ids have logits, which end a text."""

    tokenizer_json: str
    size: int
    stop_ids: frozenset[int]


def json_schema(schema: Mapping[str, Any], field: str, *, strict: bool = True) -> Constraint:
    """Return the constraint to JSON that `schema` describes.

    Where it is not `strict`, keywords that cannot be enforced are passed over.
    """
    options = SPACING | {"lenient": not strict}
    return Constraint("json_schema", json.dumps({**schema, "x-guidance": options}), field)


class Guide:
    """Where one sequence is in its grammar.

    Copies of a matcher share a lexer, and so the room for its states. One that is a copy is given
    how to `renew` it: with a lexer of its own, where the one it shares is used up.
    """

    def __init__(
        self,
        matcher: "LLMatcher",
        size: int,
        constraint: Constraint,
        renew: "Callable[[], LLMatcher | None] | None" = None,
        quotes: QuoteTokens | None = None,
    ) -> None:
        self._matcher = matcher
        self._size = size
        self._constraint = constraint
        self._renew = renew
        self._taken: list[int] = []
        self._quotes = quotes
        self._names = Names()

    def allowed(self, barred_ids: Collection[int] = ()) -> "Mask":
        """Return which tokens may come: without `barred_ids`, unless the grammar has no others.

        Nor do those come that give an object of JSON a name twice, unless there are no others.

        Raises:
            InvalidRequest: that is too hard to tell, or there is none.
        """
        import numpy as np  # the server compiles grammars too, and does without

        octets = self._matcher.compute_bitmask()
        if self._renewed():
            octets = self._matcher.compute_bitmask()
        self._check()
        bits = np.unpackbits(np.frombuffer(octets, np.uint8), bitorder="little")  # [V padded]
        mask: Mask = bits[: self._size].view(np.bool_)  # [V]
        if self._quotes and (repeating := self._names.repeating(self._quotes, mask)):
            left = mask.copy()  # [V]
            left[repeating] = False
            mask = left if left.any() else mask
        if barred_ids:
            left = mask.copy()  # [V]
            left[list(barred_ids)] = False
            mask = left if left.any() else mask
        if not mask.any():
            raise _wrong(
                self._constraint, "no token of the model goes on from here", "grammar_too_complex"
            )
        return mask

    def forced(self, most: int) -> tuple[int, ...]:
        """Return the next tokens, `most` at most, where the grammar leaves no choice."""
        return tuple(self._matcher.compute_ff_tokens()[:most]) if most > 0 else ()

    def take(self, token_id: int) -> bool:
        """Go on by a token that was allowed; return whether the text is complete with it.

        Raises:
            InvalidRequest: where that leads to is too hard to tell.
        """
        self._taken.append(token_id)
        if self._quotes:
            self._names.feed(self._quotes.bytes_of(token_id))
        self._matcher.consume_token(token_id)
        self._renewed()
        self._check()
        return self._matcher.is_stopped()

    def _renewed(self) -> bool:
        """Whether the matcher was at its end, and is now one that has not shared its room."""
        if self._renew is None or not self._matcher.is_error():
            return False
        fresh, self._renew = self._renew(), None
        if fresh is None:
            return False
        self._matcher = fresh
        self._matcher.consume_tokens(self._taken)
        return True

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = f"too complex: {_reason(self._matcher)}"
            raise _wrong(self._constraint, problem, "grammar_too_complex")


class Library:
    """What llguidance makes of one vocabulary.

    Raises:
        ImportError: it is not installed.
        ValueError: it cannot read the tokenizer.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        from llguidance import LLMatcher, LLParserLimits, LLTokenizer
        from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

        self._tokenizer = LLTokenizer(
            vocabulary.tokenizer_json,
            n_vocab=vocabulary.size,
            eos_token=sorted(vocabulary.stop_ids) or None,
        )
        self.quotes = QuoteTokens(
            lambda token: self._tokenizer.decode_bytes([token]), vocabulary.size
        )
        self.unreadable = GbnfToLarkError
        self._matcher = LLMatcher
        self._limits = LLParserLimits(verbose_errors=False, max_lexer_states=MAX_STATES)
        self._forms: dict[str, Callable[[str], str]] = {
            "json_schema": LLMatcher.grammar_from_json_schema,
            "lark": LLMatcher.grammar_from_lark,
            "regex": LLMatcher.grammar_from_regex,
            "gbnf": lambda text: LLMatcher.grammar_from_lark(any_to_lark(text)),
        }

    def compile(self, kind: str, text: str) -> "LLMatcher":
        """Return a matcher at the beginning of a text, or one that says what is wrong."""
        matcher = self._matcher(
            self._tokenizer, self._forms[kind](text), log_level=0, limits=self._limits
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # what is too complex to begin with is known now
        return matcher


class Grammars:
    """Compiles constraints to texts of one vocabulary; may be used by several threads.

    `compiler` is the thread to do it in, one for all, so that the engine keeps a processor.

    Raises:
        ImportError: the library is not installed.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        if find_spec("llguidance") is None:
            raise ImportError("llguidance is not installed")
        self._vocabulary = vocabulary
        # With the processor time each took, in seconds; the least recently used first
        self._kept: dict[tuple[str, str], tuple[LLMatcher, float]] = {}
        self._lock = Lock()
        self.compiler = ThreadPoolExecutor(1, "grammars")

    @cached_property
    def _library(self) -> Library:
        return Library(self._vocabulary)

    @property
    def can_read(self) -> bool:
        """Whether the library can read the vocabulary, which it is loaded to see."""
        try:
            return bool(self._library)
        except (ImportError, ValueError):
            return False

    def check(self, constraint: Constraint) -> None:
        """Compile `constraint`, which may take a few hundred milliseconds, unless that was done.

        Raises:
            InvalidRequest: it is wrong, cannot be met or is too large; says where.
        """
        if len(constraint.text) > MAX_CHARACTERS:
            problem = f"{len(constraint.text)} characters; at most {MAX_CHARACTERS} are supported"
            raise _wrong(constraint, problem, "grammar_too_large")
        if not self._vocabulary.stop_ids:
            raise _wrong(constraint, "this model has no token that ends a text", "invalid_grammar")
        try:
            library = self._library
        except (ImportError, ValueError) as error:  # a broken installation, or the tokenizer
            problem = f"llguidance cannot be used with this model: {error}"
            raise _wrong(constraint, problem, "unsupported_parameter") from error
        try:
            compiled, _ = self._compiled(constraint.kind, constraint.text)
        except library.unreadable as error:
            problem = " ".join(str(error).split())
            raise _wrong(constraint, problem, "invalid_grammar") from error
        if problem := _problem(compiled):
            place = ""
            if constraint.kind == "json_schema" and len(constraint.text) <= SHORT:
                place, problem = self._locate(json.loads(constraint.text), problem)
            raise _wrong(constraint, problem, "invalid_grammar", place)

    def start(self, constraint: Constraint) -> Guide:
        """Return a guide at the beginning of a text; see `check`.

        What is cheap is compiled anew, so that one text cannot depend on others.
        """
        self.check(constraint)
        kind, text = constraint.kind, constraint.text
        library, size = self._library, self._vocabulary.size
        quotes = library.quotes if kind == "json_schema" or constraint.field == "tools" else None
        compiled, cost_s = self._compiled(kind, text)
        if cost_s <= CHEAP_S:
            return Guide(library.compile(kind, text), size, constraint, quotes=quotes)
        renew = partial(self._replace, kind, text, cost_s)
        return Guide(compiled.deep_copy(), size, constraint, renew, quotes)

    def is_compiled(self, constraint: Constraint) -> bool:
        """Whether `check` takes no time."""
        return (constraint.kind, constraint.text) in self._kept

    def _compiled(self, kind: str, text: str) -> "tuple[LLMatcher, float]":
        """Return what was compiled of this grammar, now or before, and what it cost."""
        key = (kind, text)
        with self._lock:
            if known := self._kept.pop(key, None):
                self._kept[key] = known
                return known
        begun_s = thread_time()
        compiled = self._library.compile(kind, text), thread_time() - begun_s
        with self._lock:
            self._kept[key] = compiled
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return compiled

    def _replace(self, kind: str, text: str, cost_s: float) -> "LLMatcher | None":
        """Forget what is used up; return a matcher for one sequence, unless that is too dear."""
        with self._lock:
            self._kept.pop((kind, text), None)
        return self._library.compile(kind, text) if cost_s <= DEAR_S else None

    def _locate(self, schema: dict[str, Any], problem: str) -> tuple[str, str]:
        """Return the innermost part of `schema` that is wrong by itself, and how."""
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        options = {"x-guidance": schema["x-guidance"]}
        place, part, tries = "", schema, TRIES
        while True:
            for name, inner in _parts(part):
                tries -= 1
                alone = json.dumps({**shared, **inner, **options})
                found = _problem(self._library.compile("json_schema", alone))
                if found and not found.startswith("Pointer"):  # to what stands outside
                    place, part, problem = place + name, inner, found
                    break
                if not tries:
                    return place, problem
            else:
                return place, problem


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas right within `schema`, and where they stand."""
    named = [(f".{key}.{name}", inner) for key in PARTS for name, inner in _items(schema, key)]
    numbered = [
        (f".{key}[{number}]", inner)
        for key in ITEMS
        if isinstance(schema.get(key), list)
        for number, inner in enumerate(schema[key])
    ]
    single = [(f".{key}", schema.get(key)) for key in PART]
    yield from ((name, inner) for name, inner in named + numbered + single if _is_schema(inner))


def _items(schema: Mapping[str, Any], key: str) -> Collection[tuple[str, Any]]:
    value = schema.get(key)
    return value.items() if isinstance(value, dict) else ()


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict)


def _problem(matcher: "LLMatcher") -> str:
    """Return what is wrong with a grammar that was just compiled, if anything."""
    if not matcher.is_error():
        return ""
    problem = _reason(matcher)
    return "there is no text that it allows" if "NoExtension" in problem else problem


def _reason(matcher: "LLMatcher") -> str:
    """Return the library's message without its drawings: the first line, and what it ends in."""
    first, *others = matcher.get_error().splitlines()
    return " ".join([first, *(line for line in others if line.startswith("error: "))])


def _wrong(constraint: Constraint, problem: str, code: str, place: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"{constraint.field}{place}: {problem}", param=constraint.param, code=code
    )
