"""Cross-origin requests: what a browser must find in an answer, whatever the answer is."""

import json
from pathlib import Path
from typing import Any

import pytest

from streamtok.api.access.keys import KeyFile
from streamtok.api.more.routes import ROUTES
from streamtok.api.routing import Api
from streamtok.config import ApiConfig
from streamtok.errors import ConfigError
from streamtok.http.edge.cors import Cors
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.testing import FakeClock, ScriptedEngine, make_services

PAGE, OTHER, FOE = "https://page.example", "http://localhost:5173", "https://foe.example"
CHAT = "/v1/chat/completions"
ALLOW_ORIGIN = "access-control-allow-origin"


class Site:
    def __init__(self, model: Path, origins: str, keys: KeyFile | None = None) -> None:
        limits = ApiConfig(requests_per_minute=1)
        self.services = make_services(model, ScriptedEngine([65, 66]), FakeClock(), limits=limits)
        self.api = Api(ROUTES, keys, Cors(origins), lambda: "req_1")
        self.api.open(self.services)

    async def send(
        self, method: str, target: str, origin: str | None, body: Any = None, **headers: str
    ) -> tuple[Response, dict[str, str]]:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if origin is not None:
            fields.append(("origin", origin))
        data = b"" if body is None else json.dumps(body).encode()
        request = Request(method, target, tuple(fields), data, "1.1", "192.0.2.1")
        response = await self.api.handle(request)
        assert len(dict(response.headers)) == len(response.headers)  # none stands there twice
        return response, dict(response.headers)

    async def preflight(self, target: str, origin: str, headers: str = "") -> dict[str, str]:
        asked = {"access_control_request_headers": headers} if headers else {}
        response, found = await self.send(
            "OPTIONS", target, origin, access_control_request_method="POST", **asked
        )
        assert (response.status, response.body) == (204, b"")
        return found


@pytest.mark.parametrize(
    ("origins", "asking", "allowed", "varies"),
    [
        ("", PAGE, None, False),
        ("*", PAGE, "*", False),
        ("*", None, "*", False),
        (PAGE, PAGE, PAGE, False),
        (PAGE, FOE, PAGE, False),  # the browser sees that it is another one
        (PAGE, None, PAGE, False),
        (f"{PAGE}, {OTHER}", OTHER, OTHER, True),
        (f"{PAGE},{OTHER},", PAGE, PAGE, True),
        (f"{PAGE},{OTHER}", FOE, None, True),
        (f"{PAGE},{OTHER}", None, None, True),
        (f"{PAGE},{OTHER}", "null", None, True),
        ("HTTPS://Page.Example", PAGE, PAGE, False),
    ],
)
async def test_origins(
    tiny_model: Path, origins: str, asking: str | None, allowed: str | None, varies: bool
) -> None:
    _, headers = await Site(tiny_model, origins).send("GET", "/health", asking)
    assert headers.get(ALLOW_ORIGIN) == allowed
    assert headers.get("vary") == ("origin" if varies else None)
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origins",
    [
        "page.example",
        "https://page.example/",
        "https://",
        "https://a/b",
        "*,https://a",
        "null",
        "a",
    ],
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ConfigError, match=r"^--cors-origins: expected \*"):
        Cors(origins)


async def test_every_answer_allows_the_page(tiny_model: Path) -> None:
    """Errors and streams included: a page that may not read an error cannot show it."""
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 1}
    site = Site(tiny_model, f"{PAGE},{OTHER}")
    for method, target, sent, status in (
        ("POST", CHAT, body, 200),
        ("POST", CHAT, body, 429),
        ("GET", CHAT, None, 405),
        ("GET", "/nothing", None, 404),
        ("GET", "/v1/usage?colour=red", None, 400),
        ("GET", "/metrics", None, 200),
        ("OPTIONS", "/nothing", None, 404),
    ):
        response, headers = await site.send(method, target, PAGE, sent)
        assert response.status == status
        assert headers[ALLOW_ORIGIN] == PAGE
        exposed = headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(exposed)
        assert {name for name in headers if name.startswith("x-r")} <= set(exposed)
    loading = Api(ROUTES, pages=Cors(PAGE))
    response = await loading.handle(Request("GET", "/v1/models", (), b"", "1.1", "test"))
    assert response.status == 503
    assert (ALLOW_ORIGIN, PAGE) in response.headers


async def test_a_bug_allows_the_page_to_read_of_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamtok.api.more.info.sum_usage", lambda *_: 1 / 0)
    response, headers = await Site(tiny_model, "*").send("GET", "/v1/usage", PAGE)
    assert response.status == 500
    assert headers[ALLOW_ORIGIN] == "*"


async def test_a_preflight_needs_no_key_and_allows_what_the_official_clients_send(
    tiny_model: Path, tmp_path: Path
) -> None:
    site = Site(tiny_model, PAGE, empty_keys(tmp_path))
    headers = await site.preflight(
        CHAT, PAGE, "authorization,content-type, X-Stainless-Lang ,x-stainless-retry-count"
    )
    assert headers[ALLOW_ORIGIN] == PAGE
    assert headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert headers["access-control-allow-headers"] == (
        "accept, authorization, content-type, x-request-id, x-stainless-lang, "
        "x-stainless-retry-count"
    )
    assert headers["access-control-max-age"] == "7200"
    headers = await site.preflight("/v1/usage/x", PAGE)
    assert headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    response, headers = await site.send("POST", CHAT, PAGE, {})
    assert (response.status, headers[ALLOW_ORIGIN]) == (401, PAGE)


def empty_keys(folder: Path) -> KeyFile:
    (folder / "keys").touch()
    return KeyFile(folder / "keys")


async def test_only_names_are_echoed(tiny_model: Path) -> None:
    asked = "x-good, bad name, b\xe4d, x:y, ,x-good,X-Two,<b>"
    headers = await Site(tiny_model, "*").preflight(CHAT, PAGE, asked)
    allowed = headers["access-control-allow-headers"].split(", ")
    assert allowed == ["accept", "authorization", "content-type", "x-good", "x-request-id", "x-two"]


@pytest.mark.parametrize(("origins", "origin"), [("", PAGE), (f"{PAGE},{OTHER}", FOE)])
async def test_a_preflight_of_a_stranger_allows_nothing(
    tiny_model: Path, origins: str, origin: str
) -> None:
    headers = await Site(tiny_model, origins).preflight(CHAT, origin, "authorization")
    assert not any(name.startswith("access-control") for name in headers)
    assert headers["allow"] == "POST, OPTIONS"


async def test_plain_options_is_not_a_preflight(tiny_model: Path) -> None:
    response, headers = await Site(tiny_model, "*").send("OPTIONS", CHAT, None)
    assert response.status == 204
    assert "access-control-allow-methods" not in headers
    assert headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("given", ["a", "A-1.b_2", "9" * 128])
async def test_a_sane_request_id_comes_back(tiny_model: Path, given: str) -> None:
    site = Site(tiny_model, "")
    for target in ("/health", "/nothing"):
        response, headers = await site.send("GET", target, None, x_request_id=given)
        assert headers["x-request-id"] == given
        assert response.summary() == given


@pytest.mark.parametrize("given", ["", "a b", "a\n", "9" * 129, "a,b", "\xe4", '"', "\x1b[31m"])
async def test_any_other_request_id_is_replaced(tiny_model: Path, given: str) -> None:
    _, headers = await Site(tiny_model, "").send("GET", "/health", None, x_request_id=given)
    assert headers["x-request-id"] == "req_1"


async def test_made_request_ids_differ() -> None:
    api, ids = Api(ROUTES), set()
    for _ in range(100):
        response = await api.handle(Request("GET", "/health", (), b"", "1.1", "test"))
        ids.add(dict(response.headers)["x-request-id"])
    assert len(ids) == 100
