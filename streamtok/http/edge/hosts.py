"""Which host names a server answers to: a request for another gets 421.

A page at `evil.example` may let that name point to 127.0.0.1 once it is loaded: what it then sends
to its own origin reaches the server on the reader's machine, and the browser lets it read the
answers (DNS rebinding; Ollama had it as CVE-2024-28224). Only the `Host` shows it. So a server that
listens on the loopback alone answers to the names of this machine, and of others those that
--allowed-hosts lists. An address cannot be rebound: a page can have one as its origin only if it
came from there.

Programs other than browsers may send any `Host`: this is no protection from them, and needs none.
"""

import re
from functools import lru_cache
from ipaddress import ip_address

from streamtok.errors import ConfigError, Misdirected
from streamtok.http.request import Request

HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
NAME = re.compile(r"\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
LOCAL = ("localhost", ".localhost")  # RFC 6761 section 6.3: no resolver may say otherwise


class Hosts:
    """The names in a comma-separated list; ".example.com" stands for all below it, "*" for all.

    Where `local`, the server listens on the loopback alone; elsewhere any name is right unless some
    are listed. Addresses and localhost always are.

    Raises:
        ConfigError: the list has something that is no name.
    """

    def __init__(self, allowed: str, *, local: bool = False) -> None:
        names = [name.strip().lower().rstrip(".") for name in allowed.split(",") if name.strip()]
        for name in names:
            if name != "*" and not NAME.fullmatch(name):
                raise ConfigError(
                    "--allowed-hosts: expected * or names without ports, such as llm.example.com "
                    f"or .example.com, found {name!r}"
                )
        self.local = local
        self._listed = names

    def check(self, request: Request) -> None:
        """Check that `request` is for this server.

        Raises:
            Misdirected: it names another.
        """
        if "*" in self._listed or not (self._listed or self.local):
            return
        for host in filter(None, (_target_host(request.target), request.header("host"))):
            if not self._is_ours(_without_port(host)):
                raise Misdirected(
                    f"this server is not {host!r}; --allowed-hosts lets it answer to other names"
                )

    def _is_ours(self, name: str) -> bool:
        if _is_address(name):
            return True
        names = (*self._listed, *LOCAL)
        return name in names or any(own[0] == "." and name.endswith(own) for own in names)


def _target_host(target: str) -> str:
    """Return the host of a target in absolute form, which counts (RFC 9112 section 3.2.2)."""
    scheme, mark, rest = target.partition("://")
    return re.split(r"[/?#]", rest)[0] if mark and scheme.isalpha() else ""


def _without_port(host: str) -> str:
    match = HOST.fullmatch(host.lower())
    return (match[1] or match[2]).rstrip(".") if match else ""


@lru_cache(256)
def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
