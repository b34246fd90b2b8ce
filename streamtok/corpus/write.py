"""Writes the corpus: for each case its bytes, and beside them in JSON what they are.

Read next: `streamtok.corpus.cases`.
"""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from streamtok import __version__
from streamtok.corpus.answers import cases
from streamtok.corpus.cases import BY_HAND, Case
from streamtok.errors import ConfigError
from streamtok.help import text

SPLITS = 3  # of each case
MOST_CUTS = 40  # in one of them


def corpus(folder: Path, seed: int) -> int:
    """Write the corpus into a `folder` and return the exit status.

    Raises:
        ConfigError: the folder cannot be written to, or is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: expected a new or an empty folder")
    try:
        count = _write(folder, seed)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written to: {error.strerror}") from error
    print(f"{count} cases in {folder}; README.md there describes them")
    return 0


def described(case: Case, seed: int) -> dict[str, Any]:
    """Return what is in the JSON beside a case's bytes."""
    return {
        "name": case.name,
        "about": case.about,
        "legal": case.legal,
        "body": f"{case.name}.sse",
        "events": [{"event": e.event, "data": e.data, "id": e.id} for e in case.events],
        "retry": case.retry_ms,
        "text": case.text,
        "http": None if case.http is None else f"{case.name}.http",
        "ends": case.ends,
        "pauses": [{"at": at, "seconds": seconds} for at, seconds in case.pauses],
        "splits": list(splits(case.name, len(case.body), seed)),
    }


def splits(name: str, length: int, seed: int) -> Iterator[Sequence[int]]:
    """Yield offsets at which a body of this `length` is to be cut: a few ways, by the `seed`."""
    drawn = random.Random(f"{seed} {name}")
    for _ in range(SPLITS):
        count = drawn.randint(1, MOST_CUTS)
        yield sorted({drawn.randint(0, length) for _ in range(count)})


def _write(folder: Path, seed: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for case in chain(BY_HAND, cases()):
        names.append(case.name)
        (folder / f"{case.name}.sse").write_bytes(case.body)
        if case.http is not None:
            (folder / f"{case.name}.http").write_bytes(case.http)
        _write_json(folder / f"{case.name}.json", described(case, seed))
    index = {"streamtok": __version__, "seed": seed, "cases": names}
    _write_json(folder / "index.json", index)
    (folder / "README.md").write_text(text("corpus"), "utf-8")
    return len(names)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")
