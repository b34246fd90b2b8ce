"""What a server needs of its model: the folder's files, and the engine that computes it, started.

Part of the composition root (`streamtok.app`): chooses where the engine runs, and plugs in its
extras.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from streamtok.config import ServeConfig
from streamtok.engine.base import Engine
from streamtok.engine.extras import all_extras
from streamtok.engine.extras.backlog import Backlog
from streamtok.engine.extras.grammars import Grammars, Vocabulary
from streamtok.engine.remote import process
from streamtok.engine.remote.early import EarlyProcess
from streamtok.errors import ModelError
from streamtok.http.request import HeaderList
from streamtok.messages import Failed, SamplingParams, SequenceRequest
from streamtok.model.generation_config import read_generation_config, read_optional
from streamtok.text.long import LongTexts
from streamtok.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from streamtok.model.base import Decoder


WARM_UP_TOKENS = 64


class ModelFiles(Struct, frozen=True):
    """What a model folder holds. A `decoder` of None is loaded by the engine's own process."""

    decoder: "Decoder | None"
    tokenizer: Tokenizer
    defaults: Mapping[str, float]
    vocabulary: Vocabulary
    grammars: Grammars | None = None


def load_files(folder: Path, *, weights: bool = True) -> ModelFiles:
    """Load a model folder; without its `weights` if the engine's own process is to load them.

    Raises:
        ModelError: anything in it is missing, damaged or not supported.
    """
    model, vocab = _load_decoder(folder) if weights else (None, _read_vocab(folder))
    tokenizer = Tokenizer(folder, vocab)
    tokenizer.long = LongTexts(tokenizer.backend)
    sampling = read_generation_config(folder).sampling
    vocabulary = _vocabulary(tokenizer, vocab)
    return ModelFiles(model, tokenizer, sampling, vocabulary, _load_grammars(vocabulary))


def load_vocabulary(folder: Path) -> Vocabulary | None:
    """Return the vocabulary in a model folder, if texts can be constrained with it here.

    Raises:
        ModelError: the tokenizer is missing, damaged or not supported.
    """
    size = _read_vocab(folder)
    vocabulary = _vocabulary(Tokenizer(folder, size), size)
    return vocabulary if _load_grammars(vocabulary) else None


def _load_decoder(folder: Path) -> "tuple[Decoder, int]":
    from streamtok.model.load import load as load_decoder

    model = load_decoder(folder)
    return model, model.config.vocab


def _read_vocab(folder: Path) -> int:
    """Return how many token ids a model has, without numpy where that is possible.

    The engine's process has that, reads all of `config.json`, and says what is wrong in it.
    """
    size = read_optional(folder / "config.json").get("vocab_size")
    if type(size) is int and size > 0:
        return size
    from streamtok.model.load import read_config

    return read_config(folder).vocab


def _vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    return Vocabulary(tokenizer.backend.to_str(), size, tokenizer.stop_ids)


def read_files(config: ServeConfig) -> ModelFiles:
    """Load what the server's own process needs of the model; see `load_files`."""
    weights = config.engine == "thread" and not config.script_only
    return load_files(config.model_folder, weights=weights)


def _load_grammars(vocabulary: Vocabulary) -> Grammars | None:
    """Return what compiles grammars for a model, if the extra for it is installed."""
    try:
        return Grammars(vocabulary)
    except ImportError:
        return None


async def start_engine(
    config: ServeConfig, files: ModelFiles, early: EarlyProcess | None = None
) -> Engine:
    """Start the engine: on Ray, in a thread if `files` have the model's weights, or in a process.

    Raises:
        ConfigError: there is no memory for one context, or no Ray.
        ModelError: the model cannot be loaded.
    """
    if config.engine == "ray":
        from streamtok.engine.cluster.start import start_ray

        return await start_ray(config, load_vocabulary)
    if files.decoder:
        from streamtok.engine.local import LocalEngine

        extras = all_extras(files.grammars)
        return LocalEngine(files.decoder, config, extras, Backlog)
    vocabulary = files.vocabulary if files.grammars else None
    return await process.start_engine(config, vocabulary, early)


async def warm_up(engine: Engine) -> None:
    """Generate two tokens, so that the first request does not wait for memory to be mapped.

    Raises:
        ModelError: the model cannot be computed.
    """
    prompt = tuple(range(min(engine.vocab, engine.context // 2)))
    request = SequenceRequest(0, prompt[:WARM_UP_TOKENS], SamplingParams(), max_tokens=2)
    async for event in engine.submit("warm-up", [request]):
        if isinstance(event, Failed):
            raise ModelError(f"the model gives no usable result: {event.error.message}")


def kill_of(engine: Engine) -> Callable[[], None] | None:
    """Return what ends the engine's process, which is then replaced, where it has one."""
    kill: Callable[[], None] | None = getattr(engine, "kill", None)
    return kill


def headers_of(engine: Engine) -> Callable[[str], HeaderList]:
    """Return what gives the headers that say where a request is computed, where that is known."""
    found: Callable[[str], HeaderList] = getattr(engine, "headers_of", lambda _: ())
    return found
