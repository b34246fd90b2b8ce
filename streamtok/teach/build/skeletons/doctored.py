"""Exercise 6: make the doctor happy. `streamtok learn build 6` grades this file."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from streamtok.teach.build.openai_kit import PROMPT_TOKENS, serve_openai

FIELDS = {"Content-Type": "text/plain"}


def events(asked: Mapping[str, Any], texts: Iterator[str]) -> Iterator[str]:
    """Yield the data of each event in the answer to `asked`; `texts` is what the model says."""
    for text in texts:
        chunk = {
            "id": f"chatcmpl-{random.getrandbits(64):x}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "fox",
            "choices": [{"index": 0, "delta": {"content": text}}],
        }
        yield json.dumps(chunk)


def refusal(status: int, message: str) -> tuple[int, Mapping[str, Any]]:
    """Return status and JSON for a request that `status` and `message` are the answer to."""
    return 200, {"error": f"{message} ({status}; a prompt has {PROMPT_TOKENS} tokens)"}


if __name__ == "__main__":
    serve_openai(FIELDS, events, refusal)
