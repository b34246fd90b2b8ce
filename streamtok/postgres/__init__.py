"""A ledger in PostgreSQL, which several servers share: `--ledger postgresql://...`.

Needs the extra `postgres`; without such a URL nothing of it is imported. `streamtok.app` opens the
ledger with `open_ledger`, and `streamtok.postgres.database` says what happens when the connection
is lost.
"""

from streamtok.errors import ConfigError
from streamtok.ledger import Ledger

SCHEMES = ("postgresql://", "postgres://")


def open_ledger(place: str, days: int) -> Ledger:
    """Open the ledger in the database of the URL `place`; see `Ledger`.

    Raises:
        ConfigError: it cannot be opened, is no ledger, or the extra is not installed.
    """
    scheme, _, _ = place.partition("://")
    if f"{scheme}://" not in SCHEMES:
        expected = "expected a file or a URL that begins with postgresql://"
        raise ConfigError(f"--ledger: {expected}, found one with {scheme}://")
    try:
        from streamtok.postgres.database import Postgres
    except ImportError as error:
        message = f"--ledger: PostgreSQL needs pip install 'streamtok[postgres]' ({error})"
        raise ConfigError(message) from error
    return Ledger(Postgres(place), days)
