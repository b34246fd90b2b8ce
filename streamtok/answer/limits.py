"""Limits of what each caller may use, in the order of a request's life; here there are none.

A caller is an API key or, where there are none, a network address. `streamtok.app` plugs in
`streamtok.api.access.limits`, which counts requests, tokens and streams.

Read next: `streamtok.answer.generation`.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from streamtok.http.request import HeaderList


class Limits:
    """Lets everybody do everything."""

    def admit(self, caller: str) -> None:
        """Count a request.

        Raises:
            RateLimited: the caller has used up what it may; then nothing is counted.
        """

    def check_streams(self, caller: str, count: int) -> None:
        """Check that `count` streams more may run.

        Raises:
            InvalidRequest: not even if there were no others.
            RateLimited: not while the others run.
        """

    def begin(self, caller: str, streams: int, prompt_tokens: int) -> None:
        """Charge a request that the engine has taken."""

    def end(self, caller: str, streams: int, generated_tokens: int) -> None:
        """Charge the rest when the request has left the engine."""

    def headers(self, caller: str) -> HeaderList:
        """Return what is left to the caller, in headers of an answer."""
        return ()


@lru_cache(1024)  # asked for several times a request
def network(address: str) -> str:
    """Return whom an address counts for: of IPv6 the /64, all of which one machine may use."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address  # a Unix socket has none
    if not isinstance(ip, IPv6Address):
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
