"""Each benchmark in short, within three minutes: what to run before and after a change.

usage: short.py

The figures are rough. Each script by itself measures longer; `loop.py` and `start.py` compare
several checkouts. What is not installed is not compared, and said to be so.
"""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RUNS = (
    ("start: seconds", "start.py", "2"),
    ("memory: resident bytes, 15M", "memory.py", "15M"),
    ("chunks a second", "chunks.py", "2"),
    ("event loop: microseconds a token", "loop.py", "--short"),
    ("first token over HTTP, 15M", "first_token.py", "--rounds", "2"),
    (
        "engine, 15M",
        *("bench.py", "--model", "15M", "--part", "engine", "--rounds", "1", "--tokens", "16"),
    ),
)


def main() -> None:
    """Run everything in turn; the exit status tells whether something failed."""
    begun_s, failed = time.perf_counter(), []
    for title, script, *arguments in RUNS:
        print(f"\n{title} ({script} {' '.join(arguments)})", flush=True)
        run = subprocess.run([sys.executable, HERE / script, *arguments], stderr=subprocess.PIPE)
        if run.returncode:
            print(run.stderr.decode(errors="replace").strip()[-500:])
        if run.returncode and b"are needed" not in run.stderr:
            failed.append(script)
    print(f"\n{time.perf_counter() - begun_s:.0f} s in all")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
