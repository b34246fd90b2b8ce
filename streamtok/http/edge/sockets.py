"""Where to listen: TCP addresses, a Unix socket, or a socket that was inherited.

Everything is bound before the event loop exists, so that a wrong address is reported at once, and
that several processes can share what one of them has bound. Read next: `streamtok.http.listener`,
which accepts.
"""

import errno
import socket
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

from streamtok.config import ListenConfig
from streamtok.errors import ConfigError
from streamtok.http.edge.occupied import port_hint

UNIX: int | None = getattr(socket, "AF_UNIX", None)  # the address family; Windows has none
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # this machine has no such address family


class UnixFile(Struct, frozen=True):
    """A socket's file, which stays when the socket is closed; `inode` tells it from a later one."""

    path: Path
    inode: int

    def remove(self) -> None:
        """Remove the file, unless another server has put its own there."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


class Endpoint:
    """The sockets of one server, one for each of its addresses."""

    def __init__(self, sockets: Sequence[socket.socket], file: UnixFile | None = None) -> None:
        self.sockets = tuple(sockets)
        self._file = file

    def url(self, scheme: str) -> str:
        """Return where the first socket can be reached from this machine."""
        first = self.sockets[0]
        if first.family == UNIX:
            return f"unix:{first.getsockname()}"
        host, port = first.getsockname()[:2]
        if (address := ip_address(host.partition("%")[0])).is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"  # all of them, this one too
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect, by addresses that a browser can name."""
        hosts = [sock.getsockname()[0] for sock in self.sockets if sock.family != UNIX]
        return bool(hosts) and all(ip_address(h.partition("%")[0]).is_loopback for h in hosts)

    def split(self, count: int) -> list["Endpoint"]:
        """Return an endpoint for each of `count` processes, at the same addresses.

        Each has sockets of its own where the kernel then spreads connections over them: TCP with
        SO_REUSEPORT on Linux. Elsewhere all share the same sockets. The file of a Unix socket
        stays for this endpoint to remove.
        """
        twins = [[_twin(sock) for sock in self.sockets] for _ in range(count - 1)]
        return [Endpoint(sockets) for sockets in (self.sockets, *twins)]

    def close(self) -> None:
        """Close the sockets and remove the file of a Unix socket; again, it does nothing."""
        for sock in self.sockets:
            sock.close()
        if self._file:
            self._file.remove()


def open_endpoint(config: ListenConfig) -> Endpoint:
    """Bind what `config` names, or take what was inherited.

    Raises:
        ConfigError: it cannot be had; names the flags.
    """
    if config.fd >= 0:
        return Endpoint([_inherit(config.fd)])
    if config.uds:
        return _bind_unix(Path(config.uds))
    try:
        return Endpoint(_bind_tcp(config.host, config.port))
    except (OSError, UnicodeError, OverflowError) as error:
        where = f"--host {config.host} --port {config.port}"
        hint = port_hint(error, config.port, partial(_is_free, config.host))
        raise ConfigError(f"{where}: cannot listen: {error}{hint}") from error


# TCP


def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of `host`; with port 0 all get the same one.

    Raises:
        OSError: the name is unknown, or an address is in use.
    """
    found = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )  # in the order of preference, some more than once
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, _, protocol, _, address in dict.fromkeys(found):
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bind(family, protocol, (address[0], chosen, *address[2:])))
        except OSError as error:
            if error.errno not in ABSENT:
                Endpoint(sockets).close()
                raise
            missing = error
    if missing and not sockets:
        raise missing
    return sockets


def _is_free(host: str, port: int) -> bool:
    """Whether a socket can be bound to each address of `host` at `port` now."""
    try:
        Endpoint(_bind_tcp(host, port)).close()
    except OSError:
        return False
    return True


def _bind(
    family: int, protocol: int, address: tuple[object, ...], *, shared: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two share a port otherwise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _twin(sock: socket.socket) -> socket.socket:
    """Return another socket at the address of `sock`, or `sock` itself where that cannot be.

    The first socket was bound without SO_REUSEPORT, so that a port in use is an error; it gets the
    option before its twins are bound.
    """
    inherited = _listens(sock)
    if sock.family == UNIX or inherited or sys.platform != "linux":
        return sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return _bind(sock.family, sock.proto, sock.getsockname(), shared=True)


# Unix sockets and inherited ones


def _bind_unix(path: Path) -> Endpoint:
    """Bind a Unix socket; who may connect is for the process's umask and the folder to say.

    Raises:
        ConfigError: somebody listens there, something else has this name, or it cannot be made.
    """
    if UNIX is None:
        raise ConfigError(f"--uds {path}: this system's Python has no Unix sockets")
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(str(path))
        return Endpoint([sock], UnixFile(path, path.stat().st_ino))
    except OSError as error:
        sock.close()
        reason = error.strerror or error  # a path above 107 bytes has no number
        raise ConfigError(f"--uds {path}: cannot listen: {reason}") from error
    except ConfigError:
        sock.close()
        raise


def _remove_stale(path: Path) -> None:
    """Remove a socket's file that a server left behind: one that nobody answers at."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--uds {path}: there is something that is no socket")
    assert UNIX is not None
    with socket.socket(UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)  # a full backlog makes us wait: then somebody listens
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass
    raise ConfigError(f"--uds {path}: another server listens there")


def _inherit(fd: int) -> socket.socket:
    """Return the listening socket that whoever started us opened as file descriptor `fd`."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigError(f"--fd {fd}: not an open socket: {error.strerror}") from error
    stream = sock.type == socket.SOCK_STREAM
    if not (stream and _listens(sock)):
        sock.detach()  # whoever opened it may still need it
        raise ConfigError(f"--fd {fd}: expected a stream socket that listens")
    return sock


def _listens(sock: socket.socket) -> bool:
    """Whether `sock` listens, or can: macOS does not say which."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except (AttributeError, OSError):
        pass
    try:
        sock.getpeername()
    except OSError:
        return True
    return False  # it is connected
