"""Ways to be reached: TLS, Unix sockets, inherited sockets, IPv6; and running out of files."""

import asyncio
import json
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from processes import refused, serving

from streamtok.app import App
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError
from streamtok.http.edge.sockets import open_endpoint
from streamtok.http.edge.tls import Certificate, load_certificate
from streamtok.http.listener import Listener
from streamtok.testing import RunningServer, running_server

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b'{"status":"ok"}'


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    """A client's TLS settings."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def write_certificate(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    """Write a new certificate for the loopback and its key; return their paths."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return chain, key


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(authority, tmp_path)


@pytest.fixture
def secure(files: tuple[Path, Path], tiny_model: Path) -> Iterator[RunningServer]:
    with running_server(
        ServeConfig(
            port=0,
            ledger=":memory:",
            model=str(tiny_model),
            max_body_bytes=1000,
            certfile=str(files[0]),
            keyfile=str(files[1]),
        )
    ) as running:
        yield running


def connect(address: tuple[str, int], trust: ssl.SSLContext) -> ssl.SSLSocket:
    return trust.wrap_socket(socket.create_connection(address), server_hostname="localhost")


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        part = connection.recv(65536)
        assert part, data
        data += part
    return data


def post(path: str, body: dict[str, Any]) -> bytes:
    text = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}"
    return f"{head}\r\n\r\n{text}".encode()


# TLS


def test_tls_streams_to_the_official_client(secure: RunningServer, trust: ssl.SSLContext) -> None:
    assert secure.url.startswith("https://127.0.0.1:")
    with (
        httpx.Client(verify=trust) as web,
        openai.OpenAI(base_url=f"{secure.url}/v1", api_key="none", http_client=web) as client,
    ):
        chunks = client.completions.create(
            model="tiny", prompt="a", max_tokens=5, stream=True, extra_body={"ignore_eos": True}
        )
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"


def test_tls_has_modern_settings(
    secure: RunningServer, trust: ssl.SSLContext, files: tuple[Path, Path]
) -> None:
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with connect(secure.address, trust) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == "http/1.1"
    context = Certificate(*map(str, files)).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    older = [cipher for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert {(cipher["aead"], cipher["kea"]) for cipher in older} == {(True, "kx-ecdhe")}


def test_who_ends_a_tls_connection_frees_its_place(
    secure: RunningServer, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"prompt": "a", "max_tokens": 100, "stream": True, "ignore_eos": True}
    with connect(secure.address, trust) as connection:
        connection.sendall(post("/v1/completions", body))
        head = read_until(connection, b"data: {")
    assert b"200 OK" in head
    with connect(secure.address, trust) as other:
        for _ in range(10_000):
            other.sendall(HEALTH)
            read_until(other, OK)
            if not secure.app.engine.stats().running:
                break
        else:
            raise AssertionError("the stream goes on")
    assert "eof_received" not in caplog.text  # asyncio's complaint


def test_an_early_refusal_is_read_over_tls(secure: RunningServer, trust: ssl.SSLContext) -> None:
    request = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with connect(secure.address, trust) as connection:
        connection.sendall(request + b"x" * 100_000)
        assert b"413 Content Too Large" in read_until(connection, b'"code":"request_too_large"}')


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_tls_says_where_the_last_answer_ends(
    secure: RunningServer, trust: ssl.SSLContext, version: str
) -> None:
    body = json.dumps({"prompt": "a", "max_tokens": 2, "stream": True})
    head = f"POST /v1/completions HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    plain = socket.create_connection(secure.address)
    with trust.wrap_socket(
        plain, server_hostname="localhost", suppress_ragged_eofs=False
    ) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        data = b""
        while part := connection.recv(65536):  # raises where the end is not announced
            data += part
    assert b"data: [DONE]" in data


def test_what_is_not_tls_is_dropped_and_the_server_goes_on(
    secure: RunningServer, trust: ssl.SSLContext
) -> None:
    with socket.create_connection(secure.address) as connection:
        connection.sendall(HEALTH)
        assert b"HTTP/1.1" not in connection.recv(65536)
    with connect(secure.address, trust) as connection:
        connection.sendall(HEALTH)
        read_until(connection, OK)


async def test_a_handshake_that_never_comes_does_not_hold_up_the_end(
    files: tuple[Path, Path], tiny_model: Path
) -> None:
    settings = {"certfile": str(files[0]), "keyfile": str(files[1]), "model": str(tiny_model)}
    app = App(ServeConfig(port=0, ledger=":memory:", **settings))  # type: ignore[arg-type]
    url = await app.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    await app.stop()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


def test_sighup_loads_a_renewed_certificate_and_keeps_it_if_the_next_is_wrong(
    authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path, tiny_model: Path
) -> None:
    chain, key = write_certificate(authority, tmp_path)

    def seen(port: int) -> bytes | None:
        with connect(("127.0.0.1", port), trust) as connection:
            connection.sendall(HEALTH)
            read_until(connection, OK)
            return connection.getpeercert(binary_form=True)

    flags = ("--port", "0", "--model", str(tiny_model))
    with serving(*flags, "--certfile", str(chain), "--keyfile", str(key)) as server:
        first = seen(server.port)
        write_certificate(authority, tmp_path)
        with connect(("127.0.0.1", server.port), trust) as before:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("read the certificate again")
            second = seen(server.port)
            key.write_text("nothing")
            server.process.send_signal(signal.SIGHUP)
            assert str(key) in server.wait_for("stays as it was: --keyfile .*")[0]
            assert seen(server.port) == second != first
            before.sendall(HEALTH)
            read_until(before, OK)
        server.stop()
        assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("chain", "key", "said"),
    [
        ("none.pem", "key.pem", r"^--certfile .*none\.pem: No such file"),
        ("chain.pem", "none.pem", r"^--keyfile .*none\.pem: No such file"),
        ("chain.pem", ".", r"^--keyfile .*: Is a directory"),
        ("key.pem", "key.pem", r"^--certfile .*key\.pem: expected PEM text"),
        ("chain.pem", "", r"^--keyfile .*chain\.pem: expected PEM text"),
        ("chain.pem", "other.pem", r"^--keyfile .*other\.pem: not the key of --certfile .*chain"),
        ("chain.pem", "encrypted.pem", r"^--keyfile: the key is encrypted"),
        ("chain.pem", "damaged.pem", r"^--certfile .*chain\.pem --keyfile .*damaged\.pem: "),
    ],
)
def test_certificates_that_cannot_be_used_are_named(
    authority: trustme.CA, files: tuple[Path, Path], chain: str, key: str, said: str
) -> None:
    folder = files[0].parent
    (folder / "other.pem").write_bytes(authority.issue_cert("b").private_key_pem.bytes())
    (folder / "damaged.pem").write_text("-----BEGIN PRIVATE KEY-----\nAA\n")
    (folder / "encrypted.pem").write_bytes(encrypt(files[1].read_bytes()))
    with pytest.raises(ConfigError, match=said):
        Certificate(str(folder / chain), str(folder / key) if key else "")


def encrypt(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_a_file_may_hold_chain_and_key(authority: trustme.CA, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(authority.issue_cert("a").private_key_and_cert_chain_pem.bytes())
    assert load_certificate(str(both), "") is not None
    assert load_certificate("", "") is None
    with pytest.raises(ConfigError, match=r"^--keyfile needs --certfile"):
        load_certificate("", str(both))


# Unix sockets


def test_a_unix_socket_serves_and_is_removed(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "s"
    config = ServeConfig(uds=str(path), ledger=":memory:", model=str(tiny_model))
    with running_server(config) as server:
        assert server.url == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/health").json() == {"status": "ok"}
        with pytest.raises(ConfigError, match=f"^--uds {path}: another server listens there"):
            open_endpoint(config)
    assert not path.exists()


def test_a_unix_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    endpoint = open_endpoint(ServeConfig(uds=str(path)))
    path.unlink()
    path.write_text("not ours")
    endpoint.close()
    assert path.read_text() == "not ours"
    with pytest.raises(ConfigError, match=f"^--uds {path}: there is something that is no socket"):
        open_endpoint(ServeConfig(uds=str(path)))


@pytest.mark.parametrize("path", ["/nowhere/s", "x" * 200])
def test_a_unix_socket_that_cannot_be_made_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=f"^--uds {path}: cannot listen"):
        open_endpoint(ServeConfig(uds=path))


# Inherited sockets


def test_an_inherited_socket_serves(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        fd, port = inherited.fileno(), inherited.getsockname()[1]
        with serving("--fd", str(fd), "--model", str(tiny_model), pass_fds=[fd]) as server:
            assert server.url == f"http://127.0.0.1:{port}"
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(HEALTH)
                read_until(connection, OK)
            server.stop()
            assert server.process.returncode == 0
        # It is still open here: who comes between two servers waits for the second.
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(HEALTH)
            with serving("--fd", str(fd), "--model", str(tiny_model), pass_fds=[fd]):
                read_until(connection, OK)


def test_what_is_no_listening_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--fd 9999: not an open socket: Bad file"):
        open_endpoint(ServeConfig(fd=9999))
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(ConfigError, match="not an open socket"),
    ):
        open_endpoint(ServeConfig(fd=file.fileno()))
    with socket.socket() as idle, pytest.raises(ConfigError, match="a stream socket that listens"):
        open_endpoint(ServeConfig(fd=idle.fileno()))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--uds", "s", "--port", "1"), "--uds and --port exclude each other"),
        (("--uds", "s", "--host", "::1"), "--uds and --host exclude each other"),
        (("--uds", "s", "--fd", "3"), "--uds and --fd exclude each other"),
        (("--fd", "3", "--port", "1"), "--fd and --port exclude each other"),
    ],
)
def test_ways_to_listen_exclude_each_other(flags: tuple[str, ...], said: str) -> None:
    assert said in refused(*flags)


# Addresses


@pytest.fixture
def needs_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.usefixtures("needs_ipv6")
def test_ipv6_serves_at_the_url_it_prints(tiny_model: Path) -> None:
    config = ServeConfig(host="::1", port=0, ledger=":memory:", model=str(tiny_model))
    with running_server(config) as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


@pytest.mark.usefixtures("needs_ipv6")
@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:"), ("::", "http://[::1]:")]
)
def test_all_addresses_are_shown_as_one_that_can_be_used(host: str, shown: str) -> None:
    endpoint = open_endpoint(ServeConfig(host=host, port=0))
    assert endpoint.url("http").startswith(shown)
    endpoint.close()


def test_all_addresses_of_a_name_have_the_same_port() -> None:
    endpoint = open_endpoint(ServeConfig(host="localhost", port=0))
    assert len({sock.getsockname()[1] for sock in endpoint.sockets}) == 1
    endpoint.close()


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def run_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    pytest.importorskip("uvloop").run(main())


@pytest.mark.parametrize("run", [run_asyncio, run_uvloop])
def test_tcp_nodelay_is_set_on_every_connection(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
) -> None:
    async def accept(sock: socket.socket) -> int:
        connected: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Connected(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted = transport.get_extra_info("socket")
                connected.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        listener = Listener(sock, Connected, lambda: None, 1)
        listener.start(1)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        try:
            return await connected
        finally:
            writer.close()
            listener.close()

    async def main() -> None:
        bound = open_endpoint(ServeConfig(port=0))
        parts = bound.split(2)
        inherited = socket.create_server(("127.0.0.1", 0))
        fd = inherited.detach()
        for endpoint in (*parts, open_endpoint(ServeConfig(fd=fd))):
            assert await accept(endpoint.sockets[0])

    run(main)


# Too many files


def test_without_file_descriptors_accepting_waits_and_goes_on(tiny_model: Path) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    flags = ("--port", "0", "--model", str(tiny_model))
    with serving(*flags, preexec_fn=limit_files) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        server.wait_for("cannot accept connections for now: Too many open files")
        clients[0].sendall(HEALTH)  # who was accepted is served
        read_until(clients[0], OK)
        clients[-1].sendall(HEALTH)  # who was not waits
        for client in clients[:-1]:
            client.close()
        read_until(clients[-1], OK)
        clients[-1].close()
        log = server.stop()
        assert server.process.returncode == 0
        # One line each time it happens; asyncio's own server logs some six thousand a second.
        assert log.count("cannot accept") < 10
