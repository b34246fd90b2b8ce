"""Which lessons are done, in a file of their names, so that `learn` goes on where it was left."""

from pathlib import Path

from streamtok.errors import ConfigError


class Progress:
    """The lessons in the file `path`; it need not exist.

    Raises:
        ConfigError: the file is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.done = path.read_text("utf-8").split() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--progress {path}: cannot be read: {error}") from error

    def add(self, name: str) -> None:
        """Note that a lesson is done.

        Raises:
            ConfigError: the file cannot be written.
        """
        if name in self.done:
            return
        self.done.append(name)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("".join(f"{done}\n" for done in self.done), "utf-8")
        except OSError as error:
            raise ConfigError(f"--progress {self._path}: cannot be written: {error}") from error
