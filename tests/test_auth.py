"""API keys: the file, who gets in where, and that a key is never written down."""

import asyncio
import hmac
import json
import logging
import re
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import serving
from test_wire import CHAT, post

from streamtok import cli
from streamtok.api.access import keys as auth
from streamtok.api.access.keys import KeyFile, new_key
from streamtok.api.more.routes import ROUTES
from streamtok.api.route import refuse
from streamtok.api.routing import Api
from streamtok.config import ConnectionConfig, ServeConfig
from streamtok.errors import ConfigError, Unauthorized
from streamtok.http.connection import Connection
from streamtok.http.request import Request
from streamtok.http.response import Response
from streamtok.http.service import Service
from streamtok.testing import (
    FakeClock,
    MemoryStream,
    ScriptedEngine,
    chunks,
    make_services,
    running_server,
)

ANNA, BEN = "sk-anna", "sk-ben"


def line(name: str, key: str) -> str:
    return f"{name}:{sha256(key.encode()).hexdigest()}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# those who may\n\n{line('anna', ANNA)}\n  {line('ben', BEN).upper()} \n")
    return path


# The file


def test_a_key_has_the_name_of_its_line(path: Path) -> None:
    keys = KeyFile(path)
    assert keys.authenticate(f"Bearer {ANNA}") == "anna"
    assert keys.authenticate(f"bearer   {BEN} ") == "BEN"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_file_may_come_from_any_editor(tmp_path: Path, ends: str, mark: str) -> None:
    path = tmp_path / "keys"
    text = ends.join([f"{mark}{line('anna', ANNA)}", "# no more", line("ben", BEN)])
    path.write_bytes(text.encode())
    assert KeyFile(path).authenticate(f"Bearer {BEN}") == "ben"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("sk-secret", "expected name:sha256-hex"),
        ("anna:sk-secret", "expected name:sha256-hex"),
        (f"a b:{'0' * 64}", "expected name:sha256-hex"),
        (f":{'0' * 64}", "expected name:sha256-hex"),
        (f"{'n' * 65}:{'0' * 64}", "expected name:sha256-hex"),
        (f"anna:{'0' * 63}", "expected name:sha256-hex"),
        (f"first:{'0' * 64}", "the name or the key of line 1"),
        (f"other:{sha256(b'1').hexdigest()}", "the name or the key of line 1"),
    ],
)
def test_a_wrong_line_is_named_and_not_repeated(tmp_path: Path, wrong: str, said: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{line('first', '1')}\n\n{wrong}\n")
    with pytest.raises(ConfigError) as caught:
        KeyFile(path)
    assert str(caught.value) == f"--api-keys {path}, line 3: {said}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--api-keys {tmp_path}: cannot be read"):
        KeyFile(tmp_path)
    (tmp_path / "keys").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyFile(tmp_path / "keys")


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        (None, "an API key is needed"),
        ("", "an API key is needed"),
        ("Bearer", "an API key is needed"),
        ("Bearer  ", "an API key is needed"),
        (f"Basic {ANNA}", "an API key is needed"),
        (ANNA, "an API key is needed"),
        ("Bearer sk-wrong", "not one of this server's"),
        (f"Bearer {ANNA}, Bearer {ANNA}", "not one of this server's"),
        ("Bearer \xff\u20ac", "not one of this server's"),
    ],
)
def test_missing_and_wrong_keys_are_told_apart(
    path: Path, authorization: str | None, said: str
) -> None:
    with pytest.raises(Unauthorized) as caught:
        KeyFile(path).authenticate(authorization)
    assert said in caught.value.message
    assert "sk-" not in caught.value.message
    wrong = "not one" in said
    challenge = 'Bearer error="invalid_token"' if wrong else "Bearer"
    assert caught.value.headers() == (("www-authenticate", challenge),)


@pytest.mark.parametrize("key", [ANNA, BEN, "sk-wrong"])
def test_every_entry_is_compared_in_constant_time(
    path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, compared, compare = KeyFile(path), [], hmac.compare_digest

    def count(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", count)
    try:
        keys.authenticate(f"Bearer {key}")
    except Unauthorized:
        assert key == "sk-wrong"
    assert compared == [sha256(ANNA.encode()).digest(), sha256(BEN.encode()).digest()]


def test_reloading_takes_what_changed(path: Path) -> None:
    keys = KeyFile(path)
    path.write_text(line("carl", "sk-carl"))
    keys.reload()
    assert keys.authenticate("Bearer sk-carl") == "carl"
    with pytest.raises(Unauthorized):
        keys.authenticate(f"Bearer {ANNA}")
    path.write_text("")  # nobody any more, which is not "no key needed"
    keys.reload()
    with pytest.raises(Unauthorized):
        keys.authenticate("Bearer sk-carl")


def test_reloading_a_broken_file_keeps_the_keys(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyFile(path)
    path.write_text(f"{line('carl', 'sk-carl')}\nsk-secret\n")
    keys.reload()
    assert keys.authenticate(f"Bearer {ANNA}") == "anna"
    with pytest.raises(Unauthorized):
        keys.authenticate("Bearer sk-carl")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"{path}, line 2" in caplog.text
    assert "sk-secret" not in caplog.text


def test_a_new_key_opens_and_its_line_does_not_hold_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["key", "anna"]) == 0
    output = capsys.readouterr()
    key = output.err.split()[-1]
    assert len(key) > 40
    assert key not in output.out
    (tmp_path / "keys").write_text(output.out)
    assert KeyFile(tmp_path / "keys").authenticate(f"Bearer {key}") == "anna"
    assert new_key("anna") != new_key("anna")
    assert cli.main(["key", "no spaces"]) == 2


# The API


class Site:
    """An Api with keys, around a scripted engine."""

    def __init__(self, model: Path, path: Path, admins: str = "") -> None:
        self.services = make_services(model, ScriptedEngine([65, 66]), FakeClock())
        self.keys = KeyFile(path, admins)
        self.api = Api(ROUTES, self.keys, new_request_id=lambda: "req_1")
        self.api.open(self.services)

    async def send(
        self, method: str, target: str, key: str = "", body: Any = None
    ) -> tuple[Response, Any]:
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        data = b"" if body is None else json.dumps(body).encode()
        response = await self.api.handle(Request(method, target, headers, data, "1.1", "test"))
        if not isinstance(response.body, bytes):
            return response, [event async for event in chunks(response)]
        is_json = ("content-type", "application/json") in response.headers
        return response, json.loads(response.body) if is_json else response.body


@pytest.fixture
def site(tiny_model: Path, path: Path) -> Site:
    return Site(tiny_model, path)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *((r.method, r.path.replace("*", "x")) for r in ROUTES if r.path not in ("/", "/health")),
        ("GET", "/nothing"),
        ("DELETE", "/v1/models"),
    ],
)
async def test_all_else_is_closed(site: Site, method: str, target: str) -> None:
    for key in ("", "sk-wrong"):
        response, answer = await site.send(method, target, key)
        assert response.status == 401
        assert ("x-request-id", "req_1") in response.headers
        assert dict(response.headers)["www-authenticate"].startswith("Bearer")
        if target.startswith("/v1/messages"):
            assert answer["error"].keys() == {"message", "type"}
            assert answer["error"]["type"] == "authentication_error"
            continue
        assert answer["error"]["type"] == "invalid_request_error"
        assert answer["error"]["code"] == "invalid_api_key"
        assert answer["error"].keys() == {"message", "type", "param", "code"}
    response, _ = await site.send(method, target, ANNA)
    assert response.status != 401


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/", 200),
        ("OPTIONS", "/v1/chat/completions", 204),
        ("OPTIONS", "*", 204),
    ],
)
async def test_health_page_and_options_are_open(
    site: Site, method: str, target: str, status: int
) -> None:
    assert (await site.send(method, target))[0].status == status
    assert (await site.send(method, target, "sk-wrong"))[0].status == status


async def test_keys_are_needed_while_the_model_is_loaded_too(path: Path) -> None:
    api = Api(ROUTES, KeyFile(path))
    request = Request("GET", "/v1/models", (), b"", "1.1", "test")
    assert (await api.handle(request)).status == 401


async def test_the_engine_is_told_whose_a_sequence_is(site: Site) -> None:
    """By that clients take turns, and share no prompts."""
    for key in (ANNA, BEN):
        await site.send("POST", "/v1/completions", key, {"prompt": "x"})
    engine = site.services.engine
    assert isinstance(engine, ScriptedEngine)
    assert [sequence.client for (sequence,) in engine.requests.values()] == ["anna", "BEN"]


async def test_names_go_into_ledger_and_metrics_and_each_key_sees_its_own(
    site: Site, tiny_model: Path, path: Path
) -> None:
    for key, max_tokens in ((ANNA, 1), (ANNA, 2), (BEN, 2)):
        body = {"prompt": "x", "max_tokens": max_tokens, "stream": True}
        await site.send("POST", "/v1/completions", key, body)
    await site.send("GET", "/nothing", "sk-wrong")
    await site.services.meter.settled()

    response, record = await site.send("GET", "/v1/usage/cmpl-2", ANNA)
    assert (response.status, record["key"]) == (200, "anna")
    response, answer = await site.send("GET", "/v1/usage/cmpl-2", BEN)
    assert (response.status, answer["error"]["code"]) == (404, "usage_not_found")
    for key, query, requests in (
        (ANNA, "", [2]),
        (ANNA, "?key=anna", [2]),
        (ANNA, "?group_by=key", [2]),
        (ANNA, "?key=BEN", []),
        (ANNA, "?key=", []),
        (BEN, "", [1]),
    ):
        _, sums = await site.send("GET", f"/v1/usage{query}", key)
        assert [row["requests"] for row in sums["data"]] == requests

    counted = 'streamtok_requests_total{endpoint="/v1/completions",key="%s",status="200"} %s\n'
    _, text = await site.send("GET", "/metrics", ANNA)
    assert counted % ("", 3.0) in text.decode()
    assert "BEN" not in text.decode()
    assert "anna" not in text.decode()
    assert 'streamtok_requests_total{endpoint="none",key="",status="401"} 1.0' in text.decode()

    admin = Site(tiny_model, path, admins="anna")
    for key in (ANNA, BEN):
        sent = {"prompt": "x", "max_tokens": 1}
        _, record = await admin.send("POST", "/v1/completions", key, sent)
    _, text = await admin.send("GET", "/metrics", ANNA)
    assert counted % ("anna", 1.0) in text.decode()
    assert counted % ("BEN", 1.0) in text.decode()
    _, text = await admin.send("GET", "/metrics", BEN)
    assert counted % ("", 2.0) in text.decode()
    await admin.services.meter.settled()
    _, sums = await admin.send("GET", "/v1/usage?group_by=key", ANNA)
    assert [row["group"] for row in sums["data"]] == ["BEN", "anna"]
    _, own = await admin.send("GET", f"/v1/usage/{record['id']}", ANNA)
    assert own["key"] == "BEN"


def test_an_admin_key_has_to_be_in_the_file(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--admin-keys: no key in .* has the name 'carl'"):
        KeyFile(path, "anna, carl")
    keys = KeyFile(path, "anna")
    assert keys.is_admin("anna")
    assert not keys.is_admin("BEN")
    assert not keys.is_admin("")


async def test_no_log_holds_a_key(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of an answer, a refusal, a bug with its traceback, or a request that is malformed."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("streamtok.api.more.info.sum_usage", lambda *_: 1 / 0)
    stream, limits = MemoryStream(), ConnectionConfig()
    service = Service(site.api.handle, refuse, FakeClock(), limits)
    running = asyncio.ensure_future(Connection(stream, service).run())
    chat, wrong = CHAT | {"max_tokens": 1}, b"Authorization: Bearer sk-wrong\r\n"
    refused = MemoryStream()
    refused.feed(post("/v1/chat/completions", chat, wrong))
    await Connection(refused, service).run()
    assert refused.sent.startswith(b"HTTP/1.1 401 ")
    header = f"Authorization: Bearer {ANNA}\r\nX-Request-Id: for-{ANNA[3:]}\r\n".encode()
    stream.feed(post("/v1/chat/completions", chat, header))
    for line in (header, wrong):
        stream.feed(b"GET /v1/usage HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
    stream.feed(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \x00" + ANNA.encode())
    stream.feed(b"\r\n\r\n")
    stream.feed_eof()
    await running
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", stream.sent)
    assert statuses == [b"200", b"500", b"401", b"400"]
    assert "ZeroDivisionError" in caplog.text
    assert "for-anna chatcmpl-1, 6+1 tokens" in caplog.text
    assert "sk-" not in caplog.text
    assert b"sk-" not in stream.sent


async def test_a_stream_goes_on_when_its_key_is_taken_away(tiny_model: Path, path: Path) -> None:
    site = Site(tiny_model, path)
    headers = (("authorization", f"Bearer {ANNA}"),)
    body = json.dumps({"prompt": "x", "max_tokens": 2, "stream": True}).encode()
    response = await site.api.handle(
        Request("POST", "/v1/completions", headers, body, "1.1", "test")
    )
    await asyncio.to_thread(path.write_text, line("ben", BEN))
    site.keys.reload()
    assert not isinstance(response.body, bytes)
    assert [event async for event in chunks(response)][-1] == b"data: [DONE]\n\n"
    assert (await site.send("GET", "/v1/models", ANNA))[0].status == 401


# A server


def test_hangup_reads_the_file_again(path: Path) -> None:
    with (
        serving("--port", "0", "--api-keys", str(path)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-carl", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        for text, said in ((line("carl", "sk-carl"), "1 API keys"), ("broken", "stay as")):
            path.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(said)
            assert [model.id for model in client.models.list()] == ["fireside"]


def test_the_chat_has_a_key(
    path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = ServeConfig(port=0, ledger=":memory:", model=str(tiny_model), api_keys=str(path))
    with running_server(config) as server:
        for key, said in ((ANNA, "bot "), ("", "an API key is needed")):
            monkeypatch.setenv("STREAMTOK_API_KEY", key)
            lines = iter(["hi"])
            monkeypatch.setattr("builtins.input", lambda *_, lines=lines: next_line(lines))
            assert cli.main(["chat", "--url", server.url]) == (0 if key else 2)
            output = "".join(capsys.readouterr())
            assert said in output
            assert ("an API key" in output) == (not key)


def next_line(lines: Any) -> str:
    for text in lines:
        return str(text)
    raise EOFError


def test_a_broken_file_ends_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("nonsense")
    assert cli.main(["serve", "--port", "0", "--api-keys", str(tmp_path / "keys")]) == 2
    assert "line 1: expected name:sha256-hex" in capsys.readouterr().err
