"""The composition of the proxy: settings in, a running proxy out. `streamtok.app` is the server's.

Read next: `streamtok.proxy.forward`.
"""

import asyncio
import sys
from pathlib import Path

from rich.console import Console

from streamtok.api.route import refuse
from streamtok.clock import SystemClock
from streamtok.errors import ConfigError, RequestError
from streamtok.faults.inject import Faults
from streamtok.http.edge.forwarded import Proxies, under
from streamtok.http.edge.hosts import Hosts
from streamtok.http.edge.outbox import TurnOutbox
from streamtok.http.edge.sockets import Endpoint, open_endpoint
from streamtok.http.edge.tls import load_certificate
from streamtok.http.edge.upstream import Upstream
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.observe.sinks import open_tracing
from streamtok.proxy.config import ProxyConfig
from streamtok.proxy.forward import Forward, Options, Replay
from streamtok.proxy.judge import Judge
from streamtok.proxy.recording import Recorder, Replayer

DRAIN_S = 5.0  # how long running answers have at the end


class ProxyApp:
    """A proxy before the server at `url`; without one it answers from recordings alone.

    Raises:
        ConfigError: a setting cannot be used, or there is nothing to answer from.
    """

    def __init__(self, config: ProxyConfig, url: str) -> None:
        if bool(url) == bool(config.replay):
            raise ConfigError("proxy: expected the URL of a server, or --replay without one")
        if config.workers > 1:
            raise ConfigError("--workers: a proxy is one process")
        self._config = config
        self._hosts = Hosts(config.allowed_hosts)
        self._clock = SystemClock()
        self._certificate = load_certificate(config.certfile, config.keyfile)
        self._tracing = open_tracing(config, self._clock, None)
        self._judge = Judge(url, self._clock) if config.check else None
        self._faults = Faults() if config.faults else None
        self._answering = self._handler(url)
        self._server = Server(
            Service(
                handle=under(config.root_path, self._handle),
                refuse=refuse,
                clock=self._clock,
                limits=config,
                peers=Proxies(config.forwarded_allow_ips),
                tracer=self._tracing.tracer if self._tracing else None,
                outbox=TurnOutbox(),
            )
        )
        self._endpoint: Endpoint | None = None

    def _handler(self, url: str) -> Forward | Replay:
        config = self._config
        if config.replay:
            if config.record or config.check or config.faults:
                raise ConfigError("--replay: excludes --record, --check and --faults")
            return Replay(Replayer(Path(config.replay)), at_once=config.at_once)
        if config.at_once:
            raise ConfigError("--at-once: needs --replay")
        tracer = self._tracing.tracer if self._tracing else None
        recorder = Recorder(Path(config.record)) if config.record else None
        options = Options(recorder, self._faults, self._judge, tracer)
        return Forward(Upstream(url, config.timeout_s), self._clock, options)

    async def _handle(self, request: Request) -> Response:
        """Answer a request that is for this proxy, and not for a page's own rebound name."""
        try:
            self._hosts.check(request)
        except RequestError as error:
            return refuse(error)
        return await self._answering.handle(request)

    async def start(self) -> str:
        """Listen, and return the URL.

        Raises:
            ConfigError: the address cannot be had.
        """
        config = self._config
        self._endpoint = open_endpoint(config)
        self._hosts.local = self._endpoint.is_local
        tls = self._certificate.context if self._certificate else lambda: None
        self._server.listen(self._endpoint.sockets, tls, config.backlog)
        return self._endpoint.url("https" if self._certificate else "http")

    def reload(self) -> None:
        """Read the certificate again."""
        if self._certificate:
            self._certificate.reload()

    async def stop(self) -> None:
        """Let running answers end, close, and print the report if there is one."""
        self._server.finish()
        if self._endpoint:
            self._endpoint.close()
        if self._faults:
            self._faults.end()
        await self._server.wait(DRAIN_S)
        await self._server.abort()
        if self._tracing:
            await asyncio.to_thread(self._tracing.close)
        if self._judge:
            put_in = self._faults.put_in if self._faults else {}
            self._judge.show(Console(file=sys.stdout, highlight=False), put_in)

    @property
    def failed(self) -> bool:
        """Whether an answer broke a rule, so that clients break."""
        return self._judge is not None and self._judge.report.failed
