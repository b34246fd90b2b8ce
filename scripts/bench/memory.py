"""Resident bytes with a model loaded and a text generated, beside others with the same weights.

usage: memory.py [SIZE]

Each loads the model of random weights in a process of its own, as float32, and decodes 8 streams of
16 tokens; then its resident bytes are read from /proc. llama.cpp and Hugging Face transformers are
measured where they are installed. The weights' own bytes are given for comparison. Linux only.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.engine import decode_rate
from benchmarks.llama import Llama
from benchmarks.models import SIZES, write_model
from benchmarks.peers import Transformers

from streamtok.model.load import load, read_config

STREAMS, TOKENS, THREADS = 8, 16, 2
OURS = "streamtok"
PEERS = {
    "Hugging Face transformers": (Transformers, ("torch", "transformers")),
    "llama.cpp, float32": (Llama, ("llama_cpp", "gguf")),
}


def resident() -> int:
    """Return the resident bytes of this process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def use(name: str, folder: Path) -> None:
    """Load the model, generate, and print what is resident; nothing where `name` is missing."""
    if name == OURS:
        decode_rate(load(folder, THREADS), STREAMS, TOKENS)
    else:
        make, modules = PEERS[name]
        if not all(map(find_spec, modules)):
            return
        make(folder, THREADS).decode(STREAMS, TOKENS)
    print(resident())


def measure(size: str) -> dict[str, int]:
    """Return the resident bytes by name, and those of the weights."""
    found = {}
    with TemporaryDirectory() as text:
        folder = Path(text) / "model"
        write_model(folder, SIZES[size])
        found["the weights alone"] = 4 * read_config(folder).parameters
        for name in (OURS, *PEERS):
            command = [sys.executable, __file__, "--use", name, str(folder)]
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if run.stdout.strip():
                found[name] = int(run.stdout.split()[-1])
    return found


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--use"]:
        use(sys.argv[2], Path(sys.argv[3]))
        return
    found = measure((sys.argv[1:] or ["15M"])[0])
    for name, size in found.items():
        print(f"{size / 2**20:8.0f} MiB, {size / found[OURS]:.2f} of streamtok's: {name}")


if __name__ == "__main__":
    main()
