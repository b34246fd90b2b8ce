"""`GET /`: a page for people, and the policy that keeps everything else out of it.

The page is written in files, a module of JavaScript for each part, and served as one: so it needs
nothing but itself, and its policy can name its script and its style by their hashes. To put it
together, each module's imports and the word `export` are left out: all of them share one scope.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

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
    return files("streamtok.api").joinpath(f"static/{name}").read_text("utf-8")


def _joined(module: str) -> str:
    text = EXPORT.sub("", IMPORT.sub("", read(f"{module}.js")))
    return f"// {module}.js\n\n{text.strip()}\n"


def _hash(text: str) -> str:
    """Return the hash of what an element holds, as a source in a policy (CSP Level 3)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


STYLE = "\n" + read("page.css")
SCRIPT = "\n" + "\n\n".join(map(_joined, MODULES))
PAGE = (
    read("index.html")
    .replace("\n/* page.css */\n", STYLE)
    .replace("\n/* page.js */\n", SCRIPT)
    .encode()
)
# The page's own script and style, this server, and nothing else from anywhere
HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        (
            f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; "
            "img-src data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


async def page(_: Services, __: Call) -> Response:
    """`GET /`: a page for people."""
    return Response(200, HEADERS, PAGE)


# A browser cannot send a key with an address that is typed in, and the page holds no secret: what
# it asks this server for afterwards needs one.
ROUTES = (Route("GET", "/", page, Operation(media_type="text/html"), open=True),)
