"""Who a story is about, and how the story speaks of them.

What it does: gives every character one way to be introduced, one to be referred to, and one set of
pronouns, singular or plural, which never change within a story. What it does not do: choose the
characters (read `world.py` next).
"""

import random
from dataclasses import dataclass

from .subjects import with_article

PRONOUNS = {
    "he": ("he", "him", "his", "himself"),
    "she": ("she", "her", "her", "herself"),
    "it": ("it", "it", "its", "itself"),
    "they": ("they", "them", "their", "themselves"),
}
SPEECH = ("I", "me", "my", "am", "was", "myself")
PLURAL_SPEECH = ("we", "us", "our", "are", "were", "ourselves")
LINKS = (" named ", " called ", " named ", " whose name was ")


@dataclass(frozen=True)
class Character:
    """A character: kind ("fox", or a plural), name (or nothing), trait and pronouns.

    `clause` follows "who", `number` stands before a plural kind, and a `unique` kind, such as the
    moon, always takes "the".
    """

    kind: str
    name: str
    trait: str
    gender: str
    clause: str = ""
    number: str = ""
    unique: bool = False

    @property
    def is_plural(self) -> bool:
        """Whether it is several."""
        return self.gender == "they"

    @property
    def reference(self) -> str:
        """How the story speaks of the character once introduced."""
        return self.name or f"the {self.kind}"

    @property
    def address(self) -> str:
        """How others call the character in speech."""
        return self.name or f"dear {self.kind}"

    @property
    def definite(self) -> str:
        """The whole subject when all know it: "Fern the fox", "the king who could not sleep"."""
        if self.name:
            return f"{self.name} the {self.kind}"
        number = "" if self.number == "some" else f"{self.number} "
        text = f"the {number}{self.kind}".replace("  ", " ")
        return f"{text} who {self.clause}" if self.clause else text

    def introduction(self, rng: random.Random, with_trait: bool) -> str:
        """ "a shy fox named Fern", "three little mice", "a king who could not sleep"."""
        if self.unique:
            return f"the {self.kind}"
        trait = f"{self.trait} " if with_trait and self.trait else ""
        if self.is_plural:
            text = f"{self.number or 'some'} {trait}{self.kind}"
        else:
            text = with_article(trait + self.kind)
        if self.name:
            text += rng.choice(LINKS) + self.name
        return f"{text} who {self.clause}" if self.clause else text

    def pronoun(self, model: str) -> str:
        """The pronoun that stands where "he", "him", "his" or "himself" would."""
        return PRONOUNS[self.gender][PRONOUNS["he"].index(model)]

    def speech(self, word: str) -> str:
        """A word of the character's own speech: "I" or "we", "was" or "were", and so on."""
        return PLURAL_SPEECH[SPEECH.index(word)] if self.is_plural else word
