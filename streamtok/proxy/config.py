"""The settings of `streamtok proxy`."""

from dataclasses import dataclass

from streamtok.config import (
    ConnectionConfig,
    ListenConfig,
    LogLevel,
    Port,
    Timeout,
    TraceConfig,
    setting,
)


@dataclass(frozen=True)
class ProxyConfig(ListenConfig, ConnectionConfig, TraceConfig):
    """What `streamtok proxy` needs, beside the URL of a server."""

    port: Port = setting(8080, "port to listen on; 0 lets the system choose")
    timeout_s: Timeout = setting(600.0, "seconds until the server's answer must begin")
    record: str = setting("", "folder to write each exchange to (default: none)")
    replay: str = setting("", "folder of recordings to answer from, instead of a server")
    at_once: bool = setting(False, "answer from recordings at once, not at their own pace")
    check: bool = setting(False, "apply the doctor's rules; a report is printed at the end")
    faults: bool = setting(False, "let requests ask for broken answers with X-Fault")
    log_level: LogLevel = setting("info", "least level that is logged")
