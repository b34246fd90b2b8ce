"""Who the client is behind a proxy, and which path it asked for. Pure functions of a request.

Anybody can write `X-Forwarded-For`, so it is believed only from the peers that the operator names,
and of its addresses only those that such a peer has added: it is read from the right, up to the
first address that is not a trusted proxy. `Forwarded` (RFC 7239) is read the same way. Where both
came and do not agree, neither is believed: most proxies write one and pass the other on unseen.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec.structs import replace

from streamtok.errors import ConfigError
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Response

Handler = Callable[[Request], Awaitable[Response]]

UNIX = "unix"  # the peer of every connection over a Unix socket
# RFC 7239 section 4. Hops are parted at every comma, quoted or not: otherwise a client's unbalanced
# quotation mark would swallow what the proxy has added behind it.
FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^\s;"]*)', re.IGNORECASE)
PREFIX = re.compile(r"(?:/[-.~%!$&'()*+,;=:@\w]+)+", re.ASCII)
NODE = re.compile(r"\[([0-9a-f:.]+)\](?::\w+)?|([0-9.]+)(?::\w+)?|([0-9a-f:.]+)", re.IGNORECASE)


class Proxies:
    """The peers whose word on the client's address is taken.

    `allowed` is a list with commas: addresses, networks, and `unix`. Raises ConfigError where it
    is something else.
    """

    def __init__(self, allowed: str) -> None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
        self._unix = UNIX in names
        self._networks = [_network(name) for name in names if name != UNIX]

    def trusts(self, peer: str) -> bool:
        """Tell whether `peer` is one of them."""
        if peer == UNIX:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, headers: HeaderList) -> str:
        """Return the address of the client that `peer` speaks for: its own unless it is trusted."""
        if not self.trusts(peer):
            return peer
        chains = (
            _hops(headers, "x-forwarded-for"),
            [_for(hop) for hop in _hops(headers, "forwarded")],
        )
        clients = {self._walk(peer, chain) for chain in chains if chain}
        return clients.pop() if len(clients) == 1 else peer

    def _walk(self, peer: str, hops: Sequence[str]) -> str:
        """Go back along the hops, as far as each was named by a trusted one."""
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:  # "unknown", "_hidden", or nonsense: the trail ends here
                return peer
            peer = address
            if not self.trusts(peer):
                return peer
        return peer


def under(root_path: str, handle: Handler) -> Handler:
    """Return a handler for a server that a proxy shows under the prefix `root_path`.

    The prefix is taken off, unless the proxy has done so already; so both ways of configuring one
    work. The prefix alone is redirected to the folder it names, where the page's links start from.

    Raises:
        ConfigError: `root_path` is not a path.
    """
    root_path = root_path.rstrip("/")
    if root_path and not PREFIX.fullmatch(root_path):
        raise ConfigError(f"--root-path: expected a path such as /llm, found {root_path!r}")

    async def handle_under(request: Request) -> Response:
        path, mark, query = _origin_form(request.target).partition("?")
        if path == root_path:
            return Response(308, (("location", f"{root_path}/{mark}{query}"),))
        if path.startswith(root_path + "/"):
            target = path.removeprefix(root_path) + mark + query
            return await handle(replace(request, target=target))
        return await handle(request)

    return handle_under if root_path else handle


def _origin_form(target: str) -> str:
    """Return path and query of a target that may be in absolute form (RFC 9112 section 3.2.2)."""
    if target.startswith("/"):
        return target
    _, _, rest = target.partition("://")
    return rest[rest.find("/") :] if "/" in rest else "/"


def _network(name: str) -> IPv6Network:
    """Return an address or a network as one of IPv6."""
    try:
        network = ip_network(name)
    except ValueError as error:
        raise ConfigError(
            f"--forwarded-allow-ips: expected addresses, networks or unix, found {name!r}"
        ) from error
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network((_mapped(network.network_address), network.prefixlen + 96))


@lru_cache(1024)
def _address(text: str) -> IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return _mapped(address) if isinstance(address, IPv4Address) else address


def _mapped(address: IPv4Address) -> IPv6Address:
    """Return `::ffff:a.b.c.d`: what a socket for both families says of an IPv4 peer."""
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _parse(hop: str) -> str | None:
    """Return the address in one hop, without brackets and port, as it is usually written."""
    match = NODE.fullmatch(hop.strip())
    address = _address(match[1] or match[2] or match[3]) if match else None
    return str(address.ipv4_mapped or address) if address else None


def _for(hop: str) -> str:
    """Return what `for=` names in one element of `Forwarded`."""
    match = FOR.search(hop)
    return match[1] if match else ""


def _hops(headers: HeaderList, name: str) -> list[str]:
    """Return the elements of a list header, over all its lines."""
    return [hop for key, value in headers if key == name for hop in value.split(",")]
