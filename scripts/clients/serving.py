"""A server for the scripts of this folder, and how they report: a line for each check.

usage of each script: SCRIPT [URL | --scripted]

Without a URL it starts `streamtok serve` from this checkout, with the model that is shipped, by the
Python that STREAMTOK_PYTHON names (default: the one that runs the script).

A model of five million parameters often chooses words that a program cannot use: a call of a tool
where an answer was wanted, text where a call was, a street that is not in the list. With
`--scripted`, right answers are prescribed instead (`serve --script`), where a script has such: what
fails then is a fault of the server or of the framework.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY = "ready at "


@contextmanager
def server(context: int = 0, flags: Sequence[str] = (), answers: str = "") -> Iterator[str]:
    """Yield the URL of a running server: that of the command line, or of one that is started.

    With a `context` the model that is started has so many tokens of it, for prompts that are longer
    than what the model that is shipped was trained on; what it says then makes even less sense.
    `flags` are more of `streamtok serve`, and `answers` the script for `--scripted`.
    """
    is_scripted = sys.argv[1:] == ["--scripted"]
    if len(sys.argv) > 1 and not is_scripted:
        yield sys.argv[1].rstrip("/")
        return
    if is_scripted and not answers:
        sys.exit("no answers are prescribed for this framework")
    with tempfile.TemporaryDirectory() as folder:
        if is_scripted:
            script = Path(folder) / "script.toml"
            script.write_text(answers)
            flags = [*flags, "--script", str(script), "--script-only"]
        yield from _started(Path(folder) / "fireside", context, flags)


def _started(folder: Path, context: int, flags: Sequence[str]) -> Iterator[str]:
    """Yield the URL of a server that is started, and ended afterwards."""
    python = os.environ.get("STREAMTOK_PYTHON", sys.executable)
    command = [python, "-m", "streamtok", "serve", "--port", "0", "--ledger", ":memory:"]
    command += ["--log-level", "warning", *flags]
    if context:
        command += ["--model", str(_with_context(folder, context))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if READY in line:
                    yield line.partition(READY)[2].strip()
                    break
            else:
                sys.exit("the server did not start")
        finally:
            process.terminate()


def _with_context(folder: Path, context: int) -> Path:
    """Return a folder with the model that is shipped, whose context is another."""
    folder.mkdir()
    shipped = ROOT / "weights" / "fireside"
    for file in shipped.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((shipped / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    return folder


def check(name: str, url: str, steps: Sequence[Callable[[str], object]]) -> None:
    """Run `steps`, each with `url`; print which pass, and exit with 1 where one does not."""
    failed = 0
    for step in steps:
        try:
            step(url)
        except Exception as error:  # whatever a framework raises is a result here
            failed += 1
            if "-v" in os.environ.get("CLIENTS_FLAGS", ""):
                traceback.print_exc()
            text = " ".join(str(error).split())[:300]
            print(f"{name}: FAILED {step.__name__}: {type(error).__name__}: {text}", flush=True)
        else:
            print(f"{name}: {step.__name__}", flush=True)
    if failed:
        sys.exit(f"{name}: {failed} of {len(steps)} failed")
