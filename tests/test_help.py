"""`streamtok help`, and what `serve --help` shows."""

import io
import re
from dataclasses import fields

import pytest
from documents import HELP, PAGES, help_page
from rich.console import Console

from streamtok import cli, flags
from streamtok import help as pages
from streamtok.config import ServeConfig
from streamtok.proxy.config import ProxyConfig
from streamtok.settings import (
    flag_name,
)
from streamtok.teach.config import LearnConfig
from streamtok.terminal.config import ChatConfig, GenerateConfig


def test_every_page_is_listed_once_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(pages.names()) == [path.stem for path in HELP]
    assert cli.main(["help"]) == 0
    text = capsys.readouterr().out
    for name in pages.names():
        assert re.search(rf"^  {name} +{re.escape(pages.summary(name))}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", pages.names())
def test_a_page_has_a_title_and_a_summary_of_one_line(name: str) -> None:
    title, summary, _ = help_page(name).split("\n\n", 2)
    assert re.fullmatch(r"# \S.*", title)
    assert len(summary.replace("\n", " ")) <= 140
    assert help_page(name).endswith("\n")


@pytest.mark.parametrize("name", pages.names())
def test_a_pipe_gets_a_page_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", name]) == 0
    assert capsys.readouterr().out == help_page(name)


def test_a_terminal_gets_it_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(pages, "Console", lambda: Console(file=terminal, width=80))
    assert cli.main(["help", "limits"]) == 0
    text = terminal.getvalue()
    assert "503 with" in text
    assert "| --- |" not in text


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("setings", "look at: settings"),
        ("nginx", "look at: proxies"),
        ("STREAMTOK_API_KEY", "look at: terminal"),
        ("nonsense", "see: streamtok help"),
    ],
)
def test_what_is_no_topic_is_looked_for(
    asked: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["help", asked]) == 2
    assert f"no help topic '{asked}'; {found}" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES)
def test_every_topic_that_is_mentioned_exists(page: str) -> None:
    assert set(re.findall(r"streamtok help (\w+)", PAGES[page])) <= {*pages.names(), "TOPIC"}


def test_the_flags_of_serve_are_grouped_and_say_what_they_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "VALUE" not in text
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    kinds = {kind.__name__ for kind in ServeConfig.__mro__}
    assert headings == ["options", *(flags.GROUPS[name] for name in flags.GROUPS if name in kinds)]
    _, *groups = re.split(r"^\S.*:$", text, flags=re.MULTILINE)
    for setting in fields(ServeConfig):
        holding = [g for g in groups if re.search(rf"^  {flag_name(setting)}\b(?!-)", g, re.M)]
        assert len(holding) == 1, setting.name


def test_every_metavar_is_that_of_a_setting() -> None:
    kinds = (ServeConfig, ProxyConfig, ChatConfig, GenerateConfig, LearnConfig)
    names = {setting.name for kind in kinds for setting in fields(kind)}
    assert flags.METAVARS.keys() <= names
