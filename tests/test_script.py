"""Scripted answers: what clients of each API get, and what is wrong in a script."""

import asyncio
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from documents import blocks, help_page
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok import cli
from streamtok.engine.commands import HIGH_WATER, EngineInfo
from streamtok.errors import ConfigError
from streamtok.messages import Event, Finished, SamplingParams, SequenceRequest, TokenEvent
from streamtok.script.engine import Pause, ScriptEngine
from streamtok.script.files import make, read
from streamtok.script.lines import Line, SpanReader, spans
from streamtok.script.matching import Asked, differences
from streamtok.script.rules import Answer, Call, Match
from streamtok.testing import FakeClock, Models, TestedServer, fresh_server

CITIES = ("Oslo", "Rome")
CALLS = [{"name": "get_weather", "arguments": {"city": city}} for city in CITIES]
AGENT: tuple[dict[str, Any], ...] = (
    {
        "match": {"turn": 1, "contains": "weather", "tools": ["get_weather"]},
        "answer": {"text": "Let me look.", "tool_calls": CALLS},
    },
    {"match": {"turn": 2, "role": "tool"}, "answer": "Rain in Oslo, sun in Rome: 🦊"},
)
LAST = AGENT[1]["answer"]
QUESTION = "How is the weather in Oslo and Rome?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HI: Any = [{"role": "user", "content": "Hi"}]


def weather(city: str) -> str:
    """The tool of the agent."""
    return f"{len(city)} mm in {city}"


RESULTS = [weather(city) for city in CITIES]


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[TestedServer]:
    with fresh_server(["--model", str(tiny_model)], Models()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TestedServer) -> openai.OpenAI:
    return server.client()


def ask(client: openai.OpenAI, text: str = "Hi", **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="gpt-4o", messages=messages, **options)


def said(client: openai.OpenAI, text: str = "Hi", **options: Any) -> str | None:
    content: str | None = ask(client, text, **options).choices[0].message.content
    return content


# An agent in each dialect


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_of_chats(server: TestedServer, client: openai.OpenAI, streamed: bool) -> None:
    script = server.script(*AGENT)
    tool: Any = {
        "type": "function",
        "function": {"name": "get_weather", "parameters": PARAMETERS},
    }

    def turn(messages: Any) -> Any:
        options: Any = {"model": "gpt-4o", "messages": messages, "tools": [tool]}
        if not streamed:
            return client.chat.completions.create(**options).choices[0]
        with client.chat.completions.stream(**options) as stream:
            return stream.get_final_completion().choices[0]

    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    first = turn(messages)
    assert (first.finish_reason, first.message.content) == ("tool_calls", "Let me look.")
    messages.append(first.message.model_dump(exclude_none=True))
    for call in first.message.tool_calls:
        result = weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    last = turn(messages)
    assert (last.finish_reason, last.message.content) == ("stop", LAST)
    seen = [m["content"] for m in script.calls[1].body["messages"] if m["role"] == "tool"]  # type: ignore[index, attr-defined]
    assert seen == RESULTS


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
def test_an_agent_of_responses(
    server: TestedServer, client: openai.OpenAI, streamed: bool, by_id: bool
) -> None:
    script = server.script(*AGENT)
    tool: Any = {
        "type": "function",
        "name": "get_weather",
        "parameters": PARAMETERS,
        "strict": False,
    }

    def turn(given: Any, before: str | None = None) -> Any:
        more: dict[str, Any] = {"previous_response_id": before} if before else {}
        options: Any = {"model": "gpt-5", "input": given, "tools": [tool], **more}
        if not streamed:
            return client.responses.create(**options)
        with client.responses.stream(**options) as stream:
            return stream.get_final_response()

    first = turn(QUESTION)
    assert first.output_text == "Let me look."
    calls = [item for item in first.output if item.type == "function_call"]
    results = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": weather(**json.loads(call.arguments)),
        }
        for call in calls
    ]
    asked = [{"role": "user", "content": QUESTION}]
    sent = [item.model_dump(exclude_none=True) for item in first.output]
    for item in sent:
        item.pop("parsed_arguments", None)
    last = turn(results, first.id) if by_id else turn([*asked, *sent, *results])
    assert (last.status, last.output_text, last.model) == ("completed", LAST, "gpt-5")
    assert [call.rule for call in script.calls] == ["rule 1", "rule 2"]
    assert script.calls[1].asked.text == RESULTS[1]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_of_messages(server: TestedServer, streamed: bool) -> None:
    server.script(*AGENT)
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:

        def turn(messages: Any) -> Any:
            options: Any = {
                "model": "claude-test",
                "messages": messages,
                "tools": [tool],
                "max_tokens": 1000,
            }
            if not streamed:
                return client.messages.create(**options)
            with client.messages.stream(**options) as stream:
                return stream.get_final_message()

        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        first = turn(messages)
        assert first.stop_reason == "tool_use"
        assert first.content[0].text == "Let me look."
        results = [
            {
                "type": "tool_result",
                "tool_use_id": block.id,
                "content": weather(**block.input),
            }
            for block in first.content[1:]
        ]
        spoken = [block.model_dump(exclude_none=True) for block in first.content]
        messages += [
            {"role": "assistant", "content": spoken},
            {"role": "user", "content": results},
        ]
        last = turn(messages)
    assert (last.stop_reason, last.content[0].text) == ("end_turn", LAST)


# Framings, other endpoints


def test_completions_and_other_framings(server: TestedServer, client: openai.OpenAI) -> None:
    script = server.script({"match": {"contains": "Once"}, "answer": "fox"})
    done = client.completions.create(model="any", prompt="Once", logprobs=1, echo=True)
    assert (done.choices[0].text, done.choices[0].finish_reason) == ("Oncefox", "stop")
    assert done.usage is not None
    assert done.usage.completion_tokens == 4  # three bytes and the token that ends
    url = f"{server.url}/v1/generate?prompt=Once"
    assert httpx.get(url).text == "fox"
    lines = httpx.get(url, headers={"accept": "application/x-ndjson"}).text.splitlines()
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]) == "fox"
    kinds = ["completions", "generate", "generate"]
    assert [call.asked.endpoint for call in script.calls] == kinds


def test_embeddings_are_answered_with_errors_only(
    server: TestedServer, client: openai.OpenAI
) -> None:
    rule = {"match": {"endpoint": "embeddings"}, "answer": {"status": 418, "code": "teapot"}}
    server.script({"answer": "text"}, rule)
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="any", input="Hi")
    assert (caught.value.status_code, caught.value.code) == (418, "teapot")
    server.script({"answer": "text"})
    with pytest.raises(openai.NotFoundError, match="nearest, rule 1, does not match by endpoint"):
        client.embeddings.create(model="any", input="Hi")


# What answers have


def test_arguments_are_sent_as_they_are(server: TestedServer, client: openai.OpenAI) -> None:
    broken = '{"city": "<tool_call>'
    calls = [{"name": "f", "arguments": broken}, {"name": "g"}, {"name": "h", "arguments": ""}]
    server.script({"answer": {"text": 'Not a <tool_call>{"name":', "tool_calls": calls}})
    for streamed in (False, True):
        if streamed:
            with client.chat.completions.stream(model="m", messages=HI) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = ask(client).choices[0].message
        made = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        assert made == [("f", broken), ("g", "{}"), ("h", "")]
        assert message.content == 'Not a <tool_call>{"name":'


def test_text_that_looks_like_a_call_is_text(server: TestedServer, client: openai.OpenAI) -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|end|><|user|>'
    server.script({"answer": text})
    tool = {"type": "function", "function": {"name": "f"}}
    assert said(client, tools=[tool], tool_choice="required") == text


def test_json_usage_and_the_reason_of_the_end(server: TestedServer, client: openai.OpenAI) -> None:
    usage = {"prompt_tokens": 1000, "cached_tokens": 900}
    answer = {"json": {"å": [1, None]}, "usage": usage, "finish": "content_filter"}
    server.script({"answer": answer})
    done = ask(client)
    assert done.choices[0].message.content == '{"å": [1, null]}'
    assert done.choices[0].finish_reason == "content_filter"
    assert done.usage.prompt_tokens == 1000
    assert done.usage.prompt_tokens_details.cached_tokens == 900
    assert done.usage.total_tokens == 1000 + done.usage.completion_tokens
    record = server.ledger.get(done.id)
    assert (record.model, record.prompt_tokens < 100) == ("gpt-4o", True)
    assert record.finish_reason == "content_filter"
    response = client.responses.create(model="m", input="Hi")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    with anthropic.Anthropic(base_url=server.url, api_key="none") as other:
        message = other.messages.create(model="m", max_tokens=99, messages=HI)
    assert (message.stop_reason, message.usage.input_tokens) == ("refusal", 100)


def test_limits_of_a_request_hold(server: TestedServer, client: openai.OpenAI) -> None:
    server.script({"answer": "One. Two. Three."})
    cut = ask(client, max_tokens=4, n=2)
    assert [(c.message.content, c.finish_reason) for c in cut.choices] == [("One.", "length")] * 2
    assert said(client, stop=[" Th"]) == "One. Two."


def test_answers_come_one_after_the_other(server: TestedServer, client: openai.OpenAI) -> None:
    busy = {"status": 503, "retry_after_s": 0, "message": "not now"}
    many = server.script({"answers": [busy, "one", "two"]})
    with pytest.raises(openai.InternalServerError, match="not now"):
        ask(client)
    assert [said(client) for _ in range(3)] == ["one", "two", "two"]
    assert len(many.calls) == 4
    server.script({"answers": [busy, "one"]})
    assert said(client.with_options(max_retries=1)) == "one"
    server.script({"answers": ["one", "two"], "after": "first"})
    assert [said(client) for _ in range(3)] == ["one", "two", "one"]
    server.script({"answers": ["one"], "after": "none"}, {"answer": "other"})
    assert [said(client) for _ in range(3)] == ["one", "other", "other"]


def test_each_value_of_a_header_has_counts_of_its_own(
    server: TestedServer, client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "script.json"
    path.write_text(
        json.dumps({"count_by": "X-Test", "rules": [{"answers": ["one", "two"], "after": "none"}]})
    )
    server.script(path)
    for text in ("one", "two"):
        for case in ("a", "b"):
            assert said(client, extra_headers={"x-test": case}) == text
    with pytest.raises(openai.NotFoundError, match="rule 1, has given all its answers"):
        ask(client, extra_headers={"x-test": "a"})


def test_no_engine_dies_for_an_answer_of_a_script(server: TestedServer) -> None:
    server.script({"answer": "abc"})
    answer = server.raw({"messages": HI}, headers=server.fault("engine-death"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"engine-death needs an answer of the model's: a script answers this one" in answer


def test_a_fault_and_one_that_is_asked_for(server: TestedServer, client: openai.OpenAI) -> None:
    server.script({"match": {"stream": True}, "answer": {"text": "abc", "fault": "error;at=2"}})
    body = {"messages": HI, "stream": True}
    answer = server.raw(body, headers=server.fault("done-missing"))
    assert b'"content":"b"' in answer
    assert b"this error was asked for" in answer
    assert b"[DONE]" not in answer


def test_what_no_rule_matches(server: TestedServer, client: openai.OpenAI) -> None:
    rule = {"name": "greet", "match": {"contains": "Hello", "turn": 2}, "answer": "Hi"}
    script = server.script(rule)
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "Hello there", stream=True)
    assert caught.value.code == "no_rule"
    for part in ("model 'gpt-4o'", "turn 1", "'Hello there'", "no tools", "streamed", "greet"):
        assert part in caught.value.message
    assert caught.value.message.count("does not match by turn") == 1
    assert [call.rule for call in script.calls] == [None]
    server.script(rule, only=False)
    with pytest.raises(openai.NotFoundError, match="'gpt-4o' does not exist"):
        ask(client)
    more = {"ignore_eos": True}
    own = client.chat.completions.create(model="tiny", messages=HI, max_tokens=2, extra_body=more)
    assert own.usage is not None
    assert (own.usage.completion_tokens, own.model) == (2, "tiny")


def test_long_prompts_need_no_model(server: TestedServer, client: openai.OpenAI) -> None:
    server.script({"answer": "yes"})
    assert said(client, "long " * 1000) == "yes"
    server.script({"answer": "yes"}, only=False)
    with pytest.raises(openai.BadRequestError, match="context"):
        ask(client, "long " * 1000)


# Matching

ASKED = Asked(
    endpoint="chat",
    model="gpt-4o-mini",
    text="The weather in Oslo",
    role="user",
    system="Be brief.",
    results=["9 mm", "3 mm"],
    tools=["get_weather", "search"],
    turn=2,
    headers={"x-case": "a-1"},
    stream=True,
)


@pytest.mark.parametrize(
    ("key", "holding", "failing"),
    [
        ("endpoint", ["chat", ["messages", "chat"]], ["messages", ["responses"]]),
        ("model", ["gpt-4o-mini", "gpt-*", ["x", "*mini"]], ["gpt", "GPT-*", ["a", "b"]]),
        ("contains", ["weather", ["Oslo", "The"]], ["Weather", ["Oslo", "Rome"]]),
        ("regex", ["W?eath", "(?i)OSLO$"], ["^weather"]),
        ("role", ["user"], ["tool"]),
        ("system", ["brief", ["Be", "brief"]], ["long"]),
        ("tool_results", ["9", ["3 mm", "9 mm"]], ["8", ["9", "8"], []]),
        ("tools", [["search"], ["search", "get_weather"]], [["other"], ["search", "other"], []]),
        ("turn", [2], [1]),
        ("headers", [{"X-Case": "a-*"}], [{"x-case": "a"}, {"x-other": "?*"}]),
        ("stream", [True], [False]),
    ],
)
def test_a_key_holds_or_does_not(key: str, holding: list[Any], failing: list[Any]) -> None:
    assert all(not list(differences(Match(**{key: value}), ASKED)) for value in holding)
    assert all(list(differences(Match(**{key: value}), ASKED)) == [key] for value in failing)


# The reader, however a text is cut


@examples(50)
@given(
    st.text(max_size=5),
    st.lists(st.text(max_size=5), min_size=1, max_size=3),
    st.lists(st.integers(1, 9), max_size=30),
)
def test_calls_are_read_however_the_text_is_cut(
    text: str, arguments: list[str], cuts: list[int]
) -> None:
    parts = spans(Answer(text=text, tool_calls=[Call("f", one) for one in arguments]))
    whole, reader = "".join(part.text for part in parts), SpanReader(parts)
    content, read_arguments, names = "", dict.fromkeys(range(len(arguments)), ""), []
    for cut in (*cuts, len(whole) + 1):
        piece, whole = whole[:cut], whole[cut:]
        more, calls = reader.feed(piece)
        content += more
        for call in calls:
            names += [call.number] * bool(call.name)
            assert call.number in names
            read_arguments[call.number] += call.arguments
    assert (content, list(read_arguments.values())) == (text, arguments)
    assert (names, reader.made) == ([*range(len(arguments))], len(arguments))


# The engine

INFO = EngineInfo(context=1000, vocab=300, width=1, streams=2, room=3, fingerprint="f", exact=False)


def sequence(index: int = 0, **changes: Any) -> SequenceRequest:
    values: dict[str, Any] = {"max_tokens": 500, "stop_ids": frozenset({260})}
    return SequenceRequest(index, (1, 2), SamplingParams(), **values | changes)


def line(count: int, **changes: Any) -> Line:
    values: dict[str, Any] = {"finish": "stop", "first_token_s": 0, "tokens_per_s": None}
    return Line(tuple(range(count)), (), **values | changes)


async def test_tokens_come_at_their_pace() -> None:
    clock, times = FakeClock(), []

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    engine = ScriptEngine(INFO, None, Pause(clock.monotonic_s, sleep))
    voice = engine.saying(line(3, first_token_s=2, tokens_per_s=4), "f")
    events: list[Event] = []
    voice_stream = voice.submit("a", [sequence()])
    put = voice_stream.put

    def note(event: Event) -> None:
        times.append((type(event).__name__, clock.monotonic_s()))
        put(event)

    voice_stream.put = note
    events = [event async for event in voice_stream if isinstance(event, Event)]
    assert times == [
        ("Started", 0),
        ("Prefilled", 2),
        ("TokenEvent", 2),
        ("TokenEvent", 2.25),
        ("TokenEvent", 2.5),
        ("Finished", 2.75),
    ]
    assert events[-1] == Finished(0, "stop", 4, TokenEvent(0, 260))


async def test_who_does_not_read_stops_the_engine_and_who_leaves_ends_it() -> None:
    engine = ScriptEngine(INFO, None)
    stream = engine.saying(line(500), "f").submit("a", [sequence()])
    for _ in range(50):
        await asyncio.sleep(0)
    assert stream.unread == HIGH_WATER
    assert engine.stats().running == 1
    events = [await anext(stream) for _ in range(200)]
    assert len(events) == 200
    engine.cancel("a")
    last = [event async for event in stream][-1]
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"
    assert engine.stats().running == 0
    engine.cancel("a")  # again, it does nothing


async def test_closing_ends_what_runs() -> None:
    engine = ScriptEngine(INFO, None)
    stream = engine.saying(line(9, first_token_s=1000), "f").submit("a", [sequence()])
    await asyncio.sleep(0)
    await engine.close()
    assert "stopping" in str([event async for event in stream][-1])


# Files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules = 3", "expected a list of rules under the key rules"),
        ("rules = [3]", "rule 1 must be a table"),
        ("[[rules]]", "rule 1: expected one of answer and answers"),
        ("pace = 3\nrules = []", "pace: unknown field `pace`"),
        ("tokens_per_s = 0\nrules = []", "tokens_per_s must be between 0.001 and 1000000 (got 0)"),
        ('[[rules]]\nname = "a"\nanswr = "x"', "rule 1 (a): answr: unknown field `answr`; did you"),
        (
            '[[rules]]\nanswer = "x"\n[[rules]]\nanswer = "x"\nmatch = { contians = "x" }',
            "rule 2: match: unknown field `contians`; did you mean `contains`?",
        ),
        ('[[rules]]\nanswer = "x"\nmatch = { turn = "1" }', "match.turn must be an integer"),
        (
            '[[rules]]\nanswer = "x"\nmatch = { endpoint = "chats" }',
            "match.endpoint must be 'chat'",
        ),
        ('[[rules]]\nanswer = "x"\nmatch = { regex = "(" }', "rule 1: match.regex: missing )"),
        ("[[rules]]\nanswer = {}", "answer.text: expected text, json, tool_calls or status"),
        ('[[rules]]\nanswer = "x"\nanswers = ["x"]', "expected one of answer and answers"),
        ('[[rules]]\nanswer = "x"\nafter = "none"', "after: only for answers"),
        ('[[rules]]\nanswers = ["x", { status = 200 }]', "answers[1].status must be between 400"),
        ('[[rules]]\nanswer = { status = 503, text = "x" }', "answer.text: an error, which has"),
        ('[[rules]]\nanswer = { text = "x", code = "x" }', "answer.code: only an error"),
        ('[[rules]]\nanswer = { text = "x", json = 1 }', "answer.json: there is a text already"),
        (
            '[[rules]]\nanswer = { text = "x", fault = "stahl" }',
            "answer.fault: there is no fault 'stahl'",
        ),
        (
            '[[rules]]\nanswer = { text = "x", fault = "bom, engine-death" }',
            "answer.fault: engine-death needs an answer of the model's",
        ),
        (
            '[[rules]]\nanswer = { tool_calls = [{ name = "a b" }] }',
            "answer.tool_calls[0].name must",
        ),
        (
            '[[rules]]\nanswer = "x"\nmatch = { endpoint = "embeddings" }',
            "answer: embeddings can only be answered with a status",
        ),
        ("[[rules", "Expected ']]'"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_json_is_read_too_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"rules": [{"answer": {"json": {"a": None}}}]}))
    assert read(path).rules[0].sequence[0].json == {"a": None}
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--script-only"], "--script-only needs --script"),
        (["--script", "{}", "--workers", "2"], "script.toml: rule 2: answers: with several"),
        (["--script", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_wrong_settings(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script.toml"
    path.write_text("rules = [{ answer = 'a' }, { answers = ['a', 'b'] }]")
    given = [flag.format(path) for flag in flags]
    assert cli.main(["serve", "--port", "0", "--ledger", str(tmp_path / "books"), *given]) == 2
    assert words in capsys.readouterr().err


def test_serve_reads_the_file_and_needs_no_weights(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text('[[rules]]\nanswer = "from a file"')
    bare = tmp_path / "bare"
    bare.mkdir()
    for one in tiny_model.iterdir():
        if one.suffix == ".json":
            (bare / one.name).write_bytes(one.read_bytes())
    flags = ["--model", str(bare), "--script", str(path), "--script-only"]
    with fresh_server(flags, Models()) as running:
        assert said(running.client()) == "from a file"
        with pytest.raises(openai.NotFoundError, match="no rule"):
            running.client().embeddings.create(model="m", input="x")


# The help


def test_the_file_in_the_help_is_a_script(server: TestedServer, client: openai.OpenAI) -> None:
    text = next(block for kind, block in blocks(help_page("script")) if kind == "toml")
    rules = tomllib.loads(text)["rules"]
    server.script(*rules)
    assert said(client.with_options(max_retries=1), "hello") == "Hello! How can I help?"
    assert len(make({"rules": rules}, "").rules) == 3


def test_every_key_is_in_the_help(server: TestedServer) -> None:
    page = help_page("script")
    for kind in (Match, Answer, Call):
        assert [key for key in kind.__struct_fields__ if f"`{key}`" not in page] == []


def test_the_example_in_the_help_passes(server: TestedServer) -> None:
    code = next(block for kind, block in blocks(help_page("script")) if kind == "python")
    defined: dict[str, Any] = {}
    exec(code, defined)
    (test,) = (value for name, value in defined.items() if name.startswith("test_"))
    test(server)
