"""Fakes that are shipped, to test streamtok and programs built on it without mocks or downloads.

`write_model` makes a complete Hugging Face folder with random weights and a tokenizer of bytes;
`ScriptedEngine` says what it is told to; `MemoryStream` is a socket in memory; `FakeClock` stands
still until moved. Nothing on the serving path imports this module.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from streamtok.api.generation import Timer, Timers
from streamtok.api.limits import Limits
from streamtok.api.meter import Meter
from streamtok.api.services import Services
from streamtok.app import App
from streamtok.clock import Clock
from streamtok.config import ApiConfig, ServeConfig
from streamtok.engine.base import HIGH_WATER, Engine, TokenStream
from streamtok.errors import StreamtokError, Unavailable
from streamtok.http.server import Server
from streamtok.http.transport import ConnectionLost
from streamtok.ledger import Ledger
from streamtok.messages import (
    EngineStats,
    Event,
    Failed,
    Finished,
    SequenceRequest,
    Started,
    TokenEvent,
)
from streamtok.metrics import Metrics
from streamtok.model.families import read_config, tensor_shapes
from streamtok.model.weights import Array
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TINY: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256 + len(SPECIALS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def byte_tokenizer() -> Backend:
    """Return a byte-level tokenizer whose 256 first ids are the bytes, then the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Backend(BPE({character: byte for byte, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A", special_tokens=[(SPECIALS[0], 256)]
    )
    return tokenizer


def random_weights(folder: Path, seed: int = 0) -> dict[str, Array]:
    """Return random tensors of the shapes that `folder`/config.json asks for."""
    random = np.random.default_rng(seed)
    return {
        name: (1 + random.standard_normal(shape, dtype=np.float32) * 0.2)
        if len(shape) == 1
        else random.standard_normal(shape, dtype=np.float32) * np.float32(2 / np.sqrt(shape[1]))
        for name, shape in tensor_shapes(read_config(folder)).items()
    }


def write_model(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a tiny random model into `folder`; keywords replace keys of its `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in (
        ("config.json", TINY | config),
        (
            "tokenizer_config.json",
            {"bos_token": SPECIALS[0], "eos_token": SPECIALS[-1], "chat_template": TEMPLATE},
        ),
        ("generation_config.json", {"eos_token_id": [256, 260]}),
    ):
        (folder / name).write_text(json.dumps(content))
    save_file(random_weights(folder, seed), folder / "model.safetensors")
    return folder


class FakeClock:
    """Stands still until it is moved; both readings in seconds."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_s = 0.0

    def wall_s(self) -> float:
        """See `streamtok.clock.Clock.wall_s`."""
        return self._wall_s

    def monotonic_s(self) -> float:
        """See `streamtok.clock.Clock.monotonic_s`."""
        return self._monotonic_s

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as people and time servers do."""
        self._wall_s += seconds

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self._wall_s += seconds
        self._monotonic_s += seconds


class FakeTimer:
    """Rings when a test says so; each call sets it anew, as `streamtok.api.generation.Timer`."""

    def __init__(self) -> None:
        self._ring: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    def __call__(self, ring: Callable[[], None]) -> "FakeTimer":
        """Set the timer."""
        self._ring = ring
        self._changed.set()
        return self

    @property
    def is_set(self) -> bool:
        """Whether it would ring."""
        return self._ring is not None

    def cancel(self) -> None:
        """See `streamtok.api.generation.Alarm.cancel`."""
        self._ring = None

    async def ring(self) -> None:
        """Ring, as soon as the timer is set."""
        while self._ring is None:
            self._changed.clear()
            await self._changed.wait()
        ring, self._ring = self._ring, None
        ring()


class MemoryStream:
    """A ByteStream without a socket: `feed` is what the client sends, `sent` what it receives.

    `writes` keeps every write apart, so that a test can see what left together.
    """

    def __init__(self, peer: str = "memory") -> None:
        self.peer = peer
        self.writes: list[bytes] = []
        self.closed = False
        self.on_eof: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._input = bytearray()
        self._ended = False
        self._lost = False
        self._changed = asyncio.Event()

    @property
    def sent(self) -> bytes:
        """All bytes written so far."""
        return b"".join(self.writes)

    # The client's side

    def feed(self, data: bytes) -> None:
        """Let `data` arrive."""
        self._input += data
        self._notify()

    def feed_eof(self) -> None:
        """Let the client finish sending; it may still be reading."""
        self._ended = True
        self.on_eof()
        self._notify()

    def lose(self) -> None:
        """Reset the connection."""
        self._lost = self._ended = True
        self.on_lost()
        self._notify()

    async def wait_for(self, condition: Callable[["MemoryStream"], bool]) -> None:
        """Wait until `condition` of this stream holds."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    # The server's side

    async def receive(self) -> bytes:
        """See `streamtok.http.transport.ByteStream.receive`."""
        await self.wait_for(lambda stream: bool(stream._input) or stream._ended)
        data = bytes(self._input)
        self._input.clear()
        return data

    async def send(self, data: bytes) -> None:
        """See `streamtok.http.transport.ByteStream.send`."""
        if self._lost:
            raise ConnectionLost
        self.write(data)
        await asyncio.sleep(0)

    def write(self, data: bytes) -> None:
        """See `streamtok.http.transport.ByteStream.write`."""
        if not self._lost:
            self.writes.append(data)
            self._notify()

    def is_reset(self) -> bool:
        """See `streamtok.http.transport.ByteStream.is_reset`."""
        return self._lost

    async def close(self, linger: bool) -> None:
        """See `streamtok.http.transport.ByteStream.close`."""
        self.abort()

    def abort(self) -> None:
        """See `streamtok.http.transport.ByteStream.abort`."""
        self.closed = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()


class ScriptedEngine:
    """An engine whose sequences all get the same tokens, at once or when a test says so.

    With `held`, requests wait for `step` or `emit`. `cancelled` lists what was.
    """

    def __init__(self, tokens: Sequence[int], *, held: bool = False, context: int = 1024) -> None:
        self.context = context
        self.vocab = TINY["vocab_size"]
        self.fingerprint = "fp_scripted"
        self.cancelled: list[tuple[str, int | None]] = []
        self.requests: dict[str, tuple[SequenceRequest, ...]] = {}
        self._tokens = tuple(tokens)
        self._held = held
        self._streams: dict[str, TokenStream] = {}
        self._open: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()
        self._made: Counter[tuple[str, int]] = Counter()

    async def submitted(self) -> None:
        """Wait until there was a request."""
        await self.wait_for(lambda engine: bool(engine.requests))

    async def wait_for(self, condition: Callable[["ScriptedEngine"], bool]) -> None:
        """Wait until `condition` of this engine holds; requests and cancelling change it."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    def submit(self, request_id: str, sequences: Sequence[SequenceRequest]) -> TokenStream:
        """See `streamtok.engine.base.Engine.submit`."""
        stream = TokenStream(len(sequences), lambda: None)
        self._streams[request_id] = stream
        self.requests[request_id] = tuple(sequences)
        self._changed.set()
        self._open |= {(request_id, sequence.index) for sequence in sequences}
        if not self._held:
            for sequence in sequences:
                tokens = self._tokens[: sequence.max_tokens]
                self.emit(request_id, Started(sequence.index))
                for token in tokens:
                    self.emit(request_id, TokenEvent(sequence.index, token))
                self.emit(request_id, Finished(sequence.index, "length", len(tokens)))
        return stream

    def emit(self, request_id: str, event: Event) -> None:
        """Let `event` happen."""
        if isinstance(event, Finished | Failed):
            self._open.discard((request_id, event.index))
        stream = self._streams[request_id]
        stream.produced += 1
        stream.deliver(event)

    def step(self) -> int:
        """Give each open sequence whose reader keeps up its next token, or its end.

        Return how many there were.
        """
        open_now = [key for key in sorted(self._open) if self._streams[key[0]].unread < HIGH_WATER]
        for request_id, index in open_now:
            made = self._made[request_id, index]
            wanted = self._tokens[: self.requests[request_id][index].max_tokens]
            if not made:
                self.emit(request_id, Started(index))
            if made < len(wanted):
                self.emit(request_id, TokenEvent(index, wanted[made]))
                self._made[request_id, index] += 1
            else:
                self.emit(request_id, Finished(index, "length", made))
        return len(open_now)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """See `streamtok.engine.base.Engine.cancel`."""
        self.cancelled.append((request_id, index))
        self._changed.set()
        for open_id, open_index in sorted(self._open):
            if open_id == request_id and index in (None, open_index):
                self.emit(request_id, Finished(open_index, "cancelled", 0))

    def stats(self) -> EngineStats:
        """See `streamtok.engine.base.Engine.stats`."""
        return EngineStats(running=len(self._open), queued=0)

    async def close(self) -> None:
        """See `streamtok.engine.base.Engine.close`."""
        for request_id, index in sorted(self._open):
            self.emit(request_id, Failed(index, Unavailable("closed"), 0))


def make_services(
    folder: Path,
    engine: Engine,
    clock: Clock,
    *,
    close_after_stream: bool = False,
    limits: ApiConfig | None = None,
    heartbeat: Timer | None = None,
    deadline: Timer | None = None,
) -> Services:
    """Return what the endpoints need, around `engine` and the tokenizer in `folder`.

    Ids, seeds and the clock do not vary, so that answers are the same bytes each time.
    """
    tokenizer, numbers = Tokenizer(folder), count(1)
    return Services(
        engine=engine,
        model="tiny",
        created=int(clock.wall_s()),
        tokenizer=tokenizer,
        detokenizers=Detokenizers(tokenizer),
        template=ChatTemplate(tokenizer),
        defaults={"temperature": 1.0},
        meter=Meter(
            Ledger(":memory:"),
            Metrics(engine.stats),
            Limits(limits or ApiConfig(), clock),
            clock,
        ),
        new_id=lambda prefix: f"{prefix}-{next(numbers)}",
        new_seed=lambda: 0,
        close_after_stream=close_after_stream,
        timers=Timers(heartbeat, deadline),
    )


def listen_locally(server: Server) -> tuple[str, int]:
    """Let `server` accept connections on a free port of the loopback; return host and port."""
    sock = socket.create_server(("127.0.0.1", 0))
    server.listen([sock], lambda: None, backlog=1024)
    host, port = sock.getsockname()
    return host, port


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server in a thread of its own: `url` is where, `app` what."""

    url: str
    app: App

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for sockets."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)


@contextmanager
def running_server(config: ServeConfig) -> Iterator[RunningServer]:
    """Run a real server for the length of the block."""
    ready: Future[RunningServer] = Future()
    stopping: Future[Callable[[], object] | None] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        app = App(config)
        try:
            ready.set_result(RunningServer(await app.start(), app))
        except StreamtokError as error:
            stopping.set_result(None)
            await app.stop()
            ready.set_exception(error)
            return
        stopping.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        await app.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="server")
    thread.start()
    try:
        yield ready.result()
    finally:
        if stop := stopping.result():
            stop()
        thread.join()
