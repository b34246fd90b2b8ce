"""Secrets in the bytes of requests, made unreadable: as many bytes as before, each an asterisk.

Looks at lines and not at messages, so that nothing malformed gets past it. A line within a body
that looks like such a header is masked too.
"""

import re

LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
SECRET = re.compile(
    rb"(?i)(?:proxy-)?(?:authorization|cookie|api-key|x-api-key)[ \t]*:[ \t]*"
    rb"(?:(?:bearer|basic)[ \t]+)?"
)
MOST_BYTES = 1024  # of a line that its name is looked for in
NOT_LINE_END = re.compile(rb"[^\r\n]")


class Mask:
    """Masks one direction of a connection, however its bytes are cut."""

    def __init__(self) -> None:
        self._start = b""  # of the present line
        self._secret = False  # whether the rest of it is
        self._folded = False  # whether a line that continues the one before is

    def feed(self, data: bytes) -> bytes:
        """Return `data` without its secrets."""
        return b"".join(self._line(part) for part in LINE.findall(data))

    def _line(self, part: bytes) -> bytes:
        before = self._start
        if not before:
            if part == b"\n":
                return part  # the second half of a line end
            self._secret = self._folded and part[:1] in (b" ", b"\t")
        line = (before + part)[:MOST_BYTES]
        shown = 0
        if not self._secret:
            match = SECRET.match(line)
            self._secret = match is not None
            shown = max(0, match.end() - len(before)) if match else len(part)
        masked = part[:shown] + NOT_LINE_END.sub(b"*", part[shown:])
        if part[-1:] in (b"\r", b"\n"):
            self._start, self._folded = b"", self._secret
        else:
            self._start = line
        return masked
