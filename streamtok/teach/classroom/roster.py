"""Who is in the room, by which key, and how far they are. It lasts as long as the class."""

import re
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from streamtok.api.access.keys import NAME, new_key

TEACHER = "teacher"


class Rejected(Exception):
    """A name cannot be had; says why."""


class Learner(Struct):
    """One of them: where they are, what they answered, what they finished.

    `answers` has by question whether it was right, and `shown` what is said about it; `tried` has
    by lesson what the last change of it showed, as HTML.
    """

    name: str
    place: str = "came in"
    requests: int = 0
    answers: dict[str, bool] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    tried: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


class Roster:
    """The learners by their API keys, which are written to the server's key file.

    `reload` has the server read that file again; `teacher` is the teacher's own key.
    """

    def __init__(self, keys: Path, teacher: str, reload: Callable[[], None]) -> None:
        self._keys = keys
        self._reload = reload
        self.learners: dict[str, Learner] = {teacher: Learner(TEACHER)}

    def join(self, name: str) -> str:
        """Return a new key for `name`.

        Raises:
            Rejected: the name cannot be one, or is taken.
        """
        name = name.strip()
        if not re.fullmatch(NAME, name):
            raise Rejected("a name has 1 to 64 letters from a to z, digits, dots, _ or -")
        if any(learner.name == name for learner in self.learners.values()):
            raise Rejected(f"somebody is called {name} already: add a letter or a digit")
        key, line = new_key(name)
        with self._keys.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self.learners[key] = Learner(name)
        self._reload()
        return key

    def is_teacher(self, learner: Learner) -> bool:
        """Whether this is the teacher."""
        return learner.name == TEACHER
