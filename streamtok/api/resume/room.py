"""What `streamtok.app` plugs in: the routes that have resumable streams, and a server's start and
end with them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial, update_wrapper
from pathlib import Path

from streamtok.api.anthropic import messages
from streamtok.api.more import link
from streamtok.api.openai import chat, completions
from streamtok.api.responses import responses
from streamtok.api.resume import endpoints
from streamtok.api.resume.endpoints import StreamDeleted, StreamQuery
from streamtok.api.resume.owners import forget, new_owner
from streamtok.api.resume.rows import Rows
from streamtok.api.resume.running import RunningRequests
from streamtok.api.resume.streams import Later, Settings, Streams
from streamtok.api.route import Operation, Route
from streamtok.api.services import Services
from streamtok.config import ServeConfig
from streamtok.http.framings import OFFERS, TYPED_OFFERS, Offer
from streamtok.ledger import Database

POSTS: Mapping[str, Sequence[Offer]] = {
    chat.ENDPOINT: OFFERS,
    completions.ENDPOINT: OFFERS,
    responses.ENDPOINT: TYPED_OFFERS,
    messages.ENDPOINT: TYPED_OFFERS,
}
STREAM = f"{endpoints.ENDPOINT}/*"


class Resumption:
    """Resumable streams whose rows are in `database`.

    `running` is for the meter: where the ledger lasts, it books what a crash loses. `later` is the
    timer of the window; without it, the event loop's.
    """

    def __init__(self, config: ServeConfig, database: Database, later: Later | None = None) -> None:
        is_file = "://" not in config.ledger
        lasts = config.ledger != ":memory:"
        self._owner = new_owner(is_shared=not is_file)
        rows = Rows(database, Path(config.ledger) if is_file and lasts else None)
        settings = Settings(config.resume_window_s, config.stored_streams, self._owner, later)
        self.streams = Streams(rows, settings)
        self.running = RunningRequests(database, self._owner) if lasts else None

    def around(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """Return `routes`, with resumable streams, and the routes to these."""
        found = []
        for route in routes:
            name = (route.method, route.path)
            self.streams.endpoints[route.path] = route.endpoint
            if name == ("GET", link.ENDPOINT):
                endpoint = endpoints.get(self.streams, route.endpoint, link.OFFERS)
            elif route.method == "POST" and route.path in POSTS:
                endpoint = endpoints.post(self.streams, route.endpoint, POSTS[route.path])
            else:
                endpoint = route.endpoint
            found.append(replace(route, endpoint=endpoint))
        return (*found, *self._own())

    def _own(self) -> Iterable[Route]:
        rest = Operation(query=StreamQuery, media_type="text/event-stream")
        for method, endpoint, operation in (
            ("GET", endpoints.stream, rest),
            ("DELETE", endpoints.delete, Operation(StreamDeleted)),
        ):
            bound = update_wrapper(partial(endpoint, self.streams), endpoint)
            yield Route(method, STREAM, bound, operation)

    async def start(self, services: Services) -> None:
        """Book what a process that is gone was doing, and take its streams over.

        Raises:
            Unavailable: the ledger's database cannot do it.
        """
        if self.running is not None:
            await self.running.start()
            services.meter.on_begin, services.meter.on_end = self.running.begin, self.running.end
        await self.streams.start(services)

    async def close(self) -> None:
        """Break off what still runs, to be resumed by a later process."""
        await self.streams.close()

    def end(self) -> None:
        """Take note that this process has nothing more in the ledger that runs."""
        if self.running is not None:
            self.running.flush()
        forget(self._owner)
