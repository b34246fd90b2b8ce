"""How long a start takes: the import, `serve` until it is ready, a test's first answer.

usage: start.py [ROUNDS] [TREE...]

Each TREE is a checkout (default: this one); several are measured in turn and compared with the
first. Bytecode is compiled beforehand, into a folder of its own, as an installed package has it.

  * import: `import streamtok` in a new interpreter, less the time of one that imports nothing;
  * serve: from `python -m streamtok serve` to the first `/health` that says "ok";
  * test: from a new interpreter to the end of the first answer of `streamtok.testing.fresh_server`,
    which is what the pytest fixture gives.
"""

import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROUNDS = 5
ELSEWHERE = Path(__file__).anchor  # a folder without a package, which would come before the tree's
TEST = """
import json, urllib.request
from streamtok.testing import Models, fresh_server
with fresh_server((), Models()) as server:
    body = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
    asked = urllib.request.Request(server.url + "/v1/completions", body)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200
"""


def run(program: str, environment: dict[str, str]) -> float:
    """Return how many seconds a program takes."""
    begun_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ELSEWHERE, check=True)
    return time.perf_counter() - begun_s


def serve(environment: dict[str, str]) -> float:
    """Return the seconds until a server says that it is ready to answer."""
    command = [sys.executable, "-m", "streamtok", "serve", "--port", "0", "--ledger", ":memory:"]
    begun_s = time.perf_counter()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=environment, cwd=ELSEWHERE, stdout=-1, stderr=quiet
    ) as server:
        assert server.stdout is not None
        found = re.search(rb"http://(\S+)", server.stdout.readline())
        assert found is not None
        connection = http.client.HTTPConnection(found[1].decode())
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        took_s = time.perf_counter() - begun_s
        connection.close()
        server.terminate()
    return took_s


def measure(rounds: int, trees: list[str]) -> dict[str, dict[str, float]]:
    """Return the median seconds by tree and kind."""
    found: dict[str, dict[str, list[float]]] = {tree: {} for tree in trees}
    with TemporaryDirectory() as bytecode:
        for number in range(rounds + 1):
            for tree in trees:
                environment = os.environ | {"PYTHONPATH": tree, "PYTHONPYCACHEPREFIX": bytecode}
                environment.pop("PYTHONDONTWRITEBYTECODE", None)
                seconds = {
                    "import": run("import streamtok", environment) - run("pass", environment),
                    "serve": serve(environment),
                    "test": run(TEST, environment),
                }
                for kind, took_s in seconds.items() if number else ():  # the first compiles
                    found[tree].setdefault(kind, []).append(took_s)
    return {tree: {kind: median(s) for kind, s in kinds.items()} for tree, kinds in found.items()}


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    trees = [str(Path(tree).resolve()) for tree in sys.argv[2:]]
    found = measure(rounds, trees or [str(Path(__file__).parents[2])])
    first = next(iter(found.values()))
    for tree, kinds in found.items():
        for kind, took_s in kinds.items():
            print(f"{took_s:7.3f} s, {took_s / first[kind]:.2f} of the first: {kind} in {tree}")


if __name__ == "__main__":
    main()
