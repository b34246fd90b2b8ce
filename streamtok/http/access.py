"""The access log: one line per response, without the query string.

A query can hold a prompt, so it is left out; a trace shows it (`streamtok.observe`).

Read next: `streamtok.http.tracer`.
"""

import json
import logging
import re

from streamtok.http.response import Response

access = logging.getLogger("streamtok.access")

QUERY = re.compile(r"\?.*", re.DOTALL)


def log(peer: str, asked: str, response: Response | None, outcome: str, duration_s: float) -> None:
    """Write the line of one turn, in which `asked` was the method and the target."""
    status = str(response.status) if response else "-"
    parts = [peer, json.dumps(QUERY.sub("", asked)), status, f"{1000 * duration_s:.0f} ms"]
    if outcome != "complete":
        parts.append(outcome)
    if response and (summary := response.summary()):
        parts.append(summary)
    access.info(" ".join(parts))
