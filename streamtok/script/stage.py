"""Puts a script before a model, or in its place: what `streamtok.app` calls.

Read next: `streamtok.script.director`.
"""

from pathlib import Path

from msgspec.structs import replace

from streamtok.api.constraints.compiler import Constraints
from streamtok.api.services import Services
from streamtok.config import EngineConfig, ServeConfig
from streamtok.engine.base import Engine
from streamtok.engine.commands import EngineInfo
from streamtok.errors import ConfigError
from streamtok.script.director import Director
from streamtok.script.engine import ScriptEngine
from streamtok.script.files import read
from streamtok.script.rules import Script

CONTEXT = 2**20  # tokens that prompt and answer may have where no model has to compute them


def open_script(config: ServeConfig) -> Script | None:
    """Return the script that settings name, if they do.

    Raises:
        ConfigError: it is wrong, or has answers to count where several processes serve.
    """
    if config.script_only and not config.script:
        raise ConfigError("--script-only needs --script")
    script = read(Path(config.script)) if config.script else None
    for name in script.counting if script and config.workers > 1 else ():
        raise ConfigError(
            f"{config.script}: {name}: answers: with several --workers each would count them for "
            "itself; match the turn or a header instead, or let one process serve"
        )
    return script


def before(model: Engine) -> ScriptEngine:
    """Return an engine that says what a script has, and leaves the rest to `model`."""
    info = EngineInfo(
        context=model.context,
        vocab=model.vocab,
        width=model.width,
        streams=model.streams,
        room=model.room,
        fingerprint=model.fingerprint,
        exact=False,
    )
    return ScriptEngine(info, model)


def without_model(config: EngineConfig) -> ScriptEngine:
    """Return an engine that says what a script has; no weights are needed.

    Raises:
        ModelError: the model's `config.json` cannot be read.
    """
    from streamtok.model.load import read_config  # and with it numpy, which nothing else here has

    shape = read_config(config.model_folder)
    info = EngineInfo(
        context=CONTEXT,
        vocab=shape.vocab,
        width=shape.dim,
        streams=config.max_streams,
        room=config.max_streams + config.max_queue,
        fingerprint="fp_script",
        exact=False,
    )
    return ScriptEngine(info, None)


def directed(services: Services, script: Script, *, only: bool) -> Services:
    """Return `services` with a script before them, in place of the one they had.

    With `only`, prompts may be longer than the model's context. What requests want answers to be,
    such as a JSON schema, is checked where the server can do so at all.

    Raises:
        ConfigError: the model's tokenizer cannot write an answer.
    """
    own, last, limits = services.engine, services.director, services.constraints
    engine = own if isinstance(own, ScriptEngine) else before(own)
    only = only or engine.model is None
    engine = engine.reaching(CONTEXT if only or engine.model is None else engine.model.context)
    names = last.own_names if isinstance(last, Director) else services.aliases
    checks = isinstance(limits, Constraints) and limits.can_check
    director = Director(script, services, engine, names, only=only, checks=checks)
    return replace(
        services, engine=engine, director=director, faults=director.faults, aliases=("*",)
    )
