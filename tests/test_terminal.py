"""`chat` and `generate` in a terminal: wrapped words, another server, commands, completion."""

import builtins
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from streamtok import cli
from streamtok.completion import script
from streamtok.config import ServeConfig
from streamtok.observe.sinks import Feed, log_through
from streamtok.serve.background import RunningServer, running_server
from streamtok.terminal import typewriter
from streamtok.terminal.typewriter import Wrapper


def screen(shown: str) -> list[str]:
    """Return the lines that a terminal has after `shown`, which may move back and erase."""
    lines = [""]
    rest = iter(shown)
    for character in rest:
        if character == "\n":
            lines.append("")
        elif character == "\x1b":
            code = ""
            while not code.endswith(("D", "K")):
                code += next(rest)
            if code.endswith("D"):
                for _ in range(int(code[1:-1])):
                    lines[-1] = lines[-1][:-1]
        else:
            lines[-1] += character
    return lines


words = st.text("abc \n\u4e2d", max_size=60)


@given(words, st.integers(2, 12), st.data())
def test_words_are_whole_and_lines_fit_however_the_text_is_cut(
    text: str, width: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    wrapper, whole = Wrapper(), Wrapper()
    shown = wrapper.feed(text[:cut], width) + wrapper.feed(text[cut:], width)
    assert shown == whole.feed(text, width)
    shown = shown.replace("\u4e2d", "mm")  # two cells: as many characters
    lines = screen(shown)
    assert all(len(line) <= width for line in lines)
    plain = text.replace("\u4e2d", "mm")
    assert "".join(lines).replace(" ", "") == plain.replace(" ", "").replace("\n", "")
    for word in plain.split():
        if len(word) <= width:
            assert any(word in line for line in lines)


def test_a_window_that_becomes_narrow_wraps_what_comes() -> None:
    wrapper = Wrapper(4)
    shown = wrapper.feed("one two", 20) + wrapper.feed(" three four", 8)
    assert screen("bot " + shown) == ["bot one two", "three ", "four"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    shown = Wrapper().feed("a\x1b[2Jb\x07\x9bc\r\nd\te\x7f", 40)
    assert shown == "a\u241b[2Jb\u2407\ufffdc\nd       e\u2421"
    assert cell_len("\u241b") == 1


# Another server


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    with running_server(ServeConfig(model=str(tiny_model), port=0, ledger=":memory:")) as running:
        yield running


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have lines typed, and then the end of input."""

    def give(*lines: str) -> None:
        rest = iter(lines)

        def read(prompt: str) -> str:
            for line in rest:
                return line
            raise EOFError

        monkeypatch.setattr(builtins, "input", read)

    return give


def test_chat_and_generate_ask_a_server_with_what_is_given(
    server: RunningServer, typed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--url", f"{server.url}/v1", "--seed", "4", "--max-tokens", "5"]
    assert cli.main(["generate", "hi", *given]) == 0
    text = capsys.readouterr().out
    assert cli.main(["generate", "hi", *given, "--raw"]) == 0
    raw = capsys.readouterr().out
    assert raw != text
    typed("hi", "/new", "hi")
    assert cli.main(["chat", *given]) == 0
    out = capsys.readouterr().out
    assert out.count(f"bot {text}") == 2


def test_chat_knows_its_commands(
    server: RunningServer, typed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    typed("/help", "/hlep", "/quit", "never read")
    assert cli.main(["chat", "--url", server.url]) == 0
    out = capsys.readouterr().out
    assert out.count("/new     start over") == 2
    assert "no command /hlep" in out
    assert "bot" not in out


@pytest.mark.parametrize("command", [["chat"], ["generate", "hi"]])
def test_what_is_wrong_with_a_server_is_said_at_once(
    command: list[str],
    server: RunningServer,
    typed: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    listening: Callable[[], int],
) -> None:
    typed("never read")
    nobody = f"http://127.0.0.1:{listening()}"
    assert cli.main([*command, "--url", nobody]) == 2
    assert f"streamtok: {nobody} cannot be reached: " in capsys.readouterr().err
    if command[0] == "generate":
        assert cli.main([*command, "--url", server.url, "--model", "other"]) == 2
        assert "other" in capsys.readouterr().err


@pytest.fixture
def listening() -> Callable[[], int]:
    """Give a port at which nobody listens."""
    import socket

    def port() -> int:
        with socket.create_server(("127.0.0.1", 0)) as other:
            return int(other.getsockname()[1])

    return port


def test_a_missing_key_is_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["key", "me"]) == 0
    keys = tmp_path / "keys"
    keys.write_text(capsys.readouterr().out)
    config = ServeConfig(model=str(tiny_model), port=0, ledger=":memory:", api_keys=str(keys))
    with running_server(config) as locked:
        assert cli.main(["chat", "--url", locked.url]) == 2
    assert "the key is set by --api-key or STREAMTOK_API_KEY" in capsys.readouterr().err


def test_what_is_no_server_of_this_api_is_named(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", "hi", "--url", f"{server.url}/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_output_on_a_terminal_is_wrapped(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 1

    narrow = Terminal()
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(typewriter.os, "get_terminal_size", lambda _: os.terminal_size((12, 24)))
    asked = ["generate", "hi", "--url", server.url, "--max-tokens", "60", "--seed", "1"]
    assert cli.main(asked) == 0
    assert all(cell_len(line) <= 11 for line in screen(narrow.getvalue()))


# The log beside a trace, and completion


def test_a_line_of_the_log_follows_the_records_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    direct, written = io.StringIO(), []
    monkeypatch.setattr(sys, "stderr", direct)
    handler = logging.StreamHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    feed: Feed[str] = Feed("the terminal", written.append, lambda: None)
    restore = log_through(feed)
    try:
        feed("a record\n")
        logging.getLogger("streamtok.access").warning("a line")
        feed("another record\n")
    finally:
        restore()
        feed.close()
        logging.getLogger("streamtok.access").warning("the end")
        root.removeHandler(handler)
    assert "".join(written) == "a record\na line\nanother record\n"
    assert direct.getvalue() == "the end\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_flags_and_values(shell: str) -> None:
    pytest.importorskip("shtab")
    text = script(cli._parser(), shell)
    for word in ("doctor", "max-streams", "process thread", "structured"):
        assert word in text


def test_completion_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
