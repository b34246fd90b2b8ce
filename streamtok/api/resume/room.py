"""What `streamtok.app` plugs in: the routes that have resumable streams, and a server's start and
end with them.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial, update_wrapper
from pathlib import Path

from msgspec.structs import replace

from streamtok.api.anthropic import messages
from streamtok.api.more import link
from streamtok.api.openai import chat, completions
from streamtok.api.responses import responses
from streamtok.api.responses.answers import ResponseBody
from streamtok.api.resume import endpoints
from streamtok.api.resume.background import Background
from streamtok.api.resume.endpoints import StreamDeleted, StreamQuery
from streamtok.api.resume.owners import forget, new_owner
from streamtok.api.resume.rows import Rows
from streamtok.api.resume.running import RunningRequests
from streamtok.api.resume.streams import Later, Settings, Streams
from streamtok.api.route import Endpoint, Operation, Route
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
STREAM, RESPONSE = f"{endpoints.ENDPOINT}/*", f"{responses.ENDPOINT}/*"


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
        self._background = Background(self.streams)
        self.running = RunningRequests(database, self._owner) if lasts else None

    def around(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """Return `routes`, with resumable streams, and the routes to these."""
        found = []
        for route in routes:
            name, endpoint = (route.method, route.path), route.endpoint
            if route.method == "POST" and route.path in POSTS:
                self.streams.endpoints[route.path] = endpoint
                endpoint = endpoints.post(self.streams, endpoint, POSTS[route.path])
            elif name == ("GET", link.ENDPOINT):
                self.streams.endpoints[route.path] = endpoint
                endpoint = endpoints.get(self.streams, endpoint, link.OFFERS)
            if route.path in (responses.ENDPOINT, RESPONSE):
                endpoint = self._with_background(route.method, endpoint)
            found.append(replace(route, endpoint=endpoint))
        return (*self._own(), *found)  # the first that fits is taken

    def _with_background(self, method: str, endpoint: Endpoint) -> Endpoint:
        if method == "POST":
            return self._background.around(endpoint)
        work = self._background.get if method == "GET" else self._background.delete
        return update_wrapper(partial(work, endpoint), endpoint)

    def _own(self) -> Iterable[Route]:
        rest = Operation(query=StreamQuery, media_type="text/event-stream")
        for method, endpoint, operation in (
            ("GET", endpoints.stream, rest),
            ("DELETE", endpoints.delete, Operation(StreamDeleted)),
        ):
            bound = update_wrapper(partial(endpoint, self.streams), endpoint)
            yield Route(method, STREAM, bound, operation)
        body = Operation(ResponseBody)
        yield Route("POST", f"{RESPONSE}/cancel", self._background.cancel, body)

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
