"""Every setting of the server, with its default, its meaning, its flag and its variable.

A field `drain_timeout_s` is the flag `--drain-timeout` and the variable `STREAMTOK_DRAIN_TIMEOUT`;
a flag wins over the variable, the variable over the default. This is the only module that reads
the environment.

Read next: `streamtok.clock`.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from streamtok.errors import ConfigError

IDS = ("random", "sequential")
LOG_LEVELS = ("debug", "info", "warning", "error")
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
EXCLUSIVE = (("uds", "host"), ("uds", "port"), ("uds", "fd"), ("fd", "host"), ("fd", "port"))


def _setting(default: Any, meaning: str, least: float = -math.inf, most: float = math.inf) -> Any:
    return field(default=default, metadata={"help": meaning, "least": least, "most": most})


def _optional(kind: type[int] | type[float], meaning: str) -> Any:
    """Declare a number that may be left out."""
    limits = {"least": -math.inf, "most": math.inf}
    return field(default=None, metadata={"help": meaning, "kind": kind, **limits})


def _size(default: int, meaning: str) -> Any:
    """Declare a number of bytes, which is written with a unit or without."""
    return field(default=default, metadata={"help": meaning, "kind": "size"})


def _choice(default: str, choices: Sequence[str], meaning: str) -> Any:
    meaning = f"{meaning}: {', '.join(choices)}"
    return field(default=default, metadata={"help": meaning, "choices": choices})


def default_model() -> str:
    """Return the folder of the model that comes with the package.

    An installed package holds it; in a checkout it stands beside the package.
    """
    package = Path(__file__).parent
    folders = (package / "weights" / "fireside", package.parent / "weights" / "fireside")
    return str(next((folder for folder in folders if folder.is_dir()), folders[0]))


@dataclass(frozen=True)
class EngineConfig:
    """What the engine needs; the commands without a server have these settings too."""

    model: str = _setting("", "folder of a Hugging Face model (default: the one that is shipped)")
    max_streams: int = _setting(32, "sequences generated at once", 1)
    max_queue: int = _setting(128, "sequences that may wait for a slot; more are refused", 0)
    step_tokens: int = _setting(64, "positions computed in one step, prompts included", 1)
    engine: str = _choice(
        "process", ("process", "thread"), "where the model is computed: beside the server or in it"
    )
    kv_memory: int = _size(
        0,
        "memory for keys and values, such as 512MiB or 2GiB; 0: what twice --max-streams contexts "
        "take, or half of the machine's memory if that is less",
    )

    @property
    def model_folder(self) -> Path:
        """The folder to load the model from."""
        return Path(self.model or default_model())


@dataclass(frozen=True)
class ConnectionConfig:
    """How much and how long a client may take; `streamtok help limits` has the answers."""

    max_connections: int = _setting(2000, "connections at once; more get a 503", 1)
    max_connections_per_address: int = _setting(
        0, "connections of one address at once, 0: any number; more get a 503", 0
    )
    max_requests_per_connection: int = _setting(10_000, "answers, then the connection closes", 1)
    max_target_bytes: int = _setting(8 * 1024, "longest request target", 1)
    max_header_bytes: int = _setting(64 * 1024, "largest request head", 1024)
    max_header_count: int = _setting(100, "most header fields in a request", 1)
    max_body_bytes: int = _setting(4 * 1024 * 1024, "largest request body", 1)
    header_timeout_s: float = _setting(10.0, "seconds a request's head may take", 0.001)
    max_buffered_bytes: int = _setting(
        64 * 1024 * 1024, "bytes of all requests' bodies at once, without 64 KiB of each", 0
    )
    body_timeout_s: float = _setting(
        10.0, "seconds a request's body may pause or fall behind --min-body-rate", 0.001
    )
    min_body_rate: float = _setting(1024.0, "bytes per second at which a body must arrive", 0.001)
    idle_timeout_s: float = _setting(75.0, "seconds a connection may be idle", 0.001)
    stall_timeout_s: float = _setting(30.0, "seconds a client may read nothing", 0.001)


@dataclass(frozen=True)
class ApiConfig:
    """Who may use the API, how much, and from which pages."""

    api_keys: str = _setting("", "file of API keys, read again on SIGHUP (default: none needed)")
    admin_keys: str = _setting(
        "", "names of API keys, with commas between them, that see what all keys have used"
    )
    requests_per_minute: int = _setting(0, "requests of one key in a minute, 0: any number", 0)
    tokens_per_minute: int = _setting(0, "tokens of one key in a minute, 0: any number", 0)
    streams_per_key: int = _setting(0, "sequences of one key at once, 0: any number", 0)
    heartbeat_s: float = _setting(
        0.0, "seconds between heartbeats before the first token of a stream, 0: none", 0
    )
    request_timeout_s: float = _setting(
        0.0, "seconds an answer may take in all, 0: any time; more get an error", 0
    )
    cors_origins: str = _setting(
        "", "origins of web pages that may use the API, or * for all (default: none)"
    )
    unknown_fields: str = _choice(
        "ignore", ("ignore", "refuse"), "how unknown request fields are treated"
    )
    model_alias: str = _setting(
        "", "other names of the model, with commas between, or * for any name (default: none)"
    )
    open_objects: bool = _setting(
        False, "let JSON objects have properties that their schema does not name"
    )
    stored_responses: int = _setting(
        1000, "responses kept for each key in the ledger's file, to go on from; 0: none", 0
    )


@dataclass(frozen=True)
class ListenConfig:
    """Where to listen, in which processes, and what stands in front of the server."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8000, "port to listen on; 0 lets the system choose", 0, 65535)
    uds: str = _setting("", "path of a Unix socket to listen on, instead of --host and --port")
    fd: int = _setting(-1, "inherited listening socket, by number, -1: none", -1)
    backlog: int = _setting(1024, "connections that may wait to be accepted", 1)
    workers: int = _setting(1, "processes that serve; each has its own engine and limits", 1)
    certfile: str = _setting("", "PEM file of the TLS certificate and its chain (default: no TLS)")
    keyfile: str = _setting("", "PEM file of the certificate's key (default: the same file)")
    forwarded_allow_ips: str = _setting(
        "", "proxies whose X-Forwarded-For is believed: addresses, networks, unix (default: none)"
    )
    allowed_hosts: str = _setting(
        "",
        "names in Host that are answered, * for any (default: any; on the loopback, localhost)",
    )
    root_path: str = _setting("", "path under which a proxy exposes the server (default: /)")


@dataclass(frozen=True)
class TraceConfig:
    """Where to tell what goes over the wire."""

    trace: bool = _setting(False, "print every byte on the wire, annotated")
    trace_file: str = _setting("", "append the trace to a file as JSON lines (default: none)")
    trace_pcapng: str = _setting("", "append packets for Wireshark to a file (default: none)")


@dataclass(frozen=True)
class ServeConfig(EngineConfig, ListenConfig, ConnectionConfig, ApiConfig, TraceConfig):
    """What `streamtok serve` needs."""

    ledger: str = _setting(
        str(user_state_path("streamtok", appauthor=False) / "usage.sqlite3"),
        "file of the usage ledger; :memory: keeps it while the server runs",
    )
    ledger_days: int = _setting(0, "days the ledger's rows are kept, 0: for ever", 0)
    drain_timeout_s: float = _setting(30.0, "seconds running streams have to finish at a stop", 0)
    close_after_stream: bool = _setting(False, "close the connection after each streamed answer")
    faults: bool = _setting(False, "let requests ask for faults, to test clients")
    frozen_clock: bool = _setting(
        False, "stop the date at the beginning of 2026, so that answers repeat"
    )
    ids: str = _choice("random", IDS, "ids of requests and answers")
    log_level: str = _choice("info", LOG_LEVELS, "least level that is logged")


@dataclass(frozen=True)
class ProxyConfig(ListenConfig, ConnectionConfig, TraceConfig):
    """What `streamtok proxy` needs, beside the URL of a server."""

    port: int = _setting(8080, "port to listen on; 0 lets the system choose", 0, 65535)
    timeout_s: float = _setting(600.0, "seconds until the server's answer must begin", 0.001)
    record: str = _setting("", "folder to write each exchange to (default: none)")
    replay: str = _setting("", "folder of recordings to answer from, instead of a server")
    at_once: bool = _setting(False, "answer from recordings at once, not at their own pace")
    check: bool = _setting(False, "apply the doctor's rules; a report is printed at the end")
    faults: bool = _setting(False, "let requests ask for broken answers with X-Fault")
    log_level: str = _choice("info", LOG_LEVELS, "least level that is logged")


@dataclass(frozen=True)
class GenerateConfig(EngineConfig):
    """What `streamtok generate` needs."""

    raw: bool = _setting(False, "continue the prompt, do not chat")
    max_tokens: int | None = _optional(int, "the most tokens to generate")
    temperature: float | None = _optional(float, "0 takes the likeliest token always")
    seed: int | None = _optional(int, "the same seed gives the same answer")


@dataclass(frozen=True)
class ChatConfig:
    """What `streamtok chat` needs."""

    url: str = _setting("", "a server's URL (default: one is started for the chat)")
    api_key: str = _setting("", "its API key; in the variable other users cannot see it")
    system: str = _setting("", "the system message")


@dataclass(frozen=True)
class LearnConfig:
    """What `streamtok learn` needs."""

    plain: bool = _setting(False, "print all lessons with their answers: no questions, no colour")
    progress: str = _setting(
        str(user_state_path("streamtok", appauthor=False) / "lessons"),
        "file of the lessons that are done",
    )


def flag_name(setting: Field[Any]) -> str:
    """Return the flag of a field: underscores as hyphens, without the unit of time."""
    return "--" + setting.name.removesuffix("_s").replace("_", "-")


def variable_name(setting: Field[Any]) -> str:
    """Return the environment variable of a field."""
    return "STREAMTOK_" + flag_name(setting)[2:].replace("-", "_").upper()


def secret(variable: str) -> str:
    """Return what the environment variable holds; nothing if none is named.

    Raises:
        ConfigError: it is not set.
    """
    if variable and variable not in os.environ:
        raise ConfigError(f"the environment variable {variable} is not set")
    return os.environ[variable] if variable else ""


def span_exporter() -> str:
    """Return the exporter of spans that OpenTelemetry's own variables ask for; none, if none do."""
    given = os.environ.get
    ends = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(map(given, ends)) else ""
    name = given("OTEL_TRACES_EXPORTER") or default
    is_off = name == "none" or given("OTEL_SDK_DISABLED", "").lower() == "true"
    return "" if is_off else name


def read(kind: type[Any], given: Mapping[str, str | None]) -> Any:
    """Return a config of type `kind` from the flags `given` (by field name), the environment, and
    the defaults.

    Raises:
        ConfigError: a value cannot be read, is out of range, or excludes another; names its flag or
            variable.
    """
    values = {}
    named: dict[str, str] = {}  # field -> flag or variable it came from
    for setting in fields(kind):
        sources = (
            (flag_name(setting), given.get(setting.name)),
            (variable_name(setting), os.environ.get(variable_name(setting))),
        )
        for source, text in sources:
            if text is not None:
                values[setting.name] = _parse(setting, source, text)
                if text:
                    named[setting.name] = source
                break
    _check_exclusive(named)
    return kind(**values)


def _check_exclusive(named: Mapping[str, str]) -> None:
    """Refuse settings that exclude each other."""
    for one, other in EXCLUSIVE:
        if one in named and other in named:
            raise ConfigError(f"{named[one]} and {named[other]} exclude each other")


def _parse(setting: Field[Any], source: str, text: str) -> Any:
    """Return `text` as a value of the field's type."""
    if isinstance(setting.default, str):
        choices = setting.metadata.get("choices", (text,))
        if text not in choices:
            raise ConfigError(f"{source}: expected one of {', '.join(choices)}, found {text!r}")
        return text
    if isinstance(setting.default, bool):
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("", "0", "false", "no", "off"):
            return False
        raise ConfigError(f"{source}: expected true or false, found {text!r}")
    if setting.metadata.get("kind") == "size":
        return _parse_size(source, text)
    whole = isinstance(setting.default, int) or setting.metadata.get("kind") is int
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        noun = "a whole number" if whole else "a number"
        raise ConfigError(f"{source}: expected {noun}, found {text!r}") from error
    least, most = setting.metadata["least"], setting.metadata["most"]
    if not least <= value <= most:
        limits = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        raise ConfigError(f"{source}: expected {limits}, found {text}")
    return value


def _parse_size(source: str, text: str) -> int:
    """Return a number of bytes: `text` is a whole number with a unit behind it, or none."""
    match = re.fullmatch(r"([0-9]+) ?([A-Za-z]*)", text)
    if not match or match[2] not in UNITS:
        raise ConfigError(f"{source}: expected bytes, such as 512MiB or 2GiB, found {text!r}")
    return int(match[1]) * UNITS[match[2]]
