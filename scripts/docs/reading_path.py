"""Write "Read next" at the end of each docstring of the heart, in the order of README's tree.

A module that names the right one already is left as it is. Run it after a module of the heart was
added, renamed or moved in the tree.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NEXT = re.compile(r"\s*Read next:.*\Z", re.DOTALL)


def order() -> list[str]:
    """Return the modules in README's tree."""
    readme = (ROOT / "README.md").read_text("utf-8")
    tree = re.search(r"```\n(first/.*?)```", readme, re.DOTALL)
    assert tree is not None
    return [line.split()[0] for line in tree[1].splitlines()]


def rewritten(source: str, target: str | None) -> str:
    """Return a module's source, whose docstring ends by naming `target`; None is the end."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.Expr)
    assert node.end_lineno is not None
    lines = source.splitlines(keepends=True)
    text = "".join(lines[: node.end_lineno])
    docstring = text.strip().removeprefix('"""').removesuffix('"""').rstrip()
    found = re.search(r"Read next:\s+`streamtok\.([\w.]+)`[^`]*\Z", docstring)
    if (found[1] if found else None) == target:
        return source
    docstring = NEXT.sub("", docstring)
    if target is not None:
        docstring += f"\n\nRead next: `streamtok.{target}`."
    end = "\n" if "\n" in docstring else ""
    return f'"""{docstring}{end}"""\n' + "".join(lines[node.end_lineno :])


if __name__ == "__main__":
    modules = order()
    names = [module.removesuffix(".py").replace("/", ".") for module in modules]
    for module, target in zip(modules, [*names[1:], None], strict=True):
        path = ROOT / "streamtok" / module
        source = path.read_text("utf-8")
        if (new := rewritten(source, target)) != source:
            path.write_text(new, "utf-8")
            print(f"{module}: read next {target}")
