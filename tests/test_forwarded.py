"""Behind a proxy: whose word on the client's address is taken, and paths under a prefix."""

import logging
import re
from pathlib import Path

import httpx
import pytest

from streamtok.api.more import page
from streamtok.config import ServeConfig
from streamtok.errors import ConfigError
from streamtok.http.edge.forwarded import Proxies, under
from streamtok.http.request import HeaderList, Request
from streamtok.http.response import Response
from streamtok.testing import running_server

XFF, RFC = "x-forwarded-for", "forwarded"
ALLOWED = "10.0.0.0/8, 192.0.2.7, 2001:db8::/32, unix"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        # Nobody's word is taken but a proxy's
        ("203.0.113.5", ((XFF, "198.51.100.1"),), "203.0.113.5"),
        ("memory", ((XFF, "198.51.100.1"),), "memory"),
        ("10.1.2.3", (), "10.1.2.3"),
        ("10.1.2.3", ((XFF, "198.51.100.1"),), "198.51.100.1"),
        ("192.0.2.7", ((XFF, "198.51.100.1"),), "198.51.100.1"),
        ("192.0.2.8", ((XFF, "198.51.100.1"),), "192.0.2.8"),
        ("unix", ((XFF, "198.51.100.1"),), "198.51.100.1"),
        # An IPv4 peer as a socket for both families tells it, and with a zone
        ("::ffff:10.1.2.3", ((XFF, "198.51.100.1"),), "198.51.100.1"),
        ("2001:db8::1%eth0", ((XFF, "2001:4860::8"),), "2001:4860::8"),
        # From the right, past trusted proxies, never past a stranger: what is left of it is made up
        ("10.0.0.1", ((XFF, "1.1.1.1, 198.51.100.1, 10.0.0.2"),), "198.51.100.1"),
        ("10.0.0.1", ((XFF, "1.1.1.1"), (XFF, "198.51.100.1")), "198.51.100.1"),
        ("10.0.0.1", ((XFF, "10.0.0.3, 10.0.0.2"),), "10.0.0.3"),
        # What is no address ends the trail at the last hop that is known
        ("10.0.0.1", ((XFF, "198.51.100.1, unknown"),), "10.0.0.1"),
        ("10.0.0.1", ((XFF, "198.51.100.1, unknown, 10.0.0.2"),), "10.0.0.2"),
        ("10.0.0.1", ((XFF, ""),), "10.0.0.1"),
        ("10.0.0.1", ((XFF, "198.51.100.1\n"),), "198.51.100.1"),
        ("10.0.0.1", ((XFF, "999.1.1.1"),), "10.0.0.1"),
        # Ports and brackets
        ("10.0.0.1", ((XFF, "198.51.100.1:4711"),), "198.51.100.1"),
        ("10.0.0.1", ((XFF, "[2001:4860::8]:4711"),), "2001:4860::8"),
        ("10.0.0.1", ((XFF, "2001:4860:0::8"),), "2001:4860::8"),
        ("10.0.0.1", ((XFF, "::ffff:198.51.100.1"),), "198.51.100.1"),
        # RFC 7239
        ("10.0.0.1", ((RFC, "for=198.51.100.1;proto=https;by=10.0.0.1"),), "198.51.100.1"),
        ("10.0.0.1", ((RFC, 'proto=https; For="[2001:4860::8]:4711"'),), "2001:4860::8"),
        ("10.0.0.1", ((RFC, "for=1.1.1.1, for=198.51.100.1"),), "198.51.100.1"),
        ("10.0.0.1", ((RFC, 'for="1.1.1.1'), (RFC, "for=198.51.100.1")), "198.51.100.1"),
        ("10.0.0.1", ((RFC, "for=_hidden"),), "10.0.0.1"),
        ("10.0.0.1", ((RFC, "by=198.51.100.1"),), "10.0.0.1"),
        # Both: only if they agree
        ("10.0.0.1", ((XFF, "198.51.100.1"), (RFC, "for=198.51.100.1")), "198.51.100.1"),
        ("10.0.0.1", ((XFF, "198.51.100.1"), (RFC, "for=1.1.1.1")), "10.0.0.1"),
    ],
)
def test_the_client_behind_a_proxy(peer: str, headers: HeaderList, client: str) -> None:
    assert Proxies(ALLOWED).client(peer, headers) == client


def test_nobody_is_trusted_unless_named() -> None:
    for peer in ("127.0.0.1", "::1", "unix"):
        assert Proxies("").client(peer, ((XFF, "198.51.100.1"),)) == peer


@pytest.mark.parametrize("allowed", ["localhost", "10.0.0.0/33", "*", "10.0.0.1/8"])
def test_what_is_no_address_or_network_is_named(allowed: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f", found {allowed!r}")):
        Proxies(allowed)


async def echo(request: Request) -> Response:
    return Response(200, (), request.target.encode())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/llm/health", "/health"),
        ("/llm/v1/usage?key=/llm/", "/v1/usage?key=/llm/"),
        ("/llm/", "/"),
        ("http://a/llm/health?x=1", "/health?x=1"),
        ("/health", "/health"),  # a proxy that takes the prefix off itself
        ("/llmx/health", "/llmx/health"),
        ("/v1?x=/llm/y", "/v1?x=/llm/y"),
        ("http://llm/health", "http://llm/health"),
        ("*", "*"),
    ],
)
@pytest.mark.parametrize("root_path", ["/llm", "/llm/"])
async def test_the_prefix_is_taken_off(root_path: str, target: str, expected: str) -> None:
    request = Request("GET", target, (), b"", "1.1", "a")
    assert (await under(root_path, echo)(request)).body == expected.encode()


async def test_the_prefix_alone_is_redirected_to_its_folder() -> None:
    response = await under("/a/b", echo)(Request("GET", "/a/b?x=1", (), b"", "1.1", "a"))
    assert (response.status, response.headers) == (308, (("location", "/a/b/?x=1"),))


@pytest.mark.parametrize("root_path", ["", "/"])
async def test_without_a_prefix_nothing_is_changed(root_path: str) -> None:
    assert under(root_path, echo) is echo


@pytest.mark.parametrize("root_path", ["llm", "/a b", "/a//b", "/a?b", "//a"])
def test_what_is_no_path_is_named(root_path: str) -> None:
    with pytest.raises(ConfigError, match=r"^--root-path: expected a path such as /llm, found"):
        under(root_path, echo)


def test_the_access_log_names_the_client(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServeConfig(
        port=0,
        ledger=":memory:",
        model=str(tiny_model),
        forwarded_allow_ips="127.0.0.1",
        root_path="/llm",
        max_connections_per_address=1,
    )
    with (
        caplog.at_level(logging.INFO, "streamtok.access"),
        running_server(config) as server,
        httpx.Client(headers={XFF: "198.51.100.1"}) as one,
        httpx.Client(headers={XFF: "198.51.100.1"}) as other,  # a proxy has many connections
    ):
        for client in (one, other):
            assert client.get(f"{server.url}/llm/health").json() == {"status": "ok"}
    assert caplog.text.count('198.51.100.1 "GET /llm/health" 200') == 2


def test_the_page_asks_for_nothing_outside_its_prefix() -> None:
    asked = set(re.findall(r"fetch\(([^,)]+)", page.script()))
    copied = '"${location.origin}${URL_PATH}"'  # in the code for other programs
    assert asked == {"`${PREFIX}${path}`", copied}
    assert "const URL_PATH = `${PREFIX}/v1/" in page.script()
