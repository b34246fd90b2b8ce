"""The first token of an answer continues the prompt: its space is there in every endpoint.

The model has a tokenizer like Llama 2's, whose decoder drops the space that a text begins with.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from shapes import normalising
from tokenizers import processors

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.http.request import Request
from streamtok.model.load import load
from streamtok.testing import FakeClock, chunks, local_engine, make_services, write_model
from streamtok.text.tokenizer import Tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, backend = tmp_path_factory.mktemp("spaces"), normalising()
    write_model(path, vocab_size=backend.get_vocab_size())
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    backend.save(str(path / "tokenizer.json"))
    (path / "generation_config.json").write_text('{"eos_token_id": 2}')
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
async def api(folder: Path) -> AsyncIterator[Api]:
    decoder, tokenizer = load(folder), Tokenizer(folder)
    vocabulary = Vocabulary(tokenizer.backend.to_str(), decoder.config.vocab, tokenizer.stop_ids)
    grammars = Grammars(vocabulary)
    engine = local_engine(decoder, EngineConfig(max_streams=4), grammars)
    services = make_services(folder, engine, FakeClock(), grammars=grammars)
    api = Api(ROUTES)
    api.open(services)
    yield api
    await engine.close()
    await services.meter.close()


def saying(folder: Path, *pieces: str) -> dict[str, Any]:
    """Return what makes the model say only these tokens, the first of them most of all."""
    backend = Tokenizer(folder).backend
    bias = {backend.token_to_id(piece): 100 - index for index, piece in enumerate(pieces)}
    return {"logit_bias": {str(token): value for token, value in bias.items()}, "temperature": 0}


async def ask(api: Api, body: dict[str, Any], path: str = COMPLETIONS) -> Any:
    data = json.dumps({"max_tokens": 2} | body).encode()
    response = await api.handle(Request("POST", path, (), data, "1.1", "test"))
    if isinstance(response.body, bytes):
        return json.loads(response.body)
    return b"".join([part async for part in chunks(response)])


async def texts(api: Api, body: dict[str, Any]) -> list[str]:
    """Return the texts of a completion, and check that they are the same when streamed."""
    answer = await ask(api, body)
    found = [choice["text"] for choice in answer["choices"]]
    events = (await ask(api, body | {"stream": True})).decode().split("\n\n")
    streamed = [""] * len(found)
    for event in events[:-2]:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == found
    return found


async def test_a_completion_begins_with_a_space(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a")
    assert await texts(api, body | {"prompt": "ab"}) == [" a a"]
    assert await texts(api, body | {"prompt": "ab", "echo": True}) == ["ab a a"]
    assert await texts(api, body | {"prompt": [4 + 255], "echo": True}) == [" a a"]


async def test_each_of_a_batch_has_its_own_prompt(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"prompt": ["ab", "", "b b"], "n": 2}
    assert await texts(api, body) == [" a a", " a a", "a a", "a a", " a a", " a a"]
    echoed = ["ab a a"] * 2 + ["a a"] * 2 + ["b b a a"] * 2
    assert await texts(api, body | {"echo": True}) == echoed


async def test_tokens_of_a_prompt_have_the_same_text(api: Api, folder: Path) -> None:
    ids = list(Tokenizer(folder).encode("ab a", special=True))
    body = saying(folder, "▁a") | {"prompt": ids, "echo": True}
    assert await texts(api, body) == ["ab a a a"]


async def test_a_character_that_the_prompt_begins_ends_in_the_answer(
    api: Api, folder: Path
) -> None:
    """The prompt's ids end with the first byte of "é", and the model goes on with the other."""
    ids = [*Tokenizer(folder).encode("ab", special=True), 3 + 0xC3]
    body = saying(folder, "<0xA9>") | {"prompt": ids, "max_tokens": 1}
    assert await texts(api, body) == ["é"]
    assert await texts(api, body | {"echo": True}) == ["abé"]
    other = saying(folder, "▁a") | {"prompt": ids, "max_tokens": 1}
    assert await texts(api, other) == [" a"]
    assert await texts(api, other | {"echo": True}) == ["ab\ufffd a"]
    assert await texts(api, other | {"echo": True, "max_tokens": 0}) == ["ab\ufffd"]


async def test_offsets_count_the_space(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"prompt": "ab b", "echo": True, "logprobs": 0}
    (choice,) = (await ask(api, body))["choices"]
    assert choice["text"] == "ab b a a"
    assert choice["logprobs"]["text_offset"][-2:] == [4, 6]
    assert choice["logprobs"]["tokens"][-2:] == [" a", " a"]


async def test_a_stop_string_may_begin_with_a_space(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"prompt": "ab"}
    assert await texts(api, body | {"stop": [" a"]}) == [""]
    assert await texts(api, body | {"stop": ["a"]}) == [" "]


@pytest.mark.parametrize("prompt", ["ab", "", [1]])
async def test_what_a_grammar_allows_is_the_text(api: Api, folder: Path, prompt: Any) -> None:
    """Also where nothing precedes it: the grammar has read each token as its own bytes."""
    grammar = {"syntax": "regex", "definition": " a b"}
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 9, "grammar": grammar}
    assert await texts(api, body) == [" a b"]


async def test_special_tokens_that_show_are_a_context_too(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"prompt": "", "skip_special_tokens": False}
    assert await texts(api, body) == [" a a"]
    assert await texts(api, body | {"prompt": [1], "echo": True}) == ["<s> a a"]


async def test_a_chat_continues_its_prompt(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"messages": [{"role": "user", "content": "ab"}]}
    answer = await ask(api, body, CHAT)
    assert answer["choices"][0]["message"]["content"] == " a a"


async def test_bare_text_is_the_same_text(api: Api, folder: Path) -> None:
    body = saying(folder, "▁a") | {"prompt": "ab", "stream": True}
    data = json.dumps(body | {"max_tokens": 2}).encode()
    accept = (("accept", "text/plain"),)
    response = await api.handle(Request("POST", COMPLETIONS, accept, data, "1.1", "test"))
    assert b"".join([part async for part in chunks(response)]) == b" a a"
