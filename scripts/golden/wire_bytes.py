"""Write tests/golden/hello.http anew: needed when the shipped model or the wire has changed.

The answer is refused if a token was chosen by a hair, since another machine's arithmetic, which
differs in the last bits, might choose another.
"""

import json
from pathlib import Path

from streamtok.testing.fixture import Models, fresh_server

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "hello.http"
BODY = {
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
    "max_tokens": 5,
    "temperature": 0,
}
LEAST_MARGIN = 0.01  # between the log-probabilities of the two likeliest tokens


def margin() -> float:
    """Return by how much the likeliest token led, where it led least."""
    body = BODY | {"stream": False, "logprobs": True, "top_logprobs": 2}
    with fresh_server([], Models()) as server:
        answer = json.loads(server.raw(body).partition(b"\r\n\r\n")[2])
    tops = [token["top_logprobs"] for token in answer["choices"][0]["logprobs"]["content"]]
    return min(first["logprob"] - second["logprob"] for first, second in tops)


if __name__ == "__main__":
    if margin() < LEAST_MARGIN:
        raise SystemExit(f"a token led by {margin():.4f} only: choose another prompt")
    with fresh_server([], Models()) as server:
        GOLDEN.write_bytes(server.raw(BODY))
