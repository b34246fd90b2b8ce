"""The composition root: settings in, a running server out. The one module that knows all others.

A server's life: listen, load the model (until then `/health` says "loading"), serve, and at a
signal drain: accept no more, let streams finish, end those that take too long with an error event,
close the books.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from streamtok.api.generation import Meter
from streamtok.api.routing import Api, refuse
from streamtok.api.services import Services
from streamtok.clock import Clock, SystemClock
from streamtok.config import ServeConfig
from streamtok.engine.base import Engine
from streamtok.engine.local import LocalEngine
from streamtok.errors import ConfigError, ModelError
from streamtok.http.connection import Service
from streamtok.http.server import Server
from streamtok.ledger import Ledger
from streamtok.messages import Failed, SamplingParams, SequenceRequest
from streamtok.metrics import Metrics
from streamtok.model import decoder
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.template import ChatTemplate
from streamtok.text.tokenizer import Tokenizer, read_optional

log = logging.getLogger(__name__)

WARM_UP_TOKENS = 64
ENDING_S = 5.0  # how long connections have to send their last bytes once the engine is closed
NEUTRAL: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}


class App:
    """A server with its engine and its books."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._ledger = Ledger(config.ledger)
        self._api = Api()
        self._server = Server(
            Service(
                handle=self._api.handle,
                refuse=refuse,
                clock=self._clock,
                limits=config,
            )
        )
        self._services: Services | None = None
        self._stopped = False

    async def start(self) -> str:
        """Listen, load the model, and return the server's URL when it is ready.

        Raises:
            ConfigError: the address cannot be had.
            ModelError: the model cannot be loaded.
        """
        host, port = self._config.host, self._config.port
        try:
            addresses = await self._server.listen(host, port)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--host {host} --port {port}: cannot listen: {error}") from error
        self._services = await load(self._config, self._ledger, self._clock)
        self._api.open(self._services)
        host, port = addresses[0]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def engine(self) -> Engine:
        """The engine, once the server is ready."""
        assert self._services is not None
        return self._services.engine

    async def stop(self) -> None:
        """Drain and close; returns when nothing is left. Again, it does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._api.drain()
        self._server.finish()
        await self._server.wait(self._config.drain_timeout_s)
        if self._services:
            await self._services.engine.close()
        await self._server.wait(ENDING_S)
        await self._server.abort()
        if self._services:
            await self._services.meter.close()
        else:
            self._ledger.close()


async def load(config: ServeConfig, ledger: Ledger, clock: Clock) -> Services:
    """Load the model and start its engine; the event loop stays free meanwhile.

    Raises:
        ModelError: the model cannot be loaded.
    """
    folder = config.model_folder
    files = await asyncio.to_thread(load_files, folder)
    engine = LocalEngine(files.decoder, files.exact, config)
    await _warm_up(engine)
    return Services(
        engine=engine,
        model=folder.resolve().name,
        created=int((folder / "config.json").stat().st_mtime),
        tokenizer=files.tokenizer,
        detokenizers=Detokenizers(files.tokenizer),
        template=ChatTemplate(files.tokenizer),
        defaults=files.defaults,
        meter=Meter(ledger, Metrics(engine.stats), clock),
        new_id=lambda prefix: f"{prefix}-{secrets.token_hex(12)}",
        new_seed=lambda: secrets.randbits(63),
        close_after_stream=config.close_after_stream,
    )


async def _warm_up(engine: Engine) -> None:
    """Generate two tokens, so that the first request does not wait for memory to be mapped.

    Raises:
        ModelError: the model cannot be computed.
    """
    prompt = tuple(range(min(engine.vocab, engine.context // 2)))
    request = SequenceRequest(0, prompt[:WARM_UP_TOKENS], SamplingParams(), max_tokens=2)
    async for event in engine.submit("warm-up", [request]):
        if isinstance(event, Failed):
            raise ModelError(f"the model gives no usable result: {event.error.message}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model folder holds; `exact` tells whether this machine computes it reproducibly."""

    decoder: decoder.Decoder
    exact: bool
    tokenizer: Tokenizer
    defaults: Mapping[str, float]


def load_files(folder: Path) -> ModelFiles:
    """Load a model folder.

    Raises:
        ModelError: anything in it is missing, damaged or not supported.
    """
    # The products are too small to be shared among threads, and a BLAS that tries adds in an order
    # that depends on how many there are.
    threadpool_limits(limits=1, user_api="blas")
    model, tokenizer = decoder.load(folder), Tokenizer(folder)
    if tokenizer.vocab > model.config.vocab:
        raise ModelError(
            f"{folder / 'tokenizer.json'}: {tokenizer.vocab} tokens; the model's vocab_size is "
            f"{model.config.vocab}"
        )
    exact = model.is_exact()
    if not exact:
        log.warning(
            "this machine's matrix library computes a row differently in different batches: "
            "the same seed may give other tokens under load"
        )
    return ModelFiles(model, exact, tokenizer, _sampling_defaults(folder))


def _sampling_defaults(folder: Path) -> Mapping[str, float]:
    """Return the sampling parameters that `generation_config.json` proposes, others neutral."""
    path = folder / "generation_config.json"
    proposed = read_optional(path)
    for name in NEUTRAL.keys() & proposed.keys():
        value = proposed[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ModelError(f"{path}: {name}: expected a number of 0 or more, found {value!r}")
    return {name: proposed.get(name, neutral) for name, neutral in NEUTRAL.items()}
