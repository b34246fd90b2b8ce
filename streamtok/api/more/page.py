"""`GET /`: a page for people, and the policy that keeps everything else out of it.

The page is written in files, a module of JavaScript for each part, and served as one: so it needs
nothing but itself, and its policy can name its script and its style by their hashes. To put it
together, each module's imports and the word `export` are left out: all of them share one scope.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from streamtok.api.route import Operation, Route
from streamtok.api.services import Call, Services
from streamtok.http.response import Response

# Each imports only from those before it.
MODULES = (
    *("dom", "events", "recording", "server", "wire", "lanes", "pace", "tokens", "connection"),
    *("turns", "context", "store", "answer", "chat", "code", "faults", "main"),
)
IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=const|let|class|function|async)", re.MULTILINE)


def read(name: str) -> str:
    """Return the text of a file of the page."""
    return (Path(__file__).parents[1] / "static" / name).read_text("utf-8")


def _joined(module: str) -> str:
    text = EXPORT.sub("", IMPORT.sub("", read(f"{module}.js")))
    return f"// {module}.js\n\n{text.strip()}\n"


def _hash(text: str) -> str:
    """Return the hash of what an element holds, as a source in a policy (CSP Level 3)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def script() -> str:
    """Return the page's script."""
    return "\n" + "\n\n".join(map(_joined, MODULES))


@cache
def _answer() -> Response:
    """Return the page: put together for the first who asks, since few servers are."""
    style = "\n" + read("page.css")
    text = read("index.html").replace("\n/* page.css */\n", style)
    policy = (
        # The page's own script and style, this server, and nothing else from anywhere
        f"default-src 'none'; script-src {_hash(script())}; style-src {_hash(style)}; "
        "img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    headers = (
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    )
    return Response(200, headers, text.replace("\n/* page.js */\n", script()).encode())


async def page(_: Services, __: Call) -> Response:
    """`GET /`: a page for people."""
    return _answer()


# A browser cannot send a key with an address that is typed in, and the page holds no secret: what
# it asks this server for afterwards needs one.
ROUTES = (Route("GET", "/", page, Operation(media_type="text/html"), open=True),)
