"""One path of "Read next" through the heart: from the ladder on, each module once.

`scripts/docs/reading_path.py` writes it, in the order of README's tree.
"""

import ast
import re

import pytest
from documents import PAGES, blocks
from test_layers import HEART, MODULES, NAMES, PACKAGE, room_of

FIRST = "first/chunks.py"
HEART_MODULES = [
    path
    for path in MODULES
    if path.startswith((*HEART, "app.py"))
    and room_of(path) is None
    and not path.endswith("__init__.py")
]


def targets(path: str) -> list[str]:
    """Return the modules that the docstring of the one at `path` says to read next."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / path).read_text("utf-8"))) or ""
    _, _, after = docstring.partition("Read next:")
    return [NAMES.get(name, name) for name in re.findall(r"`streamtok\.([\w.]+)`", after)]


def reading_path() -> list[str]:
    """Return the modules in the order in which a reader meets them who starts at the first."""
    path = [FIRST]
    while (found := targets(path[-1])) and found[0] not in path:
        path.append(found[0])
    return path


@pytest.mark.parametrize("path", MODULES)
def test_what_a_docstring_says_to_read_is_there(path: str) -> None:
    assert set(targets(path)) <= set(MODULES)


@pytest.mark.parametrize("path", HEART_MODULES)
def test_a_module_of_the_heart_names_one_other_of_the_heart(path: str) -> None:
    found = targets(path)
    assert len(found) == (path != reading_path()[-1])
    assert set(found) <= set(HEART_MODULES) - {path}


def test_the_path_visits_every_module_of_the_heart_once() -> None:
    path = reading_path()
    assert sorted(path) == HEART_MODULES


def test_the_tree_in_the_readme_has_the_modules_in_the_order_of_the_path() -> None:
    tree = next(block for _, block in blocks(PAGES["README.md"]) if block.startswith(FIRST))
    assert [line.split()[0] for line in tree.splitlines()] == reading_path()
