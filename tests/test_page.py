"""The page at `/`: served as it is and complete in itself; in a browser, what it shows is true.

The tests that need a browser have the mark `browser`. They drive Chromium over the WebDriver
protocol, which is JSON over HTTP, and are skipped where Chromium and its driver are not installed.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import serving

from streamtok.api.access.keys import new_key
from streamtok.api.more import page
from streamtok.api.openai.types import ChatRequest
from streamtok.config import ServeConfig
from streamtok.faults.catalogue import parse
from streamtok.http.framings import OFFERS
from streamtok.testing import RunningServer, running_server

PAGE = page._answer().body.decode()
SETTINGS = {"temperature", "top_p", "seed", "max_tokens", "logprobs"}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which no browser fetches
NO_END_TAG = {"meta", "link", "input", "rect", "path"}


class Outline(HTMLParser):
    """Notes the elements of a page, and fails where an end tag is missing or out of place."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(attributes) == len(dict(attributes)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in NO_END_TAG:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def values(self, *names: str) -> list[str]:
        """Return the values that any of the attributes has."""
        return [value for _, given in self.elements for name in names if (value := given.get(name))]


@pytest.fixture(scope="module")
def outline() -> Outline:
    outline = Outline()
    outline.feed(PAGE)
    outline.close()
    return outline


def test_page_is_served_with_its_policy(server: RunningServer) -> None:
    response = httpx.get(server.url + "/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert response.text == PAGE


def test_page_is_well_formed(outline: Outline) -> None:
    ids = outline.values("id")
    assert outline.open == []
    assert len(ids) == len(set(ids))
    assert set(outline.values("for", "aria-describedby", "aria-labelledby")) <= set(ids)
    assert set(re.findall(r'\$\("([^"]+)"\)', PAGE)) <= set(ids)
    asked = re.findall(r"for \(const id of \[([^\]]+)\]\)", PAGE)
    assert {name for names in asked for name in re.findall(r'"([^"]+)"', names)} <= set(ids)


def test_modules_import_what_there_is_from_those_before_them() -> None:
    exported: dict[str, set[str]] = {}
    names: list[str] = []  # at the top of a module: all of them share one scope in the page
    for module in page.MODULES:
        text = page.read(f"{module}.js")
        for imported, other in re.findall(r'^import \{([^}]*)\} from "\./(\w+)\.js";', text, re.M):
            wanted = {name.strip() for name in imported.split(",") if name.strip()}
            assert wanted <= exported[other], (module, other)
            assert all(
                len(re.findall(rf"(?<![$\w]){re.escape(name)}(?![$\w])", text)) > 1
                for name in wanted
            ), module
        found = r"^(?:export )?(?:const|let|class|(?:async )?function\*?) ([$\w]+)"
        names += re.findall(found, text, re.M)
        exported[module] = set(re.findall(found.replace("?:export )?", "?:export )"), text, re.M))
    assert len(names) == len(set(names))
    assert not re.search(r"^(import|export)\b", page.script(), re.M)


def test_buttons_for_faults_ask_for_what_there_is() -> None:
    asked = re.findall(r'^  \["([^"]+)", "', page.read("faults.js"), re.M)
    assert len(asked) > 10
    assert all(parse(fault) for fault in asked)


def test_page_asks_nobody_else(outline: Outline) -> None:
    text = PAGE.replace(SVG_NAMESPACE, "").replace("${location.origin}", "")
    assert not re.search(r"https?://|wss?://|@import|\burl\(", text)
    assert not outline.values("src", "srcset", "action", "data")
    assert all(link.startswith(("#", "data:")) for link in outline.values("href"))


def test_page_has_no_code_or_style_in_attributes(outline: Outline) -> None:
    names = {name for _, attributes in outline.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b", PAGE)


def test_page_labels_every_field(outline: Outline) -> None:
    fields = [attributes["id"] for tag, attributes in outline.elements if tag == "input"]
    assert set(fields) == SETTINGS | {"key", "pace"}
    assert set(ChatRequest.__struct_fields__) >= SETTINGS
    assert all(re.search(rf'<label[^>]*>[^<]*<input id="{name}"[^<]*', PAGE) for name in fields)
    assert "message" in outline.values("for")
    assert re.search(r'<label>framing\s*<select id="framing">', PAGE)
    offered = {media_type for media_type, _ in OFFERS}
    assert set(re.findall(r'<option value="([^"]+)"', PAGE)) <= offered


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    "--window-size=1280,900",
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nobody else is there
]
STORY = "Tell me a story about a fox and a lantern."
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
PATIENCE_S = 180  # with what a test waits for in the page
ESCAPE, ENTER = "\ue00c", "\ue007"  # WebDriver's names of the keys
AWAIT = """
    const check = async () => (%s) ? arguments[0]() : requestAnimationFrame(check);
    check();
"""
# Lets the page read real answers in pieces of one byte
CUT = """
    const whole = window.fetch;
    window.fetch = async (...request) => {
      const response = await whole(...request);
      const cut = new TransformStream({
        transform: (piece, out) => piece.forEach((byte) => out.enqueue(Uint8Array.of(byte))),
      });
      const { status, statusText, headers } = response;
      return new Response(response.body.pipeThrough(cut), { status, statusText, headers });
    };
"""
# Lets the page read a heartbeat, and the rest of a real answer when `release` is called
HELD = """
    const whole = window.fetch, held = new Promise((resolve) => { window.release = resolve; });
    window.fetch = async (...request) => {
      const response = await whole(...request);
      if (!request[0].endsWith("/chat/completions")) return response;
      window.fetch = whole;
      const cut = new TransformStream({
        start: (out) => out.enqueue(new TextEncoder().encode(": ping\\n")),
        transform: async (piece, out) => { await held; out.enqueue(piece); },
      });
      const { status, statusText, headers } = response;
      return new Response(response.body.pipeThrough(cut), { status, statusText, headers });
    };
"""
# Has the server stall in the next answer, so that it is killed before the end of it
STALL = """
    const whole = window.fetch;
    window.fetch = (url, options) => {
      window.fetch = whole;
      return whole(url, { ...options, headers: { ...options.headers, "x-fault": "stall;at=20" } });
    };
"""


class Browser:
    """One tab, as a user has it."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def ask(self, command: str, **values: Any) -> Any:
        """Send a WebDriver command; return its value."""
        answer = self._session.post(command, json=values).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script in the page returns."""
        return self.ask("execute/sync", script=script, args=arguments)

    def wait(self, condition: str) -> None:
        """Return when an expression in the page holds."""
        self.ask("execute/async", script=AWAIT % condition, args=[])

    def texts(self, selector: str) -> list[str]:
        """Return the text of every element that matches."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def sent(self) -> dict[str, Any]:
        """Return the body of the last request, as the page shows it."""
        body: dict[str, Any] = json.loads(self.texts(".head .body")[0])
        return body

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def press(self, key: str) -> None:
        """Press and release a key."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.ask("actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    def send(self, message: str, **settings: Any) -> None:
        """Set the settings, write a message and press Enter."""
        for name, value in (settings | {"message": message}).items():
            self.run("document.getElementById(arguments[0]).value = arguments[1]", name, value)
        self.run("document.getElementById('message').focus()")
        self.press(ENTER)

    def finish(self) -> None:
        """Wait for the end of the answer."""
        self.wait("document.getElementById('send').textContent === 'Send'")

    def problems(self) -> list[str]:
        """Return what the console has to say since the last time."""
        return [entry["message"] for entry in self.ask("se/log", type="browser")]


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    options = {"binary": CHROMIUM, "args": ARGUMENTS}
    wanted = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": PATIENCE_S * 1000},  # instead of 30 s: machines can be busy
    }
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = (re.search(r"successfully on port (\d+)", line) for line in process.stdout)
        url = f"http://127.0.0.1:{next(match for match in found if match)[1]}/session"
        try:
            answer = httpx.post(url, json={"capabilities": {"alwaysMatch": wanted}}, timeout=60)
            url = f"{url}/{answer.json()['value']['sessionId']}"
            with httpx.Client(base_url=url, timeout=PATIENCE_S + 30) as client:
                yield Browser(client)
            httpx.delete(url, timeout=60).raise_for_status()  # ends Chromium
        finally:
            process.terminate()


@pytest.fixture
def browser(tab: Browser, server: RunningServer) -> Browser:
    tab.ask("url", url=f"{server.url}/health")
    tab.run("sessionStorage.clear()")  # the conversation of the test before
    tab.problems()  # those that it had, and that this is no page with an icon
    tab.ask("url", url=server.url)
    return tab


def post(server: RunningServer, body: object) -> bytes:
    """Return the body of an answer as it stands on the wire, asked for as the page does."""
    content = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if b'"stream": true' in content:
        head += b"X-Resumable: 1\r\n"
    with socket.create_connection(server.address) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2]


def whole_answer(server: RunningServer, sent: dict[str, Any]) -> str:
    """Return the answer to what the page has sent, this time not streamed."""
    body = {name: sent[name] for name in sent if not name.startswith("stream")}
    content: str = json.loads(post(server, body))["choices"][0]["message"]["content"]
    return content


def without_usage(sizes: list[str]) -> list[str]:
    """Return the sizes of chunks but that of the usage: the second time, more tokens are cached."""
    return sizes[:-3] + sizes[-2:]


def frames(browser: Browser) -> list[str]:
    """Return the sizes of chunks in the rows, when the server's trace is there."""
    browser.wait("document.querySelector('.end .frame')?.textContent === '0'")
    return browser.texts(".row .frame, .end .frame")


@pytest.mark.browser
def test_page_shows_what_stands_on_the_wire(browser: Browser, server: RunningServer) -> None:
    browser.send(STORY, seed=1, max_tokens=30)
    browser.finish()
    sent = browser.sent()
    assert sent["seed"] == 1
    assert "temperature" not in sent
    sizes = re.findall(r"^([0-9a-f]+)\r\n", post(server, sent).decode(), re.MULTILINE)
    assert without_usage(frames(browser)) == without_usage(sizes)
    assert browser.texts(".answer") == [whole_answer(server, sent)]
    assert browser.texts(".head > pre")[0].startswith("200 OK")
    assert browser.texts(".end > :last-child") == ["the end of the body"]
    browser.click("#usage")
    browser.wait("document.getElementById('usage-answer').textContent")
    assert '"generated_tokens": 30' in browser.texts("#usage-answer")[0]
    assert browser.problems() == []


@pytest.mark.browser
@pytest.mark.parametrize("framing", ["application/x-ndjson", "text/plain"])
def test_other_framings_carry_the_same_text(
    browser: Browser, server: RunningServer, framing: str
) -> None:
    browser.send(STORY, seed=1, max_tokens=12, framing=framing)
    browser.finish()
    assert browser.texts(".answer") == [whole_answer(server, browser.sent())]
    assert f"content-type: {framing}" in browser.texts(".head > pre")[0]
    lines = framing == "application/x-ndjson"
    assert len(browser.texts(".row.text")) > (6 if lines else 0)
    assert frames(browser)[0]  # of bare text, too, the trace knows the chunks
    told = "12" if lines else "– (bare text does not tell)"
    assert browser.texts("#stat-tokens") == [told]
    browser.click("[data-language=python]")
    code = browser.texts("#code")[0]
    assert '\nbody = {\n    "model": "fireside",\n    "messages": [\n        {\n' in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    if framing == "text/plain":
        assert done.stdout.decode() == browser.texts(".answer")[0]
    else:
        last = done.stdout.decode().splitlines()[-1]
        assert json.loads(last)["usage"]["completion_tokens"] == 12
    assert browser.problems() == []


@pytest.mark.browser
def test_the_servers_side_is_what_it_has_booked(browser: Browser, server: RunningServer) -> None:
    browser.send(STORY, seed=1, max_tokens=12)
    browser.finish()
    browser.wait("!document.getElementById('server-side').hidden")
    target = browser.texts("#usage")[0].removeprefix("GET ")
    record = httpx.get(server.url + target).json()
    assert browser.texts("#side-prefill") == [f"{1000 * record['prefill_s']:.1f} ms"]
    assert browser.texts("#side-queue") == [f"{1000 * record['queued_s']:.1f} ms"]
    cached = record["cached_tokens"]
    prompt = f"{record['prompt_tokens']} tokens, {cached} of them computed before"
    assert browser.texts("#side-prompt") == [prompt]
    # Nothing reaches the browser before it has left the server.
    lanes = [
        [float(ms) for ms in browser.texts(f".row .{name}")] for name in ("left-at", "reached")
    ]
    assert len(lanes[0]) == len(lanes[1]) > 12
    assert all(left <= reached + 0.11 for left, reached in zip(*lanes, strict=True))
    assert all(browser.texts(f"#{side}-first")[0].endswith(" ms") for side in ("here", "there"))


TAB = "\ue004"


@pytest.mark.browser
def test_all_can_be_done_from_the_keyboard(browser: Browser) -> None:
    browser.send(STORY, seed=1, max_tokens=5)
    browser.finish()
    reached = set()
    for _ in range(40):
        browser.press(TAB)
        reached.add(
            browser.run("return document.activeElement.id || document.activeElement.className")
        )
        reached.add(browser.run("return document.activeElement.dataset.language || ''"))
    wanted = {"message", "new-chat", "tape", "log", "usage", "curl", "python", "javascript", "raw"}
    wanted |= {"pace", "token"}
    assert wanted <= reached
    browser.run("document.querySelector('.rows summary').focus()")
    browser.press("\ue015")  # down
    browser.press(ENTER)
    browser.wait("document.querySelectorAll('.row')[1].querySelector('.inside')")
    browser.run("document.querySelectorAll('.row')[1].querySelector('.inside summary').focus()")
    browser.press(ENTER)
    browser.wait("document.querySelector('.inside details pre')")
    assert browser.texts(".inside details pre")[0].startswith("0000  69 64 3a 20 63 68 ")
    browser.run("document.querySelector('.token').focus()")
    browser.press("\ue014")  # right
    browser.press(ENTER)
    browser.wait("document.getElementById('token').matches(':popover-open')")
    browser.press(ESCAPE)
    browser.wait("!document.getElementById('token').matches(':popover-open')")


@pytest.mark.browser
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser) -> None:
    browser.ask("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=PHONE)
    try:
        browser.send(STORY, seed=1, max_tokens=30)
        browser.finish()
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert browser.run(wide)
        browser.wait(
            "document.querySelector('[data-to=wire]').textContent === 'Wire 34'"
        )  # it lives
        browser.click("[data-to=wire]")
        browser.wait("!document.getElementById('server-side').hidden")
        assert browser.run(wide)
        assert browser.run("return innerWidth") == PHONE["width"]
        assert browser.run("return document.querySelector('.row').offsetHeight") > 10
    finally:
        browser.ask("goog/cdp/execute", cmd="Emulation.clearDeviceMetricsOverride", params={})


@pytest.mark.browser
def test_all_settings_look_alike(browser: Browser) -> None:
    browser.run("document.getElementById('settings').open = true")
    looks = browser.run(
        "return [...document.querySelectorAll('#settings input:not([type=checkbox])')]"
        ".map((e) => [e.offsetWidth <= e.parentElement.clientWidth, e.offsetHeight,"
        " getComputedStyle(e).backgroundColor])"
    )
    assert len(looks) == 5
    assert all(look == looks[0] for look in looks)
    assert looks[0][0]


@pytest.mark.browser
def test_nothing_from_elsewhere_gets_in(browser: Browser) -> None:
    plant = "const s = document.createElement('script'); try { s.%s } catch (e) { return e.name }"
    for change in ("textContent = 'planted = 1'", "src = '/x.js'", "src = 'https://a.invalid/x'"):
        assert browser.run(plant % change) == "TypeError"  # Trusted Types
    browser.run("window.seen = []; document.onsecuritypolicyviolation = (e) => seen.push(e)")
    browser.run("fetch('https://a.invalid').catch(() => {}); new Image().src = 'https://a.invalid'")
    browser.wait("window.seen.length === 2")
    assert len(browser.problems()) >= 2


@pytest.mark.browser
def test_pieces_may_be_cut_anywhere(browser: Browser, tiny_model: Path) -> None:
    # What a random model of bytes writes is rarely UTF-8: there are many U+FFFD, of three bytes.
    with running_server(ServeConfig(model=str(tiny_model), port=0, ledger=":memory:")) as tiny:
        browser.ask("url", url=tiny.url)
        browser.run(CUT)
        browser.send("hi", seed=1, max_tokens=40)
        browser.finish()
        answer = whole_answer(tiny, browser.sent())
        assert not answer.isascii()
        assert browser.texts(".answer") == [answer]
        browser.ask("url", url="about:blank")  # lets go of the connection


@pytest.mark.browser
def test_escape_stops_the_server_too(browser: Browser, server: RunningServer) -> None:
    browser.send(STORY)
    browser.wait("document.querySelectorAll('.row.text').length > 2")
    browser.press(ESCAPE)
    browser.finish()
    assert browser.texts(".turn p") == ["Stopped."]
    assert "the browser asked for it (DELETE)" in browser.texts(".end")[0]
    target = browser.texts("#usage")[0].removeprefix("GET ")
    browser.wait(f"(await fetch('{target}')).ok")
    assert httpx.get(server.url + target).json()["finish_reason"] == "cancelled"


@pytest.mark.browser
def test_a_page_that_is_loaded_again_goes_on(browser: Browser, server: RunningServer) -> None:
    browser.send("Who are you?", seed=1, max_tokens=4)
    browser.finish()
    browser.send(STORY, seed=2, max_tokens=120)
    browser.wait("document.querySelectorAll('.answer')[1]?.querySelectorAll('.token').length > 3")
    browser.run("location.reload()")
    browser.wait("document.querySelectorAll('.answer').length === 2 && document.readyState")
    browser.wait("document.querySelectorAll('.answer:not(.streaming)').length === 2")
    sent = browser.sent()
    assert len(sent["messages"]) == 3
    assert browser.texts(".answer")[1] == whole_answer(server, sent)
    assert "last-event-id: chatcmpl-" in browser.texts(".back")[0]
    browser.run("location.reload()")  # now all is there at once
    browser.wait("document.querySelectorAll('.answer:not(.streaming)').length === 2")
    assert browser.texts(".answer")[1] == whole_answer(server, sent)
    browser.click("#new-chat")
    browser.wait("document.querySelectorAll('.turn').length === 0")


@pytest.mark.browser
def test_an_answer_goes_on_when_the_server_was_killed(
    browser: Browser, tiny_model: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    flags = ["--model", str(tiny_model), "--ledger", str(tmp_path / "ledger"), "--port", port]
    flags += ["--resume-window", str(PATIENCE_S)]
    body = {"messages": [{"role": "user", "content": "hi"}], "seed": 1, "max_tokens": 200}
    with serving(*flags, "--faults") as first:
        browser.ask("url", url=first.url)
        expected = httpx.post(f"{first.url}/v1/chat/completions", json=body).json()
        browser.run(STALL)
        browser.send("hi", seed=1, max_tokens=200)
        browser.wait("document.querySelectorAll('.token').length > 3")
        first.process.kill()
        browser.wait("document.getElementById('alive').textContent.includes('trying to come back')")
    with serving(*flags):
        browser.finish()
        assert browser.texts(".answer") == [expected["choices"][0]["message"]["content"]]
        browser.ask("url", url="about:blank")
    browser.problems()


@pytest.mark.browser
def test_errors_are_shown_and_the_message_kept(browser: Browser) -> None:
    browser.send(STORY, temperature=9)
    browser.finish()
    assert browser.texts(".failed")[0].startswith("400 invalid_value: temperature must be ")
    assert browser.run("return document.getElementById('message').value") == STORY
    assert browser.sent()["messages"] == [{"role": "user", "content": STORY}]


@pytest.mark.browser
def test_a_key_is_sent_where_the_server_has_keys(
    browser: Browser, tiny_model: Path, tmp_path: Path
) -> None:
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    keys = str(tmp_path / "keys")
    config = ServeConfig(model=str(tiny_model), port=0, ledger=":memory:", api_keys=keys)
    with running_server(config) as keyed:
        browser.ask("url", url=keyed.url)
        browser.send("hi", max_tokens=3)
        browser.finish()
        assert browser.texts(".failed")[0].startswith("401 ")
        assert browser.run("return document.activeElement.id") == "key"
        browser.send("hi", key=key, max_tokens=3)
        browser.finish()
        assert len(browser.texts(".row.text")) >= 1
        assert key not in browser.texts("#code")
        browser.ask("url", url="about:blank")


@pytest.mark.browser
def test_probabilities_of_tokens(browser: Browser) -> None:
    browser.send(STORY, max_tokens=5, seed=1)
    browser.finish()
    browser.run("document.querySelector('.token').focus()")
    assert len(browser.texts(".token")) == 5
    assert len(browser.texts("#tip p")) >= 3
    assert browser.texts("#tip .chosen span")[0] == browser.texts(".token")[0]


@pytest.mark.browser
def test_an_answer_goes_on_from_another_token(browser: Browser, server: RunningServer) -> None:
    browser.send(STORY, max_tokens=5, seed=1)
    browser.finish()
    browser.wait("!document.getElementById('server-side').hidden")
    browser.run("document.querySelectorAll('.token')[2].click()")
    first = browser.texts(".token")
    facts = browser.texts("#token dd")
    assert facts[1] == first[2].encode().hex(" ")
    assert facts[3].startswith("0x")
    others = "#token .candidate:not(.chosen) .name"
    other = browser.texts(others)[0].replace("␣", " ").replace("↵", "\n")
    browser.click(others)
    browser.wait("document.querySelectorAll('.answer').length === 2")
    browser.finish()
    sent = browser.sent()
    assert sent["continue_final_message"] is True
    assert sent["messages"][-1]["content"] == "".join(first[:2]) + other
    assert browser.texts(".answer mark") == [other]
    continued = browser.texts(".answer")[1]
    assert continued == "".join(first[:2]) + other + whole_answer(server, sent)
    browser.send("And then?", max_tokens=2)  # goes on from the second answer
    browser.finish()
    assert browser.sent()["messages"][1]["content"] == continued
    browser.click("#requests button")  # the wire of the first one is still there
    assert "continue_final_message" not in browser.sent()


@pytest.mark.browser
def test_tokens_come_one_for_each_key(browser: Browser) -> None:
    pace = "const pace = document.getElementById('pace'); pace.value = %d;"
    pace += "pace.dispatchEvent(new Event('input'))"
    browser.run(pace % 0)
    browser.send(STORY, max_tokens=4, seed=1)
    browser.wait("document.querySelectorAll('#candidates .candidate').length === 8")
    browser.wait("document.getElementById('behind').textContent === '4 wait to be shown'")
    assert browser.texts(".token") == []
    for shown in (1, 2):
        browser.press("\ue014")  # right
        browser.wait(f"document.querySelectorAll('.token').length === {shown}")
    shares = [float(text.removesuffix("%")) for text in browser.texts("#candidates .drawn")]
    assert abs(sum(shares) - 100) < 1
    browser.run(pace % 7)
    browser.finish()
    assert len(browser.texts(".token")) == 4


@pytest.mark.browser
def test_heartbeats_are_seen_while_one_waits(
    browser: Browser, tiny_model: Path, tmp_path: Path
) -> None:
    config = ServeConfig(
        model=str(tiny_model), port=0, ledger=":memory:", heartbeat_s=0.05, faults=True
    )
    with running_server(config) as slow:
        browser.ask("url", url=slow.url)
        browser.run("document.querySelector('[data-suggestion=broken]').disabled || 0")
        browser.wait("!document.querySelector('[data-suggestion=broken]').disabled")
        browser.run(HELD)
        browser.send("hi", max_tokens=2)
        browser.wait("document.querySelectorAll('.row.heartbeat').length === 1")
        browser.wait("document.getElementById('alive').textContent.includes('1 heartbeat so far')")
        browser.run("window.release()")
        browser.finish()
        assert browser.texts(".row.heartbeat summary > :last-child") == ["heartbeat: ping"]
        browser.click("[data-suggestion=broken]")
        browser.wait("document.querySelector('.failed')")
        browser.finish()
        assert browser.texts(".failed")[0].startswith("Broken off: ")
        browser.ask("url", url="about:blank")
    browser.problems()


@pytest.mark.browser
def test_a_conversation_that_fills_the_context_goes_on(browser: Browser, tiny_model: Path) -> None:
    with running_server(ServeConfig(model=str(tiny_model), port=0, ledger=":memory:")) as tiny:
        browser.ask("url", url=tiny.url)
        context = httpx.get(f"{tiny.url}/props").json()["default_generation_settings"]["n_ctx"]
        browser.send("x" * (context // 3), max_tokens=3)
        browser.finish()
        browser.send("y" * (context // 3), max_tokens=3)
        browser.finish()
        browser.send("z" * (context // 3), max_tokens=3)
        browser.finish()
        assert f"context of {context} tokens" in browser.texts(".notice p")[0]
        assert browser.texts(".notice button")[1] == "New chat"
        browser.click(".notice button")
        browser.wait("document.querySelectorAll('.answer:not(:empty)').length === 3")
        browser.finish()
        left = browser.run("return document.querySelectorAll('.turn.left').length")
        assert re.match(rf"{left} turns? left out", browser.texts(".notice p")[0])
        sent = browser.sent()["messages"]
        assert sent[0]["content"][0] == "xyz"[left]
        assert sent[-1]["content"][0] == "z"
        browser.ask("url", url="about:blank")
    browser.problems()


# Stands in where there is no netcat
NETCAT = f"""#!{sys.executable}
import socket, sys
with socket.create_connection(sys.argv[1:]) as connection:
    connection.sendall(sys.stdin.buffer.read())
    while data := connection.recv(65536):
        sys.stdout.buffer.write(data)
"""
LANGUAGES = ["curl", "python", "javascript", "raw"]


def run_copied(language: str, code: str, folder: Path, **environment: str) -> str:
    """Run code that was copied, as its language is run; return its output."""
    commands = {"python": [sys.executable, "-c", code], "javascript": ["node", "stream.mjs"]}
    command = commands.get(language, ["bash", "-c", code])
    if not shutil.which("curl" if language == "curl" else command[0]):
        pytest.skip(f"{language} cannot be run here")
    (folder / "stream.mjs").write_text(code)
    (folder / "nc").write_text(NETCAT)
    (folder / "nc").chmod(0o755)
    path = f"{os.environ['PATH']}{os.pathsep}{folder}"
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b"" or language == "curl"  # which shows how far it is
    return done.stdout.decode()


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_copied_requests_run(browser: Browser, tmp_path: Path, language: str) -> None:
    browser.send('It\'s "true":\n100 %s, \\r \u00e9 `$HOME`', seed=1, max_tokens=12)
    browser.finish()
    browser.click(f"[data-language={language}]")
    output = run_copied(language, browser.texts("#code")[0], tmp_path)
    if language == "python":
        assert output == browser.texts(".answer")[0]
    elif language == "javascript":
        events = [json.loads(data) for data in re.findall(r"data: (\{.*)", output)]
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        assert "".join(delta.get("content", "") for delta in deltas) == browser.texts(".answer")[0]
    else:
        sizes = re.findall(r"^([0-9a-f]+)\r\n", output.partition("\r\n\r\n")[2], re.MULTILINE)
        assert without_usage(sizes) == without_usage(browser.texts(".frame"))


@pytest.mark.browser
def test_copied_requests_run_where_the_server_has_keys(
    browser: Browser, tiny_model: Path, tmp_path: Path
) -> None:
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    keys = str(tmp_path / "keys")
    config = ServeConfig(model=str(tiny_model), port=0, ledger=":memory:", api_keys=keys)
    with running_server(config) as keyed:
        browser.ask("url", url=keyed.url)
        browser.send("hi", key=key, seed=1, max_tokens=3)  # no model is known until it is answered
        browser.finish()
        for language in LANGUAGES:
            browser.click(f"[data-language={language}]")
            code = browser.texts("#code")[0]
            assert key not in code
            assert run_copied(language, code.replace("YOUR KEY", key), tmp_path, KEY=key)
        browser.ask("url", url="about:blank")
    assert all("401" in problem for problem in browser.problems())
