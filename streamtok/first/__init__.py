"""The ladder: six small servers, each one idea further than the one before.

    chunks    a response head, then one HTTP chunk per token, written by hand
    events    the same tokens as server-sent events with JSON in them
    framing   the same bytes through h11: keep-alive, pipelining, errors
    tokens    a real model in a loop: score, sample, append, decode
    queue     an engine thread, and an `asyncio.Queue` per request
    leaving   a client that disconnects, and one that stops reading

Each file runs by itself (`python -m streamtok.first.chunks`) and answers the request below with the
same bytes as `python -m streamtok serve` does, apart from the date and the ids. Each ends its
docstring with what it does not do, and names the module that does. Start with
`streamtok.first.chunks`.
"""

from pathlib import Path

from streamtok.config import default_model

FOLDER = Path(default_model())  # of the model that comes with the package
REQUEST = '{"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, "stream": true}'

# What the shipped model answers, for the files that run no model. scripts/golden/first.py checks
# both after the model has changed, and prints the new values.
TOKENS = (",", " there", " was", " a", " little", " girl", " named", " Lily")
FINGERPRINT = "fp_2595c6bf676a4fbf"
