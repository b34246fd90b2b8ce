"""Prints what a part of the mixture holds: documents, characters and duplicates of each source.

What it does: counts exact duplicates, and near-duplicates by shared runs of eight words, and how
many of the training stories pass the checks that the model's stories are judged by. What it does
not do: change anything. Run it as `python -m mixture CORPUS` from the folder `scripts/train`.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from story_checks import (
    SENTENCE_END,
    cast_is_kept,
    names_are_kept,
    pronouns_are_kept,
    without_title,
)

from . import Document, Mixture

RUN_WORDS = 8
NEAR = 0.5  # share of a document's runs that one other document also has
SAMPLE = 400


def runs(text: str) -> set[int]:
    """Hashes of all runs of eight words."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {
        hash(tuple(words[i : i + RUN_WORDS])) for i in range(max(1, len(words) - RUN_WORDS + 1))
    }


def answer_of(document: Document) -> str:
    """What is compared: the text, or the longest message of a chat."""
    return document.text or max((text for _, text in document.messages), key=len)


def count_exact(texts: Iterable[str]) -> int:
    """How many texts repeat an earlier one."""
    counts = Counter(texts)
    return counts.total() - len(counts)


def index_runs(texts: list[str]) -> dict[int, list[int]]:
    """For each run, the numbers of the texts that have it."""
    owners: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        for run in runs(text):
            owners[run].append(number)
    return owners


def is_near(text: str, own_number: int, owners: dict[int, list[int]]) -> bool:
    """Whether one other text of the index shares at least half of this text's runs."""
    own = runs(text)
    shared = Counter(other for run in own for other in owners.get(run, []))
    del shared[own_number]
    return max(shared.values(), default=0) >= NEAR * len(own)


def near_share(texts: list[str]) -> float:
    """The share of near-duplicates among the texts, measured on at most `SAMPLE` of them."""
    owners = index_runs(texts)
    step = max(1, len(texts) // SAMPLE)
    numbers = range(0, len(texts), step)
    return sum(is_near(texts[n], n, owners) for n in numbers) / len(numbers)


def print_sources(documents: list[Document]) -> None:
    """One line for each source, training and held-out apart."""
    groups: dict[tuple[str, bool], list[Document]] = defaultdict(list)
    for document in documents:
        groups[document.source, document.held_out].append(document)
    total = sum(len(d.content) for d in documents if not d.held_out)
    print(
        f"{'source':26}{'held out':>9}{'docs':>8}{'chars':>12}{'share':>8}{'exact':>8}{'near':>8}"
    )
    for (source, held_out), group in groups.items():
        chars = sum(len(d.content) for d in group)
        share = "" if held_out else f"{chars / total:8.1%}"
        answers = [answer_of(d) for d in group]
        distinct = list(dict.fromkeys(answers))
        near = near_share(distinct)
        print(
            f"{source:26}{'yes' if held_out else '':>9}{len(group):8}{chars:12}"
            f"{share:>8}{count_exact(d.content for d in group):8}{near:8.1%}"
        )
    print(f"characters of the part: {total}")


def print_leaks(documents: list[Document]) -> None:
    """Held-out texts that occur in training, exactly or nearly."""
    training = list(dict.fromkeys(answer_of(d) for d in documents if not d.held_out))
    held_out = list(dict.fromkeys(answer_of(d) for d in documents if d.held_out))
    exact = len(set(held_out) & set(training))
    owners = index_runs(training)
    near = sum(is_near(text, -1, owners) for text in held_out)
    print(f"held-out texts: {len(held_out)}, exactly in training: {exact}, nearly: {near}")


def print_checks(documents: list[Document]) -> None:
    """How many of the invented stories pass the checks of names, cast, pronouns and ends."""
    stories = [d.messages[-2:] for d in documents if d.source == "chat/invented"]
    pairs = [(request, without_title(story)) for (_, request), (_, story) in stories]
    passed = {
        "names": sum(names_are_kept(story, request) for request, story in pairs),
        "cast": sum(cast_is_kept(story, request) for request, story in pairs),
        "pronouns": sum(pronouns_are_kept(story) for _, story in pairs),
        "end": sum(SENTENCE_END.search(story) is not None for _, story in pairs),
    }
    shares = ", ".join(f"{name} {n / len(pairs):.1%}" for name, n in passed.items())
    print(f"invented stories: {len(pairs)}, of which pass: {shares}")


def main() -> None:
    """Draw a part of the mixture and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="stories, xz-compressed JSON lines")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    arguments = parser.parse_args()
    mixture = Mixture(arguments.corpus, arguments.seed)
    documents = [*mixture.part(arguments.part), *mixture.held_out]
    print_sources(documents)
    print_leaks(documents)
    print_checks(documents)


if __name__ == "__main__":
    main()
