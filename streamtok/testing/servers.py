"""Servers for tests: parts around any engine. `streamtok.serve.background` has a whole one."""

import socket
from functools import partial
from itertools import count
from pathlib import Path

from streamtok.answer.ask import Timer, Timers
from streamtok.answer.direct.body import attach, direct
from streamtok.answer.meter import Meter
from streamtok.api.access.lanes import Lanes
from streamtok.api.access.limits import RateLimits
from streamtok.api.constraints.compiler import Constraints
from streamtok.api.input.reader import BodyReader
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.api.services import Services
from streamtok.clock import Clock
from streamtok.config import ApiConfig, ConnectionConfig
from streamtok.engine.base import Engine
from streamtok.engine.extras.grammars import Grammars
from streamtok.faults.inject import Faults
from streamtok.http.edge.outbox import TurnOutbox
from streamtok.http.server import Server
from streamtok.http.service import Service
from streamtok.ledger import Ledger
from streamtok.metrics import Metrics
from streamtok.text.detokenizer import Detokenizers
from streamtok.text.long import LongTexts
from streamtok.text.tokenizer import Tokenizer
from streamtok.text.tool_calls.template import ToolChatTemplate


def make_services(
    folder: Path,
    engine: Engine,
    clock: Clock,
    *,
    close_after_stream: bool = False,
    limits: ApiConfig | None = None,
    heartbeat: Timer | None = None,
    deadline: Timer | None = None,
    faults: Faults | None = None,
    stored_responses: int = 10,
    grammars: Grammars | None = None,
) -> Services:
    """Return what the endpoints need, around `engine` and the tokenizer in `folder`.

    Ids, seeds and the clock do not vary, so that answers are the same bytes each time.
    """
    tokenizer, numbers = Tokenizer(folder), count(1)
    tokenizer.long = LongTexts(tokenizer.backend)
    template = ToolChatTemplate(tokenizer)
    return Services(
        engine=engine,
        model="tiny",
        created=int(clock.wall_s()),
        tokenizer=tokenizer,
        detokenizers=Detokenizers(tokenizer),
        template=template,
        defaults={"temperature": 1.0},
        meter=Meter(
            Ledger(":memory:"),
            Metrics(engine.stats),
            RateLimits(limits or ApiConfig(), clock),
            clock,
        ),
        new_id=lambda prefix: f"{prefix}{next(numbers)}",
        new_seed=lambda: 0,
        close_after_stream=close_after_stream,
        timers=Timers(heartbeat, deadline),
        stored_responses=stored_responses,
        offload=Lanes(),
        reader=BodyReader(engine.context),
        faults=faults,
        direct=direct,
        constraints=Constraints(grammars, template),
    )


def make_service(api: Api, clock: Clock, limits: ConnectionConfig | None = None) -> Service:
    """Return what a connection needs, around `api`, as `streamtok.app` plugs it together."""
    outbox, limits = TurnOutbox(), limits or ConnectionConfig()
    write_directly = partial(attach, outbox.soon)
    return Service(api.handle, refuse, clock, limits, outbox=outbox, attach=write_directly)


def listen_locally(server: Server) -> tuple[str, int]:
    """Let `server` accept connections on a free port of the loopback; return host and port."""
    sock = socket.create_server(("127.0.0.1", 0))
    server.listen([sock], lambda: None, backlog=1024)
    host, port = sock.getsockname()
    return host, port
