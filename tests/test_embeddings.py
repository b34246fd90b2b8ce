"""Embeddings: the reference's, bit for bit the same in any company, and as clients ask for them."""

import asyncio
import json
import pickle
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import EngineConfig
from streamtok.engine.extras.embeddings import pool
from streamtok.engine.local import LocalEngine
from streamtok.engine.scheduler import Scheduler
from streamtok.errors import EngineFailed
from streamtok.http.request import Request
from streamtok.messages import Failed, Finished, SamplingParams, SequenceRequest, Started
from streamtok.model import reference
from streamtok.model.load import load, read_weights
from streamtok.testing import FakeClock, RunningServer, ScriptedEngine, local_engine, make_services

EMBEDDINGS = "/v1/embeddings"
PROMPT = tuple(int(token) for token in np.random.default_rng(5).integers(0, 256, 50))


@asynccontextmanager
async def engine_of(folder: Path, step_tokens: int) -> AsyncIterator[LocalEngine]:
    config = EngineConfig(max_streams=4, max_queue=40, step_tokens=step_tokens)
    engine = local_engine(load(folder), config)
    try:
        yield engine
    finally:
        await engine.close()


def wanted(prompt: tuple[int, ...] = PROMPT, index: int = 0) -> SequenceRequest:
    return SequenceRequest(index, prompt, SamplingParams(), max_tokens=0, embed=True)


async def embeddings(engine: LocalEngine, name: str, *prompts: tuple[int, ...]) -> list[Any]:
    """Return the embedding of each prompt."""
    found: dict[int, Any] = {}
    async for event in engine.submit(name, [wanted(p, i) for i, p in enumerate(prompts)]):
        if isinstance(event, Finished):
            assert (event.reason, event.generated) == ("length", 0)
            assert pickle.loads(pickle.dumps(event)) == event
            found[event.index] = event.embedding
        else:
            assert isinstance(event, Started)
    return [found[index] for index in range(len(prompts))]


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> np.ndarray:
    """What the reference says, in double precision: [D]."""
    config, tensors = read_weights(tiny_model)
    weights = {name: tensor.astype(float) for name, tensor in tensors.items()}
    mean = reference.states(config, weights, PROMPT).mean(axis=0)  # [D]
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("step_tokens", [1, 7, 49, 50, 128])
async def test_it_is_the_references_however_the_prompt_is_cut(
    tiny_model: Path, expected: np.ndarray, step_tokens: int
) -> None:
    async with engine_of(tiny_model, 128) as engine:
        (at_once,) = await embeddings(engine, "a", PROMPT)
    async with engine_of(tiny_model, step_tokens) as engine:
        (found,) = await embeddings(engine, "a", PROMPT)
    assert np.abs(np.array(found) - expected).max() < 1e-5
    assert found == at_once
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


@examples(20)
@given(
    prompts=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), max_size=4),
    step_tokens=st.integers(1, 70),
    copies=st.integers(1, 3),
)
def test_it_is_the_same_bits_in_any_company(
    tiny_model: Path, prompts: list[list[int]], step_tokens: int, copies: int
) -> None:
    """Others embed, the same text is embedded again, and someone generates from it meanwhile."""

    async def alone() -> Any:
        async with engine_of(tiny_model, 64) as engine:
            return await embeddings(engine, "a", PROMPT)

    async def together() -> list[Any]:
        async with engine_of(tiny_model, step_tokens) as engine:
            params = SamplingParams(temperature=0.0)
            other = engine.submit("b", [SequenceRequest(0, PROMPT[:30], params, max_tokens=9)])
            all_of_them = [*map(tuple, prompts), *[PROMPT] * copies]
            found = await embeddings(engine, "a", *all_of_them)
            async for _ in other:
                pass
            return found[len(prompts) :] + await embeddings(engine, "c", PROMPT)

    (expected,) = asyncio.run(alone())
    assert asyncio.run(together()) == [expected] * (copies + 1)


def test_an_error_in_an_embedding_ends_its_sequence_once() -> None:
    scheduler = Scheduler(2, 64)
    scheduler.add("a", [wanted()])
    plan = scheduler.plan()
    states = np.full((len(PROMPT), 3), np.nan, np.float32)
    pools = pool(states, plan.works)
    ((_, failed),) = scheduler.commit(plan, [], (), pools)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineFailed)
    assert scheduler.running == 0


# The endpoint


@pytest.fixture
async def api(tiny_model: Path) -> AsyncIterator[Api]:
    services = make_services(tiny_model, ScriptedEngine([], context=8), FakeClock())
    api = Api(ROUTES)
    api.open(services)
    yield api
    await services.meter.settled()
    record = await services.meter.ledger.get("embd-1")
    assert record is None or (record.endpoint, record.generated_tokens) == (EMBEDDINGS, 0)
    await services.meter.close()


async def ask(api: Api, **body: Any) -> tuple[int, Any]:
    data = json.dumps(body).encode()
    response = await api.handle(Request("POST", EMBEDDINGS, (), data, "1.1", "test"))
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


@pytest.mark.parametrize(
    ("given", "count", "spent"),
    [("hi", 1, 3), (["hi", "x"], 2, 5), ([1, 2], 1, 2), ([[1, 2], [3]], 2, 3), ([1] * 8, 1, 8)],
    ids=str,
)
async def test_input_is_text_or_ids_or_a_list_of_them(
    api: Api, given: Any, count: int, spent: int
) -> None:
    point = [float(np.float32(0.6)), float(np.float32(-0.8))]
    status, answer = await ask(api, input=given, model="tiny", dimensions=2, user="u")
    assert status == 200
    assert answer.keys() == {"object", "data", "model", "usage"}
    assert answer["usage"] == {"prompt_tokens": spent, "total_tokens": spent}
    assert [item.keys() for item in answer["data"]] == [{"object", "index", "embedding"}] * count
    assert [item["index"] for item in answer["data"]] == list(range(count))
    assert answer["data"][0]["embedding"] == pytest.approx(point)
    _, coded = await ask(api, input=given, encoding_format="base64")
    octets = b64decode(coded["data"][0]["embedding"])
    assert np.frombuffer(octets, "<f4").tolist() == point


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a", ""]}, "input[...]"),
        ({"input": [999]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": "x" * 8}, "input"),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "model": "other"}, "model"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(api: Api, body: dict[str, Any], param: str) -> None:
    status, answer = await ask(api, **body)
    assert status == (404 if param == "model" else 400)
    assert (answer["error"]["param"] or "").partition("[")[0] == param.partition("[")[0]


def test_the_official_client_gets_the_same_numbers_either_way(server: RunningServer) -> None:
    texts = ["The fox found a lantern.", "A fox has found the lantern.", "HTTP is a protocol."]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        coded = client.embeddings.create(model="fireside", input=texts)
        plain = client.embeddings.create(model="fireside", input=texts, encoding_format="float")
    assert [item.embedding for item in coded.data] == [item.embedding for item in plain.data]
    one, other, third = (np.array(item.embedding) for item in plain.data)
    assert one @ other > one @ third
