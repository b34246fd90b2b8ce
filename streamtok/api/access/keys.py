"""API keys, of which the server knows no more than their hashes.

A key file has one key a line, `name:sha256-hex`; blank lines and lines that begin with `#` are
skipped. `streamtok key NAME` makes a key and its line. A fast hash is enough since keys are made of
256 random bits: there is no list of likely ones to try. Names go into the ledger, the metrics and
the limits; keys go nowhere. Does not decide what needs a key: see `streamtok.api.routing`.
"""

import hmac
import logging
import re
import secrets
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from streamtok.errors import ConfigError, Unauthorized

log = logging.getLogger(__name__)

NAME = r"[A-Za-z0-9._-]{1,64}"
LINE = re.compile(f"({NAME}):([0-9A-Fa-f]{{64}})")


class KeyFile:
    """The keys in the file `path`; `admins` are names of some, with commas between them.

    Raises:
        ConfigError: the file cannot be read, a line of it is wrong, or it has no such name.
    """

    def __init__(self, path: Path, admins: str = "") -> None:
        self._path = path
        self._admins = frozenset(name.strip() for name in admins.split(",") if name.strip())
        self._keys = self._read()

    def reload(self) -> None:
        """Read the file again; if it cannot be read, the keys stay as they were."""
        try:
            self._keys = self._read()
        except ConfigError as error:
            log.error("the API keys stay as they were: %s", error)
        else:
            log.info("%d API keys were read from %s", len(self._keys), self._path)

    def is_admin(self, name: str) -> bool:
        """Whether the key of this name may see what all keys have used."""
        return name in self._admins

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> str:
        """Return the name of the key in an `Authorization` header (RFC 6750 section 2.1).

        Without one, `api_key` is what stands in `X-Api-Key`.

        Raises:
            Unauthorized: there is none, or it is not in the file.
        """
        if authorization is None and api_key:
            authorization = f"Bearer {api_key}"
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("an API key is needed; send it as `Authorization: Bearer KEY`")
        digest = _digest(key.strip())
        # All entries are compared, so that the time taken tells nothing about them.
        names = [name for entry, name in self._keys.items() if hmac.compare_digest(entry, digest)]
        if not names:
            raise Unauthorized("the API key is not one of this server's", error="invalid_token")
        return names[0]

    def _read(self) -> dict[bytes, str]:
        keys = dict(_read(self._path))
        if unknown := sorted(self._admins.difference(keys.values())):
            raise ConfigError(f"--admin-keys: no key in {self._path} has the name {unknown[0]!r}")
        return keys


def new_key(name: str) -> tuple[str, str]:
    """Return a new key and its line for the key file.

    Raises:
        ConfigError: `name` cannot be the name of a key.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"key {name!r}: expected 1 to 64 letters, digits, dots, _ or -")
    key = "sk-" + secrets.token_urlsafe(32)
    return key, f"{name}:{_digest(key).hex()}"


def _digest(key: str) -> bytes:
    return sha256(key.encode("latin-1", "replace")).digest()  # header values are Latin-1


def _read(path: Path) -> Iterator[tuple[bytes, str]]:
    """Yield hash and name of each key. Messages do not repeat a line, which may hold a key."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-keys {path}: cannot be read: {error}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if not (match := LINE.fullmatch(line)):
            raise ConfigError(f"--api-keys {path}, line {number}: expected name:sha256-hex")
        name, digest = match[1], match[2].lower()
        for value in (name, digest):
            if value in seen:
                raise ConfigError(
                    f"--api-keys {path}, line {number}: the name or the key of line {seen[value]}"
                )
            seen[value] = number
        yield bytes.fromhex(digest), name
