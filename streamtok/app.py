"""The composition root: settings in, a running server out. Plugs the rooms into the heart.

A server's life: listen, load the model (until then `/health` says "loading"), serve, and at a
signal drain: accept no more, let streams finish, end those that take too long with an error event,
close the books.

Read next: `streamtok.config`.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from streamtok.answer.ask import Alarm, Timer, Timers
from streamtok.answer.direct.body import attach, direct
from streamtok.answer.meter import Meter
from streamtok.api.access.keys import KeyFile
from streamtok.api.access.lanes import Lanes
from streamtok.api.access.limits import RateLimits
from streamtok.api.constraints.compiler import Constraints
from streamtok.api.input.reader import BodyReader
from streamtok.api.more.routes import ROUTES
from streamtok.api.resume.room import Resumption
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.api.services import Services
from streamtok.clock import Clock, FrozenClock, SystemClock
from streamtok.config import ServeConfig
from streamtok.engine.base import Engine
from streamtok.engine.remote.early import EarlyProcess
from streamtok.errors import ConfigError
from streamtok.faults.inject import Faults
from streamtok.http.edge.cors import Cors
from streamtok.http.edge.forwarded import Handler, Proxies, under
from streamtok.http.edge.hosts import Hosts
from streamtok.http.edge.outbox import TurnOutbox
from streamtok.http.edge.sockets import Endpoint, open_endpoint
from streamtok.http.edge.tls import load_certificate
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.ids import new_ids
from streamtok.ledger import Ledger
from streamtok.metrics import Metrics
from streamtok.observe.kept import Traces
from streamtok.observe.sinks import open_tracing
from streamtok.script.stage import before, directed, open_script, without_model
from streamtok.startup import ModelFiles, headers_of, kill_of, read_files, start_engine, warm_up
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.tool_calls.template import ToolChatTemplate

log = logging.getLogger(__name__)

ENDING_S = 5.0  # how long connections have to send their last bytes once the engine is closed


class App:
    """A server with its engine and its books; one of several if it is given a Share.

    The engine's process may have been started `early`; who did that closes it.

    Raises:
        ConfigError: a file or an address that a setting names cannot be used.
    """

    def __init__(
        self,
        config: ServeConfig,
        share: "Share | None" = None,
        around: Callable[[Handler], Handler] = lambda handle: handle,
        early: EarlyProcess | None = None,
    ) -> None:
        """Make a server; `around` is given what answers requests, and returns what to ask."""
        _check_books(config)
        self._config = config
        self._share = share
        self._early = early
        self._certificate = load_certificate(config.certfile, config.keyfile)
        self._clock = FrozenClock() if config.frozen_clock else SystemClock()
        self._keys = _read_keys(config)
        self._script = open_script(config)
        self._tracing = open_tracing(config, self._clock, share.worker if share else None)
        new_request_id = partial(new_ids(config.ids), "req_")
        self._traces = Traces(self._clock)
        self._hosts = Hosts(config.allowed_hosts)
        pages = Cors(config.cors_origins)
        self._ledger = _open_ledger(config.ledger, config.ledger_days)
        self._resumption = Resumption(config, self._ledger.database)
        routes = self._resumption.around(ROUTES)
        self._api = Api(routes, self._keys, pages, new_request_id, self._hosts.check)
        outbox = TurnOutbox()
        self._server = Server(
            Service(
                handle=under(config.root_path, self._traces.around(around(self._api.handle))),
                refuse=refuse,
                clock=self._clock,
                limits=config,
                peers=Proxies(config.forwarded_allow_ips),
                tracer=self._tracing.tracer if self._tracing else None,
                outbox=outbox,
                attach=partial(attach, outbox.soon),
            )
        )
        self._endpoint: Endpoint | None = None
        self._services: Services | None = None
        self._stopped = False

    async def start(self) -> str:
        """Listen, load the model, and return the server's URL when it is ready.

        It listens first, so that `/health` can say that it is being started. Where somebody else
        holds the sockets open, as a supervisor does, it listens last: clients then wait meanwhile.

        Raises:
            ConfigError: the address cannot be had, or there is too little memory.
            ModelError: the model cannot be loaded.
        """
        config, share = self._config, self._share
        self._endpoint = share.endpoint if share else open_endpoint(config)
        self._hosts.local = self._endpoint.is_local
        held = share is not None or config.fd >= 0
        if not held:
            self._listen(self._endpoint)
        services = await load(config, self._ledger, self._clock, share, self._early)
        if self._script:
            services = directed(services, self._script, only=config.script_only)
        self._services = replace(services, find_trace=self._traces.find)
        await self._resumption.start(self._services)
        self._api.open(self._services)
        if held:
            self._listen(self._endpoint)
        return self._endpoint.url("https" if self._certificate else "http")

    def _listen(self, endpoint: Endpoint) -> None:
        tls = self._certificate.context if self._certificate else lambda: None
        self._server.listen(endpoint.sockets, tls, self._config.backlog)

    def reload(self) -> None:
        """Read the files again that may be renewed while the server runs."""
        if self._certificate:
            self._certificate.reload()
        if self._keys:
            self._keys.reload()

    def change(self, make: Callable[[Services], Services]) -> Services:
        """Serve from now on with what `make` makes of the services, and return that."""
        assert self._services is not None
        self._services = make(self._services)
        self._api.open(self._services)
        return self._services

    @property
    def meter(self) -> Meter:
        """The books, once the server is ready."""
        assert self._services is not None
        return self._services.meter

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
        if self._endpoint:
            self._endpoint.close()
        if self._services and self._services.faults:
            self._services.faults.end()
        await self._server.wait(self._config.drain_timeout_s)
        await self._resumption.close()
        if self._services:
            await self._services.engine.close()
            self._services.offload.close()
        await self._server.wait(ENDING_S)
        await self._server.abort()
        if self._services:
            await self._services.meter.settled()
        self._resumption.end()
        self._ledger.close()
        if self._tracing:
            await asyncio.to_thread(self._tracing.close)


async def load(
    config: ServeConfig,
    ledger: Ledger,
    clock: Clock,
    share: "Share | None" = None,
    early: EarlyProcess | None = None,
) -> Services:
    """Load the model, unless it is shared, and start its engine; the event loop stays free.

    Raises:
        ConfigError: there is no memory for one context of it.
        ModelError: the model cannot be loaded.
    """
    alone = config.script_only
    files = share.files if share else await asyncio.to_thread(read_files, config)
    engine = without_model(config) if alone else await start_engine(config, files, early)
    places, kill = headers_of(engine), kill_of(engine)
    try:
        _, template = await asyncio.gather(
            asyncio.sleep(0) if alone else warm_up(engine),
            asyncio.to_thread(ToolChatTemplate, files.tokenizer),
        )
        engine = before(engine) if config.script and not alone else engine
        services = _services(config, ledger, clock, share, files, template, engine)
        faults = Faults(kill=kill) if config.faults else None
        return replace(services, headers_of=places, faults=faults)
    except BaseException:  # cancelled among them
        await engine.close()
        raise


def _services(
    config: ServeConfig,
    ledger: Ledger,
    clock: Clock,
    share: "Share | None",
    files: ModelFiles,
    template: ToolChatTemplate,
    engine: Engine,
) -> Services:
    if config.faults:
        log.warning("--faults: whoever reaches this server may ask it for broken answers")
    folder = config.model_folder
    return Services(
        engine=engine,
        model=folder.resolve().name,
        created=int(
            clock.wall_s() if config.frozen_clock else (folder / "config.json").stat().st_mtime
        ),
        tokenizer=files.tokenizer,
        detokenizers=Detokenizers(files.tokenizer),
        template=template,
        defaults=files.defaults,
        meter=Meter(
            ledger,
            Metrics(engine.stats, share.worker if share else None),
            RateLimits(config, clock),
            clock,
        ),
        new_id=new_ids(config.ids),
        new_seed=lambda: secrets.randbits(63),
        close_after_stream=config.close_after_stream,
        timers=Timers(_timer(config.heartbeat_s), _timer(config.request_timeout_s)),
        refuse_unknown=config.unknown_fields == "refuse",
        offload=Lanes(),
        reader=BodyReader(engine.context),
        stored_responses=config.stored_responses,
        constraints=Constraints(files.grammars, template, close=not config.open_objects),
        direct=direct,
        aliases=tuple(filter(None, map(str.strip, config.model_alias.split(",")))),
    )


def _open_ledger(place: str, days: int) -> Ledger:
    if "://" not in place:
        return Ledger(place, days)
    from streamtok.postgres import open_ledger

    return open_ledger(place, days)


def _read_keys(config: ServeConfig) -> KeyFile | None:
    """Return the API keys, if there is a file of them. Raises ConfigError."""
    if config.admin_keys and not config.api_keys:
        raise ConfigError("--admin-keys needs --api-keys")
    return KeyFile(Path(config.api_keys), config.admin_keys) if config.api_keys else None


def _check_books(config: ServeConfig) -> None:
    """Refuse to book what is not true where it lasts."""
    if (config.frozen_clock or config.ids != "random") and config.ledger != ":memory:":
        raise ConfigError(
            "--frozen-clock and --ids sequential need --ledger :memory:, since dates that stand "
            "still and ids that repeat are nothing for lasting books"
        )


def _timer(seconds: float) -> Timer | None:
    """Return a timer of the running event loop; none for no time."""
    if not seconds:
        return None
    loop = asyncio.get_running_loop()

    def set_alarm(ring: Callable[[], None]) -> Alarm:
        return loop.call_later(seconds, ring)

    return set_alarm


class Share(Struct, frozen=True):
    """What a server has from who made it: one of several `streamtok.serve.workers`, or a test's.

    `worker` is its number among several, None where there is only one.
    """

    worker: int | None
    endpoint: Endpoint
    files: ModelFiles
