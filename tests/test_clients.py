"""Other projects' clients, each by its script: streams, leaving, tool calls, structured output."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamtok.testing import RunningServer

SCRIPTS = Path(__file__).parent.parent / "scripts" / "clients"
PYTHON = os.environ.get("CLIENTS_PYTHON", sys.executable)  # where the packages are
NODE = Path(os.environ.get("CLIENTS_NODE", SCRIPTS))  # the folder that has `node_modules`

pytestmark = pytest.mark.clients


def run(command: list[str], folder: Path, given: str = "") -> None:
    ran = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"STREAMTOK_PYTHON": sys.executable},
        input=given,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("inspect_client.py", "inspect_ai"),
        ("langchain_client.py", "langchain_openai"),
        ("litellm_client.py", "litellm"),
        ("openai_agents_client.py", "agents"),
    ],
)
def test_a_client_for_python(
    server: RunningServer, tmp_path: Path, script: str, package: str
) -> None:
    pytest.importorskip("llguidance")  # for the server, which is to keep to schemas
    if subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{package} is not installed")
    run([PYTHON, str(SCRIPTS / script), server.url], tmp_path)


def test_agents_run_against_scripted_answers(tmp_path: Path) -> None:
    needed = "import agents, langchain_openai, langchain_anthropic"
    if subprocess.run([PYTHON, "-c", needed], capture_output=True).returncode:
        pytest.skip("openai-agents or LangChain is not installed")
    run([PYTHON, str(SCRIPTS / "scripted_agent_client.py")], tmp_path)


@pytest.mark.parametrize(
    ("script", "package"),
    [("openai_node.mjs", "openai"), ("ai_sdk.mjs", "@ai-sdk/openai-compatible")],
)
def test_a_client_for_node(server: RunningServer, script: str, package: str) -> None:
    pytest.importorskip("llguidance")
    if not shutil.which("node") or not (NODE / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed")
    # Read from standard input, so that its packages are looked for in that folder
    run(["node", "--input-type=module", "-", server.url], NODE, (SCRIPTS / script).read_text())
