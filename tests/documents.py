"""README.md and the help pages: their text, their code blocks and their commands."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HELP = sorted((ROOT / "streamtok" / "help").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (README, *HELP)}


def help_page(name: str) -> str:
    return PAGES[f"streamtok/help/{name}.md"]


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced code block."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """Return each shell command; one goes on while its lines are indented."""
    return [
        command
        for language, block in blocks(text)
        if language == "sh"
        for command in re.split(r"\n(?=\w)", block.strip())
    ]


def rows(text: str) -> list[list[str]]:
    """Return the cells of each line of a table."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
