"""Server and engine start at once, each without what only the other needs."""

import subprocess
import sys

import pytest

SERVER = "import streamtok.app, streamtok.serve.process, streamtok.startup as startup"
CLUSTER = {f"streamtok.engine.cluster.{name}" for name in ("client", "places", "start", "stats")}
OPTIONAL = CLUSTER | {"ray", "psycopg", "psycopg_pool", "streamtok.postgres.database"}
FILES = "startup.load_files(streamtok.config.ServeConfig().model_folder, weights=False)"


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        (f"{SERVER}\n{FILES}", {"numpy", "safetensors", "streamtok.engine.core"} | OPTIONAL),
        (
            "import streamtok.engine.remote.child",
            {"asyncio", "tokenizers", "jinja2", "h11"} | OPTIONAL,
        ),
        ("import streamtok", {"asyncio", "numpy", "msgspec"}),
    ],
    ids=["server", "engine", "package"],
)
def test_a_process_imports_nothing_that_it_can_do_without(program: str, absent: set[str]) -> None:
    show = "import sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\n{show}"], capture_output=True, text=True, check=True
    )
    assert not absent & set(run.stdout.split())
