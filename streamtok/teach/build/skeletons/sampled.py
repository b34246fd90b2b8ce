"""Exercise 4: sampling, and stop strings. `streamtok learn build 4` grades this file."""

from collections.abc import Iterator

from streamtok.teach.build.model_kit import serve_model


def choose(scores: list[float], temperature: float, top_p: float, uniform: float) -> int:
    """Return the index of the score that is drawn; `uniform`, from 0 to 1, decides."""
    # YOUR CODE
    raise NotImplementedError


def released(tokens: Iterator[str], stop: str) -> Iterator[str]:
    """Yield the text of `tokens` up to the string `stop`, each part as early as possible."""
    # YOUR CODE
    raise NotImplementedError
    yield ""


if __name__ == "__main__":
    serve_model(choose, released)
