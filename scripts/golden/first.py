"""Check what `streamtok.first` has recorded of the shipped model, and print what it should be.

Needed when the shipped model has changed: `TOKENS` and `FINGERPRINT` are then to be replaced by
what this prints. Fails if a token was chosen by a hair, since another machine's arithmetic, which
differs in the last bits, might choose another.
"""

import json

from streamtok.first import FINGERPRINT, REQUEST, TOKENS
from streamtok.testing.fixture import Models, fresh_server

LEAST_MARGIN = 0.01  # between the log-probabilities of the two likeliest tokens

if __name__ == "__main__":
    body = json.loads(REQUEST) | {"stream": False, "logprobs": 2}
    with fresh_server([], Models()) as server:
        answer = json.loads(server.raw(body, "/v1/completions").partition(b"\r\n\r\n")[2])
    logprobs, fingerprint = answer["choices"][0]["logprobs"], answer["system_fingerprint"]
    tokens = tuple(logprobs["tokens"])
    tops = [sorted(top.values()) for top in logprobs["top_logprobs"]]
    if min(top[-1] - top[-2] for top in tops) < LEAST_MARGIN:
        raise SystemExit("a token led by a hair only: choose another prompt for REQUEST")
    print(f"TOKENS = {json.dumps(tokens)}\nFINGERPRINT = {json.dumps(fingerprint)}")
    if (tokens, fingerprint) != (TOKENS, FINGERPRINT):
        raise SystemExit("streamtok/first/__init__.py holds other values: replace them")
