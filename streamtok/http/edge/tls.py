"""The server's certificate: loaded, checked, and loaded again when it was renewed.

A connection over TLS has no halves: a client that ends its own ends the connection, and with it
what is being generated for it.
"""

import logging
import ssl
from pathlib import Path
from typing import NoReturn

from streamtok.errors import ConfigError

log = logging.getLogger(__name__)

# Of TLS 1.2: authenticated encryption with a key that is forgotten afterwards. Python's own list
# has CBC too, which has been made a padding oracle again and again (RFC 9325 section 4.2).
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Certificate:
    """The TLS settings for new connections, from a chain and its key in PEM files.

    `keyfile` may be empty where `certfile` holds the key too.

    Raises:
        ConfigError: a file cannot be used; names its flag.
    """

    def __init__(self, certfile: str, keyfile: str) -> None:
        self._files = (certfile, keyfile or certfile)
        self._context = _make_context(*self._files)

    def context(self) -> ssl.SSLContext:
        """Return the settings for the next connection."""
        return self._context

    def reload(self) -> None:
        """Read the files again; new connections get what is there now.

        The context is a new one. To load into the old one would leave it without a key where the
        files do not match, and with two certificates where the kind of key has changed.
        """
        try:
            self._context = _make_context(*self._files)
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error)
        else:
            log.info("read the certificate again: %s", self._files[0])


def load_certificate(certfile: str, keyfile: str) -> Certificate | None:
    """Return the certificate that the settings name, if they name one. Raises ConfigError."""
    if keyfile and not certfile:
        raise ConfigError("--keyfile needs --certfile")
    return Certificate(certfile, keyfile) if certfile else None


def _make_context(certfile: str, keyfile: str) -> ssl.SSLContext:
    """Return settings that modern clients agree with: TLS 1.3, or 1.2 with its best ciphers.

    Raises:
        ConfigError: a file cannot be read, holds no certificate or key, or they do not match.
    """
    _check_file("--certfile", certfile, "CERTIFICATE-----")
    _check_file("--keyfile", keyfile, "PRIVATE KEY-----")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, _refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"--keyfile {keyfile}: not the key of --certfile {certfile}"
        else:
            text = f"--certfile {certfile} --keyfile {keyfile}: {error.reason or error}"
        raise ConfigError(text) from error
    return context


def _check_file(flag: str, path: str, label: str) -> None:
    """Check that `path` can be read and has a PEM block of this kind."""
    try:
        text = Path(path).read_text("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error
    if label not in text:
        raise ConfigError(f"{flag} {path}: expected PEM text with -----BEGIN ... {label}")


def _refuse_password() -> NoReturn:
    """Refuse an encrypted key: OpenSSL would ask for its password at the terminal."""
    raise ConfigError("--keyfile: the key is encrypted; expected one without a password")
