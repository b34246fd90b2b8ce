"""What replicas on Ray give and cost: tokens a second, and the share of prompts that is cached.

usage: replicas.py [--rounds 4] [--tokens 40] [KIND ...]

Servers with an engine in a process and with one and two replicas run side by side, and 32 streams
go to one after the other, in both orders in turn: what else the machine does meets all of them.
Engines have one thread each, and two where it says so. A ratio is the median over the rounds. Then
eight chats of four turns go to each server, which show whether a chat's next turn finds the last
one where it is sent, and whether replicas have equally much to do.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from urllib.request import urlopen

from cluster import cluster_of
from servers import Server, serving
from streams import SSE
from survive import read

STREAMS, CHATS, TURNS = 32, 8, 4
RAY = ("--engine", "ray", "--replicas")
ONE, TWO = {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}
KINDS: Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    "a process": (ONE, ()),
    "1 replica": (ONE, (*RAY, "1", "--ray-cpus", "1")),
    # with a setting of its own, or the other server's replica would be one of its two
    "2 replicas": (ONE, (*RAY, "2", "--ray-cpus", "1", "--max-queue", "130")),
    "a process, 2 threads": (TWO, ()),
    "1 replica, 2 threads": (TWO, (*RAY, "1", "--ray-cpus", "2")),
}
PAIRS = (
    ("1 replica", "a process"),
    ("2 replicas", "a process"),
    ("1 replica, 2 threads", "a process, 2 threads"),
)


def ignore(_: int) -> None:
    """Do nothing when bytes arrive."""


async def speed(url: str, tokens: int) -> float:
    """Return how many tokens a second the streams get together."""
    body = {"max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0}
    found = [("/v1/completions", SSE, body | {"prompt": f"Story {n}:"}) for n in range(STREAMS)]
    start_s = time.perf_counter()
    await asyncio.gather(*(read(url, stream, ignore) for stream in found))
    return STREAMS * tokens / (time.perf_counter() - start_s)


async def cached(url: str, name: str) -> float:
    """Return which share of the prompts of chats with several turns was cached."""

    async def chat(number: int) -> tuple[int, int]:
        said = [{"role": "user", "content": f"For {name}, chat {number}. Tell me a story."}]
        prompts = cached = 0
        for turn in range(TURNS):
            body = {"messages": said, "max_tokens": 30, "seed": number, "ignore_eos": True}
            _, data = await read(
                url, ("/v1/chat/completions", "application/json", body), lambda _: None
            )
            answer = json.loads(data)
            prompts += answer["usage"]["prompt_tokens"]
            cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            said += [answer["choices"][0]["message"], {"role": "user", "content": f"More {turn}?"}]
        return prompts, cached

    counts = await asyncio.gather(*map(chat, range(CHATS)))
    return sum(c for _, c in counts) / sum(p for p, _ in counts)


def sampled(server: Server) -> list[int]:
    """Return how many tokens each replica has sampled for a server."""
    with urlopen(f"http://127.0.0.1:{server.port}/health") as answer:
        replicas = json.load(answer).get("replicas") or []
    return [replica["tokens"] for replica in replicas]


def main(kinds: list[str], rounds: int, tokens: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with cluster_of(2, num_cpus=4) as cluster, ExitStack() as stack:
        servers = {}
        for name in kinds:
            environment, arguments = KINDS[name]
            os.environ.update(environment)
            where = ("--ray-address", cluster.address) if arguments else ()
            run = serving("--ledger", ":memory:", "--max-streams", "32", *arguments, *where)
            servers[name] = stack.enter_context(run)
        urls = {name: f"http://127.0.0.1:{server.port}" for name, server in servers.items()}
        for url in urls.values():
            asyncio.run(speed(url, tokens))
        for number in range(rounds):
            for name in kinds[:: -1 if number % 2 else 1]:
                rates[name].append(asyncio.run(speed(urls[name], tokens)))
        shares = {name: asyncio.run(cached(url, name)) for name, url in urls.items()}
        loads = {name: sampled(server) for name, server in servers.items()}
    for name, found in rates.items():
        print(f"{name:>21}: {median(found):6.0f} tokens/s, {shares[name]:.0%} of prompts cached")
    for one, other in PAIRS:
        if one not in rates or other not in rates:
            continue
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{one} / {other}: {median(ratios):.2f} ({spread})")
    print(f"tokens of each replica: {loads}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    given = parser.parse_args()
    main(given.kinds or list(KINDS), given.rounds, given.tokens)
