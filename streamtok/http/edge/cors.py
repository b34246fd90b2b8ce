"""Which web pages may use this server: cross-origin resource sharing (WHATWG Fetch, "CORS").

A browser lets a page of another origin read an answer only where the answer allows it, whatever its
status; so the headers stand on every answer. Before a request with an `Authorization` or a JSON
`Content-Type` it asks first, by an `OPTIONS` request without a key: the preflight. Keys are sent by
the page itself and not by the browser, so credentials (cookies) are never allowed.

Without an allowance a page cannot read an answer, but it can still have a browser send what needs
no preflight, and keep the engine busy (cross-site request forgery). So what a page of another
origin sends is refused where it would change or compute something, unless that origin is allowed.
Browsers say where a request comes from in `Sec-Fetch-Site` and, if they are older or the connection
is not secure, in `Origin`; other programs send neither (as Go's CrossOriginProtection has it).
"""

import re
from collections.abc import Iterable

from streamtok.errors import ConfigError, Forbidden
from streamtok.http.request import HeaderList, Request

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,]+")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 section 5.6.2, in lower case
ALLOWED_HEADERS = ("accept", "authorization", "content-type", "x-request-id")
EXPOSED_HEADERS = ", ".join(
    (
        "request-id",
        "retry-after",
        "x-ignored-fields",
        "x-request-id",
        *(
            f"x-ratelimit-{what}-{kind}"
            for kind in ("requests", "tokens")
            for what in ("limit", "remaining", "reset")
        ),
    )
)
MAX_AGE_S = 7200  # how long a browser may remember a preflight; Chromium takes no more


class Cors:
    """Allows the origins in a comma-separated list, all for "*", none if it is empty.

    Raises:
        ConfigError: the list has something that is no origin.
    """

    def __init__(self, origins: str) -> None:
        self._origins = [text.strip().lower() for text in origins.split(",") if text.strip()]
        for origin in self._origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"--cors-origins: expected * or origins such as https://example.com, "
                    f"found {origin!r}"
                )
        if len(self._origins) > 1 and "*" in self._origins:
            raise ConfigError("--cors-origins: expected * alone, or a list without it")

    def headers(self, request: Request) -> HeaderList:
        """Return the headers for the answer to `request`."""
        # What does not depend on the request's origin needs no Vary, and caches keep it once.
        vary = (("vary", "origin"),) if len(self._origins) > 1 else ()
        if (origin := self._allowed(request)) is None:
            return vary
        return (
            ("access-control-allow-origin", origin),
            *vary,
            ("access-control-expose-headers", EXPOSED_HEADERS),
        )

    def check(self, request: Request) -> None:
        """Check that no web page that may not use the server has `request` sent.

        Raises:
            Forbidden: one of another origin does.
        """
        origin, site = request.header("origin"), request.header("sec-fetch-site")
        if "*" in self._origins or origin in self._origins:
            return
        if site is not None:
            crosses = site not in ("same-origin", "none")
        else:  # the scheme is not compared: a proxy may have taken TLS off
            host = (request.header("host") or "").lower()
            crosses = origin is not None and origin.lower().partition("://")[2] != host
        if crosses:
            raise Forbidden(
                f"a web page of {origin or 'another site'} may not use this server; "
                "--cors-origins allows it",
                code="cross_site",
            )

    def preflight(self, request: Request, methods: Iterable[str]) -> HeaderList:
        """Return the headers that answer a preflight; none if `request` is not one."""
        is_preflight = request.header("access-control-request-method") is not None
        if not is_preflight or self._allowed(request) is None:
            return ()
        asked = (request.header("access-control-request-headers") or "").lower().split(",")
        names = {name.strip() for name in asked if TOKEN.fullmatch(name.strip())}
        return (
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-allow-headers", ", ".join(sorted({*ALLOWED_HEADERS, *names}))),
            ("access-control-max-age", str(MAX_AGE_S)),
        )

    def _allowed(self, request: Request) -> str | None:
        """Return the origin that the answer to `request` is to allow, if any."""
        if len(self._origins) == 1:
            return self._origins[0]
        origin = request.header("origin")
        return origin if origin in self._origins else None
