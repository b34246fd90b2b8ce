"""DNS rebinding and cross-site requests: what a browser can be made to send is refused."""

import asyncio
import json
from pathlib import Path

import pytest

from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.errors import ConfigError, Forbidden, Misdirected
from streamtok.http.edge.cors import Cors
from streamtok.http.edge.hosts import Hosts
from streamtok.http.request import Request
from streamtok.testing import FakeClock, RunningServer, ScriptedEngine, make_services

LOCAL = ["localhost", "LOCALHOST:8000", "localhost.", "a.localhost:1", "127.0.0.1", "[::1]:8000"]
ADDRESSES = ["192.0.2.7:8000", "0.0.0.0", "[2001:db8::1]"]
FOREIGN = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
ODD = ["xlocalhost", "1.2.3", "127.1", "[::1].evil.example", "0x7f.1", "2130706433", "evil"]


def request(method: str, target: str, **headers: str) -> Request:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(method, target, fields, b"{}", "1.1", "127.0.0.1")


def passes(hosts: Hosts, host: str, target: str = "/") -> bool:
    try:
        hosts.check(request("GET", target, host=host))
    except Misdirected:
        return False
    return True


@pytest.mark.parametrize("host", LOCAL + ADDRESSES)
def test_on_the_loopback_this_machine_and_addresses_are_answered(host: str) -> None:
    assert passes(Hosts("", local=True), host)


@pytest.mark.parametrize("host", FOREIGN + ODD)
def test_on_the_loopback_other_names_are_not(host: str) -> None:
    assert not passes(Hosts("", local=True), host)
    assert passes(Hosts(""), host)  # elsewhere any name can be the server's
    assert passes(Hosts("*", local=True), host)


def test_names_can_be_allowed() -> None:
    hosts = Hosts("llm.example.com, .example.net", local=True)
    for host in ("llm.example.com:8000", "LLM.example.com", "a.example.net", "a.b.example.net"):
        assert passes(hosts, host)
    for host in ("example.com", "x.llm.example.com", "example.net", "badexample.net"):
        assert not passes(hosts, host)
    assert not passes(Hosts("llm.example.com"), "evil.example")  # a list holds everywhere


def test_the_host_of_an_absolute_target_counts_too() -> None:
    hosts = Hosts("", local=True)
    assert not passes(hosts, "localhost", "http://evil.example/v1/models")
    assert not passes(hosts, "evil.example", "http://localhost/v1/models")
    assert passes(hosts, "localhost", "http://localhost:8000/v1/models?next=http://evil.example")
    assert passes(hosts, "localhost", "/v1/models?next=http://evil.example")


def test_http_1_0_without_a_host_is_answered() -> None:
    Hosts("", local=True).check(request("GET", "/"))


@pytest.mark.parametrize("allowed", ["a.example:80", "https://a.example", "a b", "*.example"])
def test_what_is_no_name_cannot_be_allowed(allowed: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-hosts: expected"):
        Hosts(allowed)


# Cross-site requests

CROSSING = [
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site", "origin": "http://localhost:3000"},
    {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"sec_fetch_site": "anything", "origin": "http://localhost:8000"},
]
NOT_CROSSING = [
    {},
    {"sec_fetch_site": "same-origin", "origin": "http://localhost:8000"},
    {"sec_fetch_site": "none"},
    {"origin": "http://localhost:8000"},
    {"origin": "https://LOCALHOST:8000"},  # behind a proxy that takes TLS off
]


def crosses(cors: Cors, headers: dict[str, str]) -> bool:
    try:
        cors.check(request("POST", "/", host="localhost:8000", **headers))
    except Forbidden:
        return True
    return False


def test_what_pages_of_other_origins_send_is_found() -> None:
    assert all(crosses(Cors(""), headers) for headers in CROSSING)
    assert not any(crosses(Cors(""), headers) for headers in NOT_CROSSING)
    assert not any(crosses(Cors("*"), headers) for headers in CROSSING + NOT_CROSSING)
    allowed = Cors("http://localhost:3000")
    assert [crosses(allowed, headers) for headers in CROSSING] == [True, False] + [True] * 3 + [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/v1/chat/completions", 403),
        ("POST", "/tokenize", 403),
        ("DELETE", "/v1/responses/resp_1", 403),
        ("GET", "/v1/generate?prompt=a", 403),
        ("POST", "/v1/messages", 403),
        ("OPTIONS", "/v1/chat/completions", 204),  # the preflight, which allows nothing
        ("GET", "/v1/models", 200),  # the page cannot read it
        ("GET", "/health", 200),
    ],
)
async def test_a_cross_site_request_computes_and_changes_nothing(
    tiny_model: Path, method: str, target: str, status: int
) -> None:
    engine = ScriptedEngine([65])
    api = Api(ROUTES, pages=Cors(""), check_host=Hosts("", local=True).check)
    api.open(make_services(tiny_model, engine, FakeClock()))
    asked = request(method, target, host="localhost", sec_fetch_site="cross-site")
    response = await api.handle(asked)
    assert response.status == status
    assert engine.stats().running == 0
    if status == 403:
        assert isinstance(response.body, bytes)
        assert b"--cors-origins allows it" in response.body
    rebound = await api.handle(request(method, target, host="evil.example"))
    assert rebound.status == 421


def test_a_server_on_the_loopback_checks_the_host(server: RunningServer) -> None:
    async def ask(host: str) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        line = await reader.readline()
        writer.close()
        return line

    assert asyncio.run(ask("localhost")) == b"HTTP/1.1 200 OK\r\n"
    assert asyncio.run(ask("evil.example")) == b"HTTP/1.1 421 Misdirected Request\r\n"
