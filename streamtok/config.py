"""Every setting of the server, with its type, its default and its meaning.

`streamtok.settings` reads them from flags and from the environment, where a field
`drain_timeout_s` is the flag `--drain-timeout` and the variable `STREAMTOK_DRAIN_TIMEOUT`.

Read next: `streamtok.clock`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from platformdirs import user_state_path

# The descriptions are what error messages say was expected.
Count = Annotated[int, Meta(ge=0, description="a whole number, 0 or more")]
Positive = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
HeaderBytes = Annotated[int, Meta(ge=1024, description="a whole number, 1024 or more")]
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number, 0 to 65535")]
FileNumber = Annotated[int, Meta(ge=-1, description="a whole number, -1 or more")]
Duration = Annotated[float, Meta(ge=0, description="a number, 0 or more")]
Timeout = Annotated[float, Meta(ge=0.001, description="a number, 0.001 or more")]
LogLevel = Literal["debug", "info", "warning", "error"]


class Bytes(int):
    """A number of bytes, which is written with a unit or without, such as 512MiB."""


def setting(default: Any, meaning: str) -> Any:
    """Declare a setting; `meaning` is what the help says of it."""
    return field(default=default, metadata={"help": meaning})


def default_model() -> str:
    """Return the folder of the model that comes with the package.

    An installed package holds it; in a checkout it is next to the package.
    """
    package = Path(__file__).parent
    folders = (package / "weights" / "fireside", package.parent / "weights" / "fireside")
    return str(next((folder for folder in folders if folder.is_dir()), folders[0]))


@dataclass(frozen=True)
class EngineConfig:
    """What the engine needs; the commands without a server have these settings too."""

    model: str = setting("", "folder of a Hugging Face model (default: the one that is shipped)")
    max_streams: Positive = setting(32, "sequences generated at once")
    max_queue: Count = setting(128, "sequences that may wait for a slot; more are refused")
    step_tokens: Positive = setting(512, "positions computed in one step, prompts included")
    engine: Literal["process", "thread", "ray"] = setting(
        "process", "where the model is computed: beside the server, in it, or in replicas on Ray"
    )
    kv_memory: Bytes = setting(
        Bytes(0),
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

    max_connections: Positive = setting(2000, "connections at once; more get a 503")
    max_connections_per_address: Count = setting(
        0, "connections of one address at once, 0: any number; more get a 503"
    )
    max_requests_per_connection: Positive = setting(10_000, "answers, then the connection closes")
    max_target_bytes: Positive = setting(8 * 1024, "longest request target")
    max_header_bytes: HeaderBytes = setting(64 * 1024, "largest request head")
    max_header_count: Positive = setting(100, "most header fields in a request")
    max_body_bytes: Positive = setting(4 * 1024 * 1024, "largest request body")
    header_timeout_s: Timeout = setting(10.0, "seconds a request's head may take")
    max_buffered_bytes: Count = setting(
        64 * 1024 * 1024, "bytes of all requests' bodies at once, without 64 KiB of each"
    )
    body_timeout_s: Timeout = setting(
        10.0, "seconds a request's body may pause or fall behind --min-body-rate"
    )
    min_body_rate: Timeout = setting(1024.0, "bytes per second at which a body must arrive")
    idle_timeout_s: Timeout = setting(75.0, "seconds a connection may be idle")
    stall_timeout_s: Timeout = setting(30.0, "seconds a client may read nothing")


@dataclass(frozen=True)
class ApiConfig:
    """Who may use the API, how much, and from which pages."""

    api_keys: str = setting("", "file of API keys, read again on SIGHUP (default: none needed)")
    admin_keys: str = setting(
        "", "names of API keys, with commas between them, that see what all keys have used"
    )
    requests_per_minute: Count = setting(0, "requests of one key in a minute, 0: any number")
    tokens_per_minute: Count = setting(0, "tokens of one key in a minute, 0: any number")
    streams_per_key: Count = setting(0, "sequences of one key at once, 0: any number")
    heartbeat_s: Duration = setting(0.0, "seconds between heartbeats to the first token, 0: none")
    request_timeout_s: Duration = setting(
        0.0, "seconds an answer may take in all, 0: any time; more get an error"
    )
    cors_origins: str = setting(
        "", "origins of web pages that may use the API, or * for all (default: none)"
    )
    unknown_fields: Literal["ignore", "refuse"] = setting("ignore", "unknown fields of requests")
    model_alias: str = setting(
        "", "other names of the model, with commas between, or * for any name (default: none)"
    )
    open_objects: bool = setting(
        False, "let JSON objects have properties that their schema does not name"
    )
    stored_responses: Count = setting(
        1000, "responses kept for each key in the ledger's file, to go on from; 0: none"
    )
    stored_streams: Count = setting(
        1000, "resumable streams kept in the ledger once they have ended; 0: none are resumable"
    )
    resume_window_s: Timeout = setting(30.0, "seconds a client may be away from such a stream")


@dataclass(frozen=True)
class ListenConfig:
    """Where to listen, in how many processes, and behind which proxies."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: Port = setting(8000, "port to listen on; 0 lets the system choose")
    uds: str = setting("", "path of a Unix socket to listen on, instead of --host and --port")
    fd: FileNumber = setting(-1, "inherited listening socket, by number, -1: none")
    backlog: Positive = setting(1024, "connections that may wait to be accepted")
    workers: Positive = setting(1, "processes that serve; each has its own engine and limits")
    certfile: str = setting("", "PEM file of the TLS certificate and its chain (default: no TLS)")
    keyfile: str = setting("", "PEM file of the certificate's key (default: the same file)")
    forwarded_allow_ips: str = setting(
        "", "proxies whose X-Forwarded-For is believed: addresses, networks, unix (default: none)"
    )
    allowed_hosts: str = setting(
        "",
        "names in Host that are answered, * for any (default: any; on the loopback, localhost)",
    )
    root_path: str = setting("", "path under which a proxy exposes the server (default: /)")


@dataclass(frozen=True)
class TraceConfig:
    """Where to trace the bytes on the wire."""

    trace: bool = setting(False, "print every byte on the wire, annotated")
    trace_file: str = setting("", "append the trace to a file as JSON lines (default: none)")
    trace_pcapng: str = setting("", "append packets for Wireshark to a file (default: none)")


@dataclass(frozen=True)
class ServeConfig(EngineConfig, ListenConfig, ConnectionConfig, ApiConfig, TraceConfig):
    """What `streamtok serve` needs."""

    ledger: str = setting(
        str(user_state_path("streamtok", appauthor=False) / "usage.sqlite3"),
        "file of the usage ledger, or a postgresql:// URL; :memory: keeps it while the server runs",
    )
    ledger_days: Count = setting(0, "days the ledger's rows are kept, 0: for ever")
    drain_timeout_s: Duration = setting(30.0, "seconds running streams have to finish at a stop")
    close_after_stream: bool = setting(False, "close the connection after each streamed answer")
    faults: bool = setting(False, "let requests ask for faults, to test clients")
    script: str = setting("", "file of prescribed answers, TOML or JSON (default: none)")
    script_only: bool = setting(False, "load no model: what --script does not answer is a 404")
    frozen_clock: bool = setting(False, "stop the date at the start of 2026, so answers repeat")
    ids: Literal["random", "sequential"] = setting("random", "ids of requests and answers")
    log_level: LogLevel = setting("info", "least level that is logged")
    replicas: Positive = setting(1, "replicas of the engine, with --engine ray")
    ray_address: str = setting(
        "local", "their Ray cluster: local starts one, auto finds this machine's, or an address"
    )
    ray_cpus: Duration = setting(1.0, "processors that Ray sets aside for a replica")
    ray_detached: bool = setting(False, "leave the replicas running when the server ends")
