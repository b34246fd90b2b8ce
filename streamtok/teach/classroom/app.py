"""The class as an application: a server, the pages before it, and what the teacher is told."""

import socket
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from streamtok.api.access.keys import new_key
from streamtok.app import App
from streamtok.config import ServeConfig
from streamtok.teach.classroom.desk import Desk
from streamtok.teach.classroom.roster import TEACHER, Roster
from streamtok.teach.classroom.shelf import Shelf
from streamtok.teach.config import ClassConfig

STREAMS, QUEUE = 128, 1024  # at once, and waiting: nobody in a room is refused
ELSEWHERE = ("192.0.2.1", 9)  # a documentation address (RFC 5737); nothing is sent to it


class ClassApp:
    """Runs the class, as `streamtok.serve.process` runs applications.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(self, config: ClassConfig) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="streamtok-class-")
        keys = Path(self._folder.name) / "keys"
        key, line = new_key(TEACHER)
        keys.write_text(f"{line}\n", "utf-8")
        self._key = key
        self._config = config
        self._shelf = Shelf()
        self._desk = Desk(Roster(keys, key, lambda: self._app.reload()), self._shelf)
        settings = ServeConfig(
            model=config.model,
            host=config.host,
            port=config.port,
            ledger=config.ledger,
            api_keys=str(keys),
            admin_keys=TEACHER,
            max_streams=STREAMS,
            max_queue=QUEUE,
        )
        self._app = App(settings, around=self._desk.around)

    async def start(self) -> str:
        """Listen, load the model, and return the URL for the room. Raises StreamtokError."""
        url = await self._app.start()
        port = url.rpartition(":")[2]
        shown = url if self._config.host not in ("", "0.0.0.0", "::") else f"http://{lan()}:{port}"
        self._tell(f"{shown}/class", f"{shown}/class/teach/{self._key}")
        return url

    def reload(self) -> None:
        """Read the files again that may have changed."""
        self._app.reload()

    async def stop(self) -> None:
        """Let what runs end, and close."""
        await self._app.stop()
        await self._shelf.close()
        self._folder.cleanup()

    def _tell(self, room: str, teacher: str) -> None:
        """Show the teacher where the room and the teacher's page are."""
        console = Console(highlight=False, soft_wrap=True)
        if code := qr(room):
            console.print(Text(code))
        console.print(Text("The room opens    ").append(room, "bold"))
        console.print(Text("You open          ").append(teacher, "bold"))
        console.print(Text("A plan            streamtok help class"))
        if not code:
            console.print(Text("With a QR code    pip install segno", "dim"))


def lan() -> str:
    """Return this machine's address as its network sees it; the loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)  # chooses a route, and sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def qr(text: str) -> str:
    """Return a QR code of `text` for a terminal; nothing without segno, an extra."""
    try:
        segno: Any = import_module("segno")
    except ImportError:
        return ""
    rows = [list(row) for row in segno.make(text, error="m", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    halves = {(0, 0): "\u2588", (0, 1): "\u2580", (1, 0): "\u2584", (1, 1): " "}  # light on dark
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(halves[pair] for pair in zip(*two, strict=True)) for two in pairs)
