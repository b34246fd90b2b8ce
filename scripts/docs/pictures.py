"""Takes the README's pictures: the page in Chromium, and the trace in a terminal.

usage: pictures.py [FOLDER]

Needs chromium and chromedriver, `httpx` and `pillow`. A server with the shipped model runs for the
purpose, with a seed, so that the pictures show the same text each time. They go to
`scripts/docs/pictures/`.
"""

import base64
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from streamtok.config import ServeConfig
from streamtok.serve.background import running_server

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
STORY = "Tell me a story about a fox and a lantern."
DESKTOP = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1.5, "mobile": True}
TERMINAL = {"width": 964, "height": 752, "deviceScaleFactor": 1, "mobile": False}
COLOURS = 128
COLUMNS, ROWS = 110, 38  # of the terminal
SET = """
    for (const [name, value] of Object.entries(arguments[0])) {
      document.getElementById(name).value = value;
    }
    document.getElementById('pace').dispatchEvent(new Event('input'));
"""
ASK = """
    document.getElementById('message').value = arguments[0];
    document.getElementById('composer').requestSubmit();
"""
AWAIT = """
    const check = () => (%s) ? arguments[0]() : requestAnimationFrame(check);
    check();
"""
DONE = """
    document.getElementById('send').textContent === 'Send'
    && document.querySelectorAll('.answer').length === %d
    && !document.getElementById('server-side').hidden
"""
OPEN = """
    const tokens = [...document.querySelectorAll('.token')];
    const token = tokens.find((one) => one.textContent === arguments[0]);
    token.scrollIntoView({ block: 'center' });
    token.click();
"""
# On from another candidate, which is shown in the second answer
BRANCH = """
    const others = [...document.querySelectorAll('#token .candidate:not(.chosen):enabled')];
    others.at(-1).click();
"""


class Browser:
    """Chromium, through its driver."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def ask(self, command: str, **values: Any) -> Any:
        """Send a WebDriver command; return its value."""
        answer = self._session.post(command, json=values).raise_for_status()
        return answer.json()["value"]

    def shape(self, screen: dict[str, Any], scheme: str) -> None:
        """Be a device of that size, in light or dark."""
        self._cdp("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._cdp("Emulation.setEmulatedMedia", {"features": features})

    def _cdp(self, command: str, values: dict[str, Any]) -> None:
        self.ask("goog/cdp/execute", cmd=command, params=values)

    def save(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        answer = self._session.get("screenshot").raise_for_status()
        picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["value"])))
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
        print(path, path.stat().st_size, "bytes")


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a browser for the length of the block."""
    driver = shutil.which("chromedriver")
    assert driver, "chromedriver is not installed"
    options = {"args": ARGUMENTS, "binary": shutil.which("chromium")}
    wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = (re.search(r"successfully on port (\d+)", line) for line in process.stdout)
        url = f"http://127.0.0.1:{next(match for match in found if match)[1]}/session"
        session = httpx.post(url, json=wanted, timeout=60).json()["value"]["sessionId"]
        try:
            with httpx.Client(base_url=f"{url}/{session}", timeout=60) as client:
                yield Browser(client)
        finally:
            httpx.delete(f"{url}/{session}", timeout=60)
            process.terminate()


class Page:
    """The page, as somebody uses it who chats and looks at the wire."""

    def __init__(self, seen: Browser, url: str, screen: dict[str, Any], scheme: str) -> None:
        self._seen = seen
        self._answers = 0
        seen.shape(screen, scheme)
        seen.ask("url", url=f"{url}/health")
        seen.ask("execute/sync", script="sessionStorage.clear()", args=[])
        seen.ask("url", url=url)
        self.wait("document.getElementById('model').textContent === 'fireside'")

    def run(self, script: str, *arguments: Any) -> None:
        """Run a script in the page."""
        self._seen.ask("execute/sync", script=script, args=list(arguments))

    def wait(self, condition: str) -> None:
        """Wait until an expression holds."""
        self._seen.ask("execute/async", script=AWAIT % condition, args=[])

    def chat(self, message: str, **settings: Any) -> None:
        """Send a message, and wait for the answer and for the server's side of it."""
        self.run(SET, settings)
        self.run(ASK, message)
        self.answered()

    def answered(self) -> None:
        """Wait for one answer more."""
        self._answers += 1
        self.wait(DONE % self._answers)


def page(folder: Path, seen: Browser, url: str) -> None:
    """Take pictures of the page: a story and a branch of it, steps in the dark, and a phone."""
    light = Page(seen, url, DESKTOP, "light")
    light.chat(STORY, seed=7, max_tokens=40)
    light.run(OPEN, " noisy")
    light.run(BRANCH)
    light.answered()
    light.chat("Tell me a story about an owl who cannot sleep.", seed=5, max_tokens=70)
    light.run("for (const id of ['log', 'tape']) document.getElementById(id).scrollTop = 1e6")
    seen.save(folder / "page-light.png")
    dark = Page(seen, url, DESKTOP, "dark")
    dark.run(SET, {"seed": 7, "max_tokens": 60, "pace": 0})
    dark.run(ASK, STORY)
    for shown in range(12):
        dark.wait(f"document.querySelectorAll('.token').length === {shown}")
        dark.wait("document.querySelectorAll('#candidates .candidate').length === 8")
        dark.run("document.getElementById('next').click()")
    dark.wait("document.querySelectorAll('.token').length === 12")
    seen.save(folder / "page-dark.png")
    phone = Page(seen, url, PHONE, "light")
    phone.chat(STORY, seed=7, max_tokens=120)
    phone.run("document.querySelector('[data-to=wire]').click()")
    seen.save(folder / "page-phone.png")


def trace() -> str:
    """Return what `serve --trace` writes to a terminal for one request."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "streamtok", "serve", "--port", "0", "--ledger", ":memory:"]
    with subprocess.Popen(
        [*command, "--trace"],
        env=os.environ | {"TERM": "xterm-256color"},
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        written = b""
        while not (ready := re.search(rb"ready at (\S+)", written)):
            written += os.read(ours, 65536)
        body = {"prompt": "Once upon", "max_tokens": 2, "stream": True, "seed": 1}
        url, headers = f"{ready[1].decode()}/v1/completions", {"authorization": "Bearer sk-1"}
        httpx.post(url, json=body, headers=headers)
        while b"finish " not in written:
            written += os.read(ours, 65536)
        process.terminate()
    return written.partition(b"\n")[2].decode().replace("\r\n", "\n")


def terminal(seen: Browser, text: str, path: Path) -> None:
    """Take a picture of a terminal that shows the first rows of `text`."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("\n").join(Text.from_ansi(text).split("\n")[:ROWS]), soft_wrap=True)
    style = f"body {{ margin: 0; padding: 16px; background: {MONOKAI.background_color.hex}; }}"
    style += " pre { margin: 0; font: 14px/1.35 'DejaVu Sans Mono', monospace !important; }"
    html = console.export_html(theme=MONOKAI, inline_styles=True)
    page = html.replace("</head>", f"<style>{style}</style></head>")
    seen.shape(TERMINAL, "dark")
    seen.ask("url", url="data:text/html;base64," + base64.b64encode(page.encode()).decode())
    seen.save(path)


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "pictures")
    folder.mkdir(exist_ok=True)
    with (
        browser() as seen,
        running_server(ServeConfig(port=0, ledger=":memory:", faults=True)) as server,
    ):
        page(folder, seen, server.url)
        terminal(seen, trace(), folder / "trace.png")


if __name__ == "__main__":
    main()
