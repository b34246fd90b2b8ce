"""`streamtok doctor --http`: whether a server's HTTP/1.1 can be led astray, whatever it serves.

Every case of `streamtok.teach.doctor.desync` is sent on a connection of its own to the one address
that was named: some sixty requests, each answered or given up within a few seconds. Then a few good
requests are cut in many ways, which must not change their answers. Several go on at a time, but the
first, which shows how long this server takes to answer; and where an answer is missing, the server
is asked once more, alone, before it is blamed.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from urllib.parse import urlsplit

from msgspec import Struct

from streamtok.observe.reader import MessageReader
from streamtok.teach.doctor.desync import CASES, Case, filled, split_requests
from streamtok.teach.doctor.examine import Report
from streamtok.teach.doctor.probe import Target, open_socket
from streamtok.teach.doctor.recording import show
from streamtok.teach.doctor.rules import Finding, Severity

AT_ONCE = 16  # connections
QUIET_S = 0.4  # silence after an answer that means that no other follows, or
QUIET_TIMES = 8  # so many times as long as a plain request takes, if that is longer
PATIENCE_S = 3.0  # how long to wait for a first answer
BETWEEN_S = 0.002  # between pieces, so that they arrive apart
CUTS = 12  # places at which a request is cut in two
BREAKS = "proxies in front: one client's bytes become another client's request or answer"


class Outcome(Struct, frozen=True):
    """The statuses of all answers on one connection, in order, and whether the server closed it.

    `first_s` is the time to the first byte of an answer, in seconds.
    """

    statuses: tuple[int, ...]
    closed: bool
    first_s: float = 0.0

    def __str__(self) -> str:
        said = ", ".join(map(str, self.statuses)) or "nothing"
        return f"{said}, then closed" if self.closed else said


async def examine_http(url: str, where: Target) -> Report:
    """Return what is found about the HTTP/1.1 of a server, at the path that `url` names.

    Raises:
        Unreachable: nobody listens there.
    """
    report = Report(url)
    path = urlsplit(url).path or "/"
    sent = {case: filled(case, where.authority, path) for case in CASES}
    plain = await converse(where, [sent[CASES[0]]], min(PATIENCE_S, where.timeout_s))
    server = _Server(where, plain)
    outcomes = await asyncio.gather(*(server.ask([sent[case]]) for case in CASES[1:]))
    for case, outcome in zip(CASES, [plain, *outcomes], strict=True):
        report.checked.append(case.name)
        if judge(case, outcome, plain) and not outcome.statuses:
            outcome = await server.ask([sent[case]])
        if severity := judge(case, outcome, plain):
            report.findings.append(_finding(case, severity, outcome, sent[case]))
    for name, data in split_requests(where.authority, path):
        report.checked.append(f"split: {name}")
        if difference := await server.compare(data):
            report.findings.append(_split_finding(name, *difference))
    return report


class _Server:
    """The server that is asked; `plain` is what it answered to a plain request, alone."""

    def __init__(self, where: Target, plain: Outcome) -> None:
        self._where = where
        self._quiet_s = max(QUIET_S, QUIET_TIMES * plain.first_s)
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def ask(self, pieces: Sequence[bytes]) -> Outcome:
        """Send a request in pieces; see `converse`."""
        async with self._limit:
            return await converse(self._where, pieces, self._quiet_s)

    async def compare(self, data: bytes) -> tuple[Sequence[bytes], Outcome, Outcome] | None:
        """Return the first cut that changes the answers to `data`, what they were, and are."""
        whole = await self.ask([data])
        cut = list(splits(data))
        for pieces, outcome in zip(cut, await asyncio.gather(*map(self.ask, cut)), strict=True):
            if len(outcome.statuses) < len(whole.statuses):
                outcome = await self.ask(pieces)
            if outcome.statuses != whole.statuses:
                return pieces, whole, outcome
        return None


def judge(case: Case, outcome: Outcome, plain: Outcome) -> Severity | None:
    """Return how bad an outcome is; None if it is right. `plain` is that of a plain request."""
    if case.expected == "served":
        if case.name == "plain":
            return None if len(outcome.statuses) == 1 else "error"
        return None if outcome.statuses == plain.statuses else "warning"
    if len(outcome.statuses) > 1:
        return "error"  # the hidden request was carried out, or the bytes were read as two
    accepted = case.expected == "refused" and any(s < 400 for s in outcome.statuses)
    return "warning" if accepted else None


def splits(data: bytes) -> Iterable[list[bytes]]:
    """Yield `data` byte by byte, and cut in two at places all over it."""
    yield [data[i : i + 1] for i in range(len(data))]
    for number in range(1, CUTS + 1):
        place = max(1, number * len(data) // (CUTS + 1))
        yield [data[:place], data[place:]]


async def converse(where: Target, pieces: Sequence[bytes], quiet_s: float) -> Outcome:
    """Send `pieces`, one by one, and return what is answered until the server falls silent.

    That is for `quiet_s` after an answer, and for PATIENCE_S where there is none.

    Raises:
        Unreachable: there is no connection.
    """
    reader, writer = await open_socket(where)
    messages, statuses, closed, first_s = MessageReader(), list[int](), False, 0.0
    now = asyncio.get_running_loop().time
    try:
        with suppress(TimeoutError, OSError):
            for piece, follows in pairwise([*pieces, b""]):
                writer.write(piece)
                if follows:
                    await asyncio.sleep(BETWEEN_S)
            sent_at_s = now()
            while True:
                patience_s = quiet_s if statuses else min(PATIENCE_S, where.timeout_s)
                async with asyncio.timeout(patience_s):
                    data = await reader.read(65536)
                first_s = first_s or now() - sent_at_s
                for part in messages.feed(data) if data else messages.end():
                    if part.kind == "status-line":
                        statuses += _final(part.data)
                if not data:
                    closed = True
                    break
    finally:
        writer.transport.abort()
    return Outcome(tuple(statuses), closed, first_s)


def _final(line: bytes) -> list[int]:
    """Return the status in a status line, if it is one and not that of an interim answer."""
    text = line.split(b" ")[1:2]
    status = int(text[0]) if text and text[0].strip().isdigit() else 0
    return [status] if status >= 200 else []


def _finding(case: Case, severity: Severity, outcome: Outcome, data: bytes) -> Finding:
    fix = "refuse it with 400 and close the connection"
    if case.expected == "served":
        fix = "accept it"
    elif case.expected == "one":
        fix = "refuse it, or read its body as the standard says and close the connection"
    seen = f"{show(data)} was answered with {outcome}"
    return Finding(case.name, severity, "http", seen, 1, case.says, case.source, BREAKS, fix)


def _split_finding(name: str, pieces: Sequence[bytes], whole: Outcome, outcome: Outcome) -> Finding:
    how = "byte by byte" if len(pieces) > 2 else f"cut after {len(pieces[0])} bytes"
    return Finding(
        "split-invariance",
        "error",
        f"split: {name}",
        f"whole: {whole}; {how}: {outcome}",
        1,
        "An answer does not depend on how the network cuts the request",
        "RFC 9112 section 2.2; TCP is a stream of bytes",
        "all clients on slow or lossy networks",
        "collect bytes until a message is complete",
    )
