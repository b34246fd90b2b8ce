"""Ids of requests and answers: random ones, or sequential ones that repeat in every run.

Read next: `streamtok.api.validation`.
"""

import secrets
from collections import Counter
from collections.abc import Callable

NewId = Callable[[str], str]  # from what is to stand first, such as "chatcmpl-"


def new_ids(kind: str) -> NewId:
    """Return what makes ids, "random" or "sequential"."""
    return SequentialIds() if kind == "sequential" else random_id


def random_id(prefix: str) -> str:
    """Return an id that no other process has made."""
    return prefix + secrets.token_hex(12)


class SequentialIds:
    """Counts from 1, for each prefix by itself, in as many digits as random ids have."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()

    def __call__(self, prefix: str) -> str:
        """Return the next id."""
        self._made[prefix] += 1
        return f"{prefix}{self._made[prefix]:024d}"
