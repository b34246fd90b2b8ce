"""Grammars: what they let through is all that comes, under every load, with guesses and without."""

import json
import re
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from test_detokenizer import byte_level, sentencepiece
from test_prefixes import Bench, decoder, request, text
from tokenizers import Tokenizer as Backend

from streamtok.config import ServeConfig
from streamtok.engine.extras import grammars as module
from streamtok.engine.extras.grammars import (
    KEPT,
    MAX_CHARACTERS,
    Grammars,
    Guide,
    Vocabulary,
    json_schema,
)
from streamtok.errors import InvalidRequest
from streamtok.messages import Constraint, Event, Failed, Finished, SamplingParams, TokenEvent
from streamtok.testing import SPECIALS, byte_tokenizer
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.tokenizer import Tokenizer

FOX = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tails": {"type": "integer", "minimum": 1, "maximum": 9},
        "friends": {"type": "array", "items": {"enum": ["owl", "hare"]}, "maxItems": 2},
    },
    "required": ["name", "tails", "friends"],
    "additionalProperties": False,
}


def load(backend: Backend) -> Tokenizer:
    with TemporaryDirectory() as folder:
        backend.save(f"{folder}/tokenizer.json")
        return Tokenizer(Path(folder))


def shipped() -> Tokenizer:
    return Tokenizer(ServeConfig().model_folder)


TOKENIZERS: dict[str, Any] = {
    "bytes": lambda: load(byte_tokenizer()),
    "byte level": lambda: load(byte_level()),
    "byte fallback": lambda: load(sentencepiece()),
    "shipped": shipped,
}
ENDS = {"byte fallback": ("</s>",)}


def end_ids(kind: str, tokenizer: Tokenizer) -> frozenset[int]:
    names = ENDS.get(kind, ("<|endoftext|>", "<|end|>"))
    return frozenset(tokenizer.backend.token_to_id(name) for name in names)


@cache
def parts(kind: str) -> tuple[Tokenizer, Grammars]:
    tokenizer = TOKENIZERS[kind]()
    size = tokenizer.vocab + 3  # a model may have more ids than its tokenizer
    ids = end_ids(kind, tokenizer)
    return tokenizer, Grammars(Vocabulary(tokenizer.backend.to_str(), size, ids))


def regex(pattern: str) -> Constraint:
    return Constraint("regex", pattern, "grammar")


def lark(definition: str) -> Constraint:
    return Constraint("lark", definition, "grammar")


def walk(kind: str, constraint: Constraint, seed: int, most: int = 400) -> tuple[str, bool]:
    """Return a text made of tokens that are allowed, any of them, and whether it is complete.

    A grammar that may end ends.
    """
    tokenizer, grammars = parts(kind)
    guide, random, last = grammars.start(constraint), Random(seed), end_ids(kind, tokenizer)
    detokenizer, said = Detokenizers(tokenizer).make(), ""
    for _ in range(most):
        allowed = [int(token) for token in np.flatnonzero(guide.allowed())]
        ends = [token for token in allowed if token in last]
        assert not set(allowed) & tokenizer.special_ids - last
        assert max(allowed) < tokenizer.vocab
        if ends:
            assert guide.take(ends[0])
            return said + detokenizer.flush(), True
        token = random.choice(allowed)
        said += detokenizer.feed(token)
        if guide.take(token):
            return said + detokenizer.flush(), True
    return said, False


# What is allowed


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("seed", range(3))
def test_every_way_through_a_grammar_is_a_text_of_it(kind: str, seed: int) -> None:
    said, complete = walk(kind, json_schema(FOX, "response_format"), seed)
    assert complete
    assert set(json.loads(said)) == {"name", "tails", "friends"}
    Draft202012Validator(FOX).validate(json.loads(said))
    pattern = "(é|日本|[a-c]{2}){3}!"
    said, complete = walk(kind, regex(pattern), seed)
    assert complete
    assert re.fullmatch(pattern, said)
    said, complete = walk(kind, lark('start: "<" NAME "|" NAME ">"\nNAME: /[ab]{1,3}/'), seed)
    assert complete
    assert re.fullmatch(r"<[ab]{1,3}\|[ab]{1,3}>", said)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_end_comes_where_the_grammar_is_satisfied_and_nowhere_else(kind: str) -> None:
    tokenizer, grammars = parts(kind)
    guide = grammars.start(regex("a(b|ab)?"))
    ends = list(end_ids(kind, tokenizer))
    assert not guide.allowed()[ends].any()
    (token,) = tokenizer.encode("a", special=False)[-1:]
    if guide.allowed()[token]:
        assert not guide.take(token)
        assert guide.allowed()[ends].all()
        (token,) = tokenizer.encode("b", special=False)[-1:]
        assert guide.take(token)  # nothing can follow


def test_tokens_may_be_barred_as_long_as_there_are_others() -> None:
    _, grammars = parts("bytes")
    guide = grammars.start(regex("ab?"))
    a, b = byte_tokenizer().encode("ab", add_special_tokens=False).ids
    guide.take(a)
    assert set(np.flatnonzero(guide.allowed())) == {b, 256, 260}
    assert set(np.flatnonzero(guide.allowed({256, 260}))) == {b}
    assert set(np.flatnonzero(guide.allowed({b, 256}))) == {260}
    assert set(np.flatnonzero(guide.allowed({b, 256, 260}))) == {b, 256, 260}


def test_guides_of_one_grammar_do_not_disturb_each_other() -> None:
    _, grammars = parts("bytes")
    constraint = regex("[ab]c[de]")
    letters = {letter: byte_tokenizer().encode(letter).ids[-1] for letter in "abcde"}
    one, other = grammars.start(constraint), grammars.start(constraint)
    assert not one.take(letters["a"])
    assert set(np.flatnonzero(other.allowed())) == {letters["a"], letters["b"]}
    assert set(np.flatnonzero(one.allowed())) == {letters["c"]}


@pytest.mark.parametrize("cheap_s", [1.0, -1.0])
def test_sequences_do_not_use_up_each_other_s_room(
    cheap_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets as far, in a grammar whose automaton grows with every token."""
    monkeypatch.setattr(module, "MAX_STATES", 4000)
    monkeypatch.setattr(module, "CHEAP_S", cheap_s)
    tokenizer, _ = parts("shipped")
    ends = end_ids("shipped", tokenizer)
    grammars = Grammars(Vocabulary(tokenizer.backend.to_str(), 4096, ends))
    definition = "start: /(.|\\n)*a(.|\\n){2000}b/"
    lengths = [length_until_too_complex(grammars.start(lark(definition)), seed) for seed in (1, 2)]
    assert min(lengths) > 20


def length_until_too_complex(guide: Guide, seed: int) -> int:
    random = Random(seed)
    for length in range(400):
        try:
            guide.take(random.choice(np.flatnonzero(guide.allowed()).tolist()))
        except InvalidRequest as error:
            if "too complex: lexer error: too many states" not in error.message:
                raise
            return length
    raise AssertionError("it never was")


def test_a_tokenizer_that_the_library_cannot_read_is_named() -> None:
    """It is read for the first text that needs it, and not when a server starts."""
    grammars = Grammars(Vocabulary('{"model": "none"}', 261, frozenset({256})))
    assert not grammars.can_read
    with pytest.raises(InvalidRequest, match="cannot be used with this model: error loading"):
        grammars.check(regex("a"))
    grammars.compiler.shutdown()


def test_what_was_compiled_is_kept_for_a_while() -> None:
    grammars = Grammars(Vocabulary(byte_tokenizer().to_str(), 261, frozenset({256})))
    constraints = [regex(f"a{number}") for number in range(KEPT + 1)]
    for constraint in constraints[:-1]:
        assert not grammars.is_compiled(constraint)
        grammars.check(constraint)
    grammars.start(constraints[0])  # used again
    grammars.check(constraints[-1])
    kept = [constraint for constraint in constraints if grammars.is_compiled(constraint)]
    assert kept == [constraints[0], *constraints[2:]]
    grammars.compiler.shutdown()


# What is refused


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "wat"}, "schema: Invalid type: wat"),
        ({"enum": []}, "schema: Unsatisfiable"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength (5) is greater"),
        ({"$ref": "#"}, "schema: there is no text that it allows"),
        ({"$ref": "#/nope"}, "Pointer '/nope' does not exist"),
        ({"$ref": "https://example.com/x"}, "https://example.com/x"),
        ({"type": "array", "items": {"not": {}}}, 'schema.items: Unimplemented keys: ["not"]'),
        (
            {"properties": {"a": {"anyOf": [{"type": "null"}, {"if": {}}]}}},
            'schema.properties.a.anyOf[1]: Unimplemented keys: ["if"]',
        ),
        (
            {"$defs": {"x": {"uniqueItems": True}}, "items": {"$ref": "#/$defs/x"}},
            'schema.$defs.x: Unimplemented keys: ["uniqueItems"]',
        ),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "incompatible types"),
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_met_is_refused_with_the_place(
    schema: dict[str, Any], words: str
) -> None:
    _, grammars = parts("bytes")
    with pytest.raises(InvalidRequest) as caught:
        grammars.check(json_schema(schema, "response_format.json_schema.schema"))
    assert caught.value.message.startswith("response_format.json_schema.schema")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_grammar")


def test_what_cannot_be_enforced_is_passed_over_unless_strict() -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}
    _, grammars = parts("bytes")
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        grammars.check(json_schema(schema, "x"))
    said, complete = walk("bytes", json_schema(schema, "x", strict=False), 1)
    assert complete
    assert set(json.loads(said)) <= {1, 2}


def test_a_schema_cannot_change_how_it_is_read() -> None:
    schema = {"x-guidance": {"item_separator": "!", "lenient": True}, "uniqueItems": True}
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        parts("bytes")[1].check(json_schema(schema, "x"))


@pytest.mark.parametrize(
    ("constraint", "code"),
    [
        (lark("start: nobody"), "invalid_grammar"),
        (lark("nonsense"), "invalid_grammar"),
        (regex("(a"), "invalid_grammar"),
        (regex("a" * (MAX_CHARACTERS + 1)), "grammar_too_large"),
        # Too large once they are multiplied out, or looked at
        (
            json_schema(
                {
                    "allOf": [
                        {"anyOf": [{"properties": {f"p{i}{j}": {"type": "null"}}} for j in (1, 2)]}
                        for i in range(16)
                    ]
                },
                "x",
            ),
            "invalid_grammar",
        ),
        (
            lark(
                "start: A\nA: /(?s:.*)/ "
                + "".join(f"& ~/(?s:.*)[a-c]{{{i}}}x(?s:.*)/" for i in range(1, 40))
            ),
            "invalid_grammar",
        ),
    ],
    ids=["name", "syntax", "regex", "size", "product", "automaton"],
)
def test_a_grammar_that_is_wrong_or_too_large_is_refused(constraint: Constraint, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parts("shipped")[1].check(constraint)
    assert caught.value.code == code


def test_a_model_without_an_end_has_no_grammars() -> None:
    vocabulary = Vocabulary(byte_tokenizer().to_str(), 261, frozenset())
    with pytest.raises(InvalidRequest, match="no token that ends"):
        Grammars(vocabulary).check(regex("a"))


# In the engine

SCHEMAS = [
    json_schema(FOX, "response_format"),
    regex("(ab|ba){3,9}x"),
    lark('start: item ("," item)*\nitem: /[a-c]{2}/'),
    None,
]


@cache
def alone(index: int, seed: int, temperature: float, least: int) -> tuple[Event, ...]:
    return tuple(ends(bench(1, 1).run("a", asked(index, seed, temperature, least))))


def bench(streams: int, tile: int) -> Bench:
    made = Bench(decoder(), streams, 0, 1000, tile)
    made.grammars = parts_of_tiny()
    return made


@cache
def parts_of_tiny() -> Grammars:
    return Grammars(
        Vocabulary(byte_tokenizer().to_str(), 256 + len(SPECIALS), frozenset({256, 260}))
    )


def asked(index: int, seed: int, temperature: float, least: int = 0, **options: Any) -> Any:
    sampling = SamplingParams(temperature=temperature, seed=seed, top_logprobs=2)
    return request(
        text(seed, 12),
        index=index,
        sampling=sampling,
        max_tokens=60,
        stop_ids=frozenset({256, 260}),
        min_tokens=least,
        constraint=SCHEMAS[index],
        **options,
    )


def ends(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, TokenEvent | Finished | Failed)]


def said(events: Any) -> str:
    return load(byte_tokenizer()).decode([e.token_id for e in events if isinstance(e, TokenEvent)])


@examples(12)
@given(
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 0.8]),
    least=st.sampled_from([0, 25]),
    tile=st.sampled_from([1, 4, 8]),
)
def test_tokens_are_the_same_among_others_and_with_guesses(
    seed: int, temperature: float, least: int, tile: int
) -> None:
    together = bench(4, tile)
    together.run("a", *(asked(index, seed, temperature, least) for index in range(4)))
    guessed = bench(1, 8)
    for index in range(4):
        expected = list(alone(index, seed, temperature, least))
        assert ends(together.told["a", index]) == expected
        assert ends(guessed.run(f"{index}", asked(index, seed, temperature, least))) == expected
    for index in (1, 2):
        end = alone(index, seed, temperature, least)[-1]
        assert isinstance(end, Finished)
        assert end.generated >= least or index == 1  # whose last letter lets nothing follow
        if end.reason == "stop":
            pattern = ("(ab|ba){3,9}x", "[a-c]{2}(,[a-c]{2})*")[index - 1]
            assert re.fullmatch(pattern, said(alone(index, seed, temperature, least)))


def test_guesses_save_steps_in_a_grammar_too() -> None:
    steps = {}
    for tile in (1, 4):
        made = bench(1, tile)
        constraint = regex("(abcdefgh){6}")
        made.scheduler.add("a", [replace(asked(3, 1, 0.0), constraint=constraint)])
        steps[tile] = 0
        while made.scheduler.running or made.scheduler.waiting:
            steps[tile] += bool(made.step().works)
        assert said(made.told["a", 3]) == "abcdefgh" * 6
        assert made.told["a", 3][-1] == Finished(3, "stop", 48)
    assert steps == {1: 48, 4: 13}  # after the first letter nothing is left to choose


def test_an_end_in_the_prompt_is_guessed_and_ends_the_text_once() -> None:
    ids = (*byte_tokenizer().encode("ab", add_special_tokens=False).ids, 256, 65, 66) * 3
    asking = replace(
        asked(3, 1, 0.0), prompt_ids=ids[:-3], constraint=regex("ab|abc"), min_tokens=0
    )
    biased = replace(asking.sampling, logit_bias=((256, 100.0),))
    events = bench(1, 4).run("a", replace(asking, sampling=biased))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, said(events)) == ("stop", "ab")
    assert end.stop is not None
    assert end.stop.token_id == 256


def test_biases_and_penalties_do_not_get_past_a_grammar() -> None:
    sampling = SamplingParams(
        temperature=0.0,
        logit_bias=((120, 100.0),),  # not allowed
        presence_penalty=2.0,
        repetition_penalty=5.0,
    )
    events = bench(1, 1).run("a", replace(asked(1, 2, 0.0), sampling=sampling))
    assert re.fullmatch("(ab|ba){3,9}x", said(events))


def test_a_grammar_that_gets_too_complex_ends_its_own_sequence_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = InvalidRequest("grammar: too complex", param="grammar", code="grammar_too_complex")
    taken = []

    def take(guide: Guide, token_id: int) -> bool:
        if guide._constraint == SCHEMAS[1] and len(taken) > 5:
            raise error
        taken.append(token_id)
        return original(guide, token_id)

    original = Guide.take
    monkeypatch.setattr(Guide, "take", take)
    made = bench(4, 1)
    made.run("a", *(asked(index, 1, 0.0) for index in range(4)))
    end = made.told["a", 1][-1]
    assert isinstance(end, Failed)
    assert end.error is error
    for index in (0, 2, 3):
        assert ends(made.told["a", index]) == list(alone(index, 1, 0.0, 0))


def test_log_probabilities_are_the_model_s_own() -> None:
    """Those that the unconstrained model gives to the same tokens, when it scores a prompt."""
    events = bench(1, 1).run("a", asked(1, 3, 0.7))
    drawn = [event for event in events if isinstance(event, TokenEvent)]
    ids = [event.token_id for event in drawn]
    forced = Bench(decoder(), 1, 0, 1000)
    for place, event in enumerate(drawn):
        prompt = (*text(3, 12), *ids[:place])
        (got,) = [
            e
            for e in forced.run(f"{place}", request(prompt, max_tokens=1))
            if isinstance(e, TokenEvent)
        ]
        assert got.logprobs is not None
        assert event.logprobs is not None
        assert got.logprobs.top == event.logprobs.top
