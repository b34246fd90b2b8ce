"""Large requests are tokenised in turns off the event loop, or refused before that."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from streamtok.api.access.lanes import LONG_BYTES, SHORT_BYTES, Lane, Lanes
from streamtok.api.input.reader import MOST_VALUES
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.api.services import Services
from streamtok.config import default_model
from streamtok.http.request import Request
from streamtok.testing import FakeClock, ScriptedEngine, make_services
from streamtok.testing.models import byte_tokenizer
from streamtok.text.encoding import SHORT, encode
from streamtok.text.long.pieces import LongTexts

STORY = "Once upon a time there was a girl, and she said: hello! "


# Lanes


class Work:
    """Pieces of work that wait until they are let go, and note their order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Event()

    def __call__(self, name: str) -> Any:
        def work() -> str:
            assert self.go.wait(10)
            self.done.append(name)
            return name

        return work


async def test_callers_take_turns_in_a_lane() -> None:
    lane, work = Lane("test"), Work()
    names = ["a1", "a2", "a3", "b1", "b2", "c1"]
    tasks = [asyncio.create_task(lane.run(name[0], work(name))) for name in names]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*tasks) == names
    assert work.done == ["a1", "a2", "b1", "c1", "a3", "b2"]
    lane.close()


async def test_who_leaves_keeps_nobody_waiting() -> None:
    lane, work = Lane("test"), Work()
    tasks = [asyncio.create_task(lane.run(name, work(name))) for name in "abcd"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()  # its work is being done, and ends by itself
    work.go.set()
    assert await asyncio.gather(*tasks[2:]) == ["c", "d"]
    assert await lane.run("e", work("e")) == "e"
    lane.close()


async def test_who_leaves_when_it_is_its_turn_passes_it_on() -> None:
    lane, work = Lane("test"), Work()
    first, second, third = (asyncio.create_task(lane.run(n, work(n))) for n in "abc")
    await asyncio.sleep(0)
    work.go.set()
    await first  # and the second is next
    second.cancel()
    assert await third == "c"
    lane.close()


async def test_an_error_is_the_callers_and_the_lane_goes_on() -> None:
    lane = Lane("test")
    with pytest.raises(ZeroDivisionError):
        await lane.run("a", lambda: 1 / 0)
    assert await lane.run("a", threading.get_ident) != threading.get_ident()
    lane.close()


async def test_short_work_is_done_at_once_and_long_work_holds_up_its_own_kind() -> None:
    offload, work = Lanes(), Work()
    long = asyncio.create_task(offload.run(LONG_BYTES + 1, "a", work("long")))
    await asyncio.sleep(0)
    here = threading.get_ident()
    assert await offload.run(SHORT_BYTES, "a", threading.get_ident) == here
    assert await offload.run(LONG_BYTES, "a", threading.get_ident) != here
    assert not long.done()
    work.go.set()
    assert await long == "long"
    offload.close()


# Requests


def services(tiny_model: Path, context: int = 64) -> Services:
    return make_services(tiny_model, ScriptedEngine([65, 66], context=context), FakeClock())


async def send(services: Services, path: str, body: Any) -> tuple[int, Any]:
    api = Api(ROUTES)
    api.open(services)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await api.handle(Request("POST", path, (), data, "1.1", "127.0.0.1"))
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": STORY * 5000}, "prompt"),
        ("/v1/completions", {"prompt": ["a", STORY * 5000]}, "prompt"),
        ("/v1/embeddings", {"input": STORY * 5000}, "input"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": STORY * 5000}]},
            "messages",
        ),
        ("/v1/responses", {"input": STORY * 5000}, "input"),
        (
            "/v1/messages",
            {
                "model": "tiny",
                "max_tokens": 1,
                "messages": [{"role": "user", "content": STORY}] * 999,
            },
            "messages",
        ),
    ],
)
async def test_what_can_never_fit_is_refused_before_it_is_tokenised(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, param: str
) -> None:
    longest: list[int] = []

    def count(tokenizer: Tokenizer, text: str, *, special: bool = False) -> Any:
        longest.append(len(text))
        return encode(tokenizer, text, special=special)

    monkeypatch.setattr("streamtok.text.tokenizer.encode", count)
    monkeypatch.setattr("streamtok.text.long.pieces.encode", count)
    status, answer = await send(services(tiny_model), path, body)
    assert status == 400
    if path != "/v1/messages":
        assert answer["error"]["code"] == "context_length_exceeded"
        assert answer["error"]["param"] == param
    assert "characters; the model's context holds" in answer["error"]["message"]
    assert max(longest, default=0) < 10_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["a"] * 161}),
        ("/v1/completions", {"prompt": ["a"] * 2, "n": 81}),
        ("/v1/completions", {"prompt": [[1]] * 161}),
        ("/v1/embeddings", {"input": ["a"] * 161}),
    ],
)
async def test_more_prompts_than_there_is_room_for_are_refused_before_they_are_tokenised(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    site = services(tiny_model)
    monkeypatch.setattr("streamtok.text.tokenizer.encode", None)
    status, answer = await send(site, path, body)
    assert status == 400
    assert "the server has room for 160" in answer["error"]["message"]


async def test_a_body_of_too_many_values_is_refused_before_they_are_made(tiny_model: Path) -> None:
    for item in (b"1", b'"a"', b"[]", b"{}"):
        body = b'{"prompt": [' + (item + b",") * (MOST_VALUES + 1) + item + b"]}"
        status, answer = await send(services(tiny_model), "/v1/completions", body)
        assert status == 413
        assert answer["error"]["message"] == f"the body has more than {MOST_VALUES} values"


@pytest.mark.parametrize("size", [10, 2000, 200_000])
async def test_a_text_of_any_size_is_tokenised_as_ever(tiny_model: Path, size: int) -> None:
    site, text = services(tiny_model), (STORY * (size // len(STORY) + 1))[:size]
    status, answer = await send(site, "/tokenize", {"content": text, "with_pieces": True})
    assert status == 200
    ids = site.tokenizer.backend.encode(text, add_special_tokens=False).ids
    assert [token["id"] for token in answer["tokens"]] == ids
    status, answer = await send(site, "/detokenize", {"tokens": ids[:60_000]})
    assert (status, answer) == (200, {"content": text[:60_000]})


# Bounds


def pieces() -> Tokenizer:
    """A tokenizer as SentencePiece's models have it: pieces of text, and bytes for what is left."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {piece: 256 + place for place, piece in enumerate(("▁", "a", "b", "▁a", "▁▁"))}
    tokenizer = Tokenizer(BPE(vocab, [("▁", "a"), ("▁", "▁")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def composing() -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def most(tokenizer: Tokenizer) -> int | None:
    return LongTexts(tokenizer).most


def shipped() -> Tokenizer:
    return Tokenizer.from_file(str(Path(default_model()) / "tokenizer.json"))


@pytest.mark.parametrize("make", [byte_tokenizer, pieces, composing, shipped])
@given(text=st.text(max_size=60) | st.sampled_from([STORY, " " * 50, "\n" * 50, "\u0344" * 9]))
@examples(30)
def test_no_text_has_fewer_tokens_than_its_length_allows(
    make: Callable[[], Tokenizer], text: str
) -> None:
    tokenizer = make()
    bound = most(tokenizer)
    assert bound is not None
    assert len(text) <= bound * len(tokenizer.encode(text, add_special_tokens=False).ids)


@given(text=st.text(min_size=SHORT, max_size=2 * SHORT))
@examples(20)
def test_a_long_text_has_the_tokens_that_it_has_in_one_call(text: str) -> None:
    tokenizer = byte_tokenizer()
    assert encode(tokenizer, text).ids == tokenizer.encode(text, add_special_tokens=False).ids


def test_what_drops_or_joins_characters_has_no_bound() -> None:
    assert most(byte_tokenizer()) == len("<|endoftext|>")
    assert most(composing()) == 4 * len("<|endoftext|>")
    stripping = byte_tokenizer()
    stripping.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    spaces = byte_tokenizer()
    spaces.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    removing = byte_tokenizer()
    removing.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel()]
    )
    words = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    unknown = Tokenizer(BPE({"a": 0}, [], fuse_unk=True))
    unknown.decoder = decoders.ByteFallback()
    for tokenizer in (stripping, spaces, removing, words, unknown):
        assert most(tokenizer) is None
