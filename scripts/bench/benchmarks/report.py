"""What was measured, as tables and as a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: dict[str, Any]) -> None:
    """Print all that was measured."""
    console = Console()
    console.print(f"{results['date']}, {results['machine']}", highlight=False)
    for name, found in results["models"].items():
        for part, rows in (("engine", engine_rows), ("server", server_rows)):
            if part in found:
                console.print(_table(f"{name}, {part}", rows(found[part])))
    for note in results["notes"]:
        console.print(note, highlight=False)


def _table(title: str, rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(title=title)
    for number, name in enumerate(next(rows)):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def engine_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of an engine, its head first."""
    memory, peers = found["memory"], found["peers"]
    yield "", "tokens/s", "", *(f"ahead of {name}" for name in peers)
    others = [""] * len(peers)
    count = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    yield f"memory read by {count}", "", f"{memory['bandwidth'] / 1e9:.1f} GB/s", *others
    flops = f"{found['products']['flops'] / 1e9:.0f} GFLOP/s"
    yield f"matrix products, {count}", "", flops, *others
    limit = f"{memory['tokens_per_s']:.0f}"
    yield "weights read once a token", limit, "the limit at batch 1", *others
    for streams, seen in found["decode"].items():
        if streams == "1":
            beside = f"{seen['of_memory']:.2f} of the limit"
        else:
            beside = f"{seen['of_one']:.2f} times batch 1"
        ahead = (f"{peer[streams]['ahead']:.2f}" for peer in peers.values())
        yield f"batch {streams}", f"{seen['tokens_per_s']:.0f}", beside, *ahead
    for length, seen in found["prefill"].items():
        beside = f"{seen['share_of_products']:.2f} of the products"
        ahead = (f"{peer[length]['ahead']:.2f}" for peer in found["peers_prefill"].values())
        yield f"prefill {length}", f"{seen['tokens_per_s']:.0f}", beside, *ahead


def server_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of a server, its head first; times in ms."""
    firsts = ("first p50 ms", "first p99 ms")
    yield "streams", "tokens/s", "of engine", *firsts, "gap p50 ms", "gap p99 ms", "p99 / p50"
    for streams, seen in found["streams"].items():
        names = ("first_p50_s", "first_p99_s", "gap_p50_s", "gap_p99_s")
        times = [f"{seen[name] * 1e3:.1f}" for name in names]
        rate, share = f"{seen['tokens_per_s']:.0f}", f"{seen['engine_share']:.2f}"
        yield streams, rate, share, *times, f"{seen['gap_p99_s'] / seen['gap_p50_s']:.2f}"


def notes(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield what does not fit into the table of a server."""
    late, prefix = found["long_prompt"], found["prefix"]
    yield (
        f"{name}: a prompt of 900 tokens among 8 streams: their longest gap is "
        f"{late['longest_s'] * 1e3:.1f} ms, {late['longest_in_full_steps']:.2f} steps with a part "
        f"of the prompt, {late['longest_in_usual_steps']:.2f} without"
    )
    yield (
        f"{name}: a prefix of 500 tokens: first token after {prefix['first_s'] * 1e3:.1f} ms, the "
        f"second time after {prefix['second_s'] * 1e3:.1f} ms, {prefix['ratio']:.3f} of it"
    )


def draw(results: dict[str, Any], file: Path) -> None:
    """Write a picture: tokens a second by batch, and gaps by streams."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    speed, gaps = figure.subplots(1, 2)
    for number, (name, found) in enumerate(results["models"].items()):
        colour = f"C{number}"
        if engine := found.get("engine"):
            batches = [int(streams) for streams in engine["decode"]]
            rates = [seen["tokens_per_s"] for seen in engine["decode"].values()]
            speed.plot(batches, rates, "o-", color=colour, label=f"{name}, engine")
            limit = engine["memory"]["tokens_per_s"]
            speed.axhline(limit, color=colour, ls=":", label=f"{name}, weights read once a token")
            for (peer, theirs), mark in zip(engine["peers"].items(), "x+", strict=False):
                rates = [one["tokens_per_s"] for one in theirs.values()]
                style = {"color": colour, "marker": mark, "ls": ":", "lw": 1}
                speed.plot(batches, rates, label=f"{name}, {peer}", **style)
        if server := found.get("server"):
            streams = [int(count) for count in server["streams"]]
            seen = list(server["streams"].values())
            rates = [one["tokens_per_s"] for one in seen]
            speed.plot(streams, rates, "s--", color=colour, label=f"{name}, over HTTP")
            for part, style in (("p50", "o-"), ("p99", "^--")):
                times = [one[f"gap_{part}_s"] * 1e3 for one in seen]
                gaps.plot(streams, times, style, color=colour, label=f"{name}, {part}")
    for axes, title in ((speed, "tokens a second"), (gaps, "ms between a stream's tokens")):
        axes.set(xscale="log", yscale="log", xlabel="streams", title=title)
        axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        if labels := axes.get_legend_handles_labels()[1]:
            bottom, top = axes.get_ylim()
            axes.set_ylim(bottom / (8 if len(labels) > 4 else 1), top)  # room for a long legend
            axes.legend(fontsize=7, ncols=1 if len(labels) <= 4 else 2)
    figure.suptitle(f"{results['date']}, {results['machine']}", fontsize=8)
    figure.savefig(file, dpi=100)
