"""Exercise 5: many clients, and one that leaves."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streamtok.teach.build.clients_kit import MANY_STEPS, STEP_S, STEPS
from streamtok.teach.build.exercise import Exercise, Wrong, check, shown
from streamtok.teach.build.program import Program, serving
from streamtok.teach.build.wire import Response, ask, get, read_chunks, read_head

CLIENTS = 8
PATIENCE_S = 2.0  # until the server has noticed something
POLL_S = 0.05
STILL_S = 0.4  # without a new token: the sequence waits


def grade(file: Path) -> Iterator[str]:
    """Ask alone, then with many at once, leave in the middle, and do not read."""
    with serving(file) as program:
        alone_s = _time(lambda: _check_text(program, "alone"))
        yield "one client gets its tokens, each in a chunk"
        _check_together(program, alone_s)
        yield f"{CLIENTS} clients at once wait no longer than one, and each gets its own"
        _check_leaving(program)
        yield "of a client that leaves nothing goes on"
        _check_reluctant(program)
        yield "for a client that does not read no tokens pile up, and others are served"


def _time(act: Callable[[], None]) -> float:
    began_s = time.monotonic()
    act()
    return time.monotonic() - began_s


def _check_text(program: Program, name: str) -> None:
    response: Response = ask(program, get(program, f"/{name}"))
    _, start = read_head(response.raw)
    chunks = read_chunks(response.raw, start)
    text = b"".join(data for _, data in chunks).decode()
    right = "".join(f"{name}-{number} " for number in range(STEPS))
    others = {word.partition("-")[0] for word in text.split()} - {name}
    check(
        not others,
        f"client {name} got tokens of {', '.join(sorted(others))}: what is kept for one answer "
        "must not be shared by all",
    )
    check(text == right, f"expected {shown(right)}, found {shown(text)}")
    first_s, last_s = (response.at_s(offset) for offset, _ in (chunks[0], chunks[-1]))
    check(
        last_s - first_s > STEP_S * STEPS / 5, "all tokens came at once: send each when it exists"
    )


def _check_together(program: Program, alone_s: float) -> None:
    problems: list[Wrong] = []

    def one(number: int) -> None:
        try:
            _check_text(program, f"client{number}")
        except Wrong as wrong:
            problems.append(wrong)
        except OSError as error:
            problems.append(Wrong(f"client {number} has no connection: {error}"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CLIENTS)]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together_s = time.monotonic() - began_s
    if problems:
        raise problems[0]
    check(
        together_s < alone_s * CLIENTS / 2,
        f"{CLIENTS} clients took {together_s:.2f} s, one takes {alone_s:.2f} s: they are served "
        "one after the other; something blocks the event loop, or holds a lock",
    )


def _check_leaving(program: Program) -> None:
    with socket.create_connection(program.address) as connection:
        connection.sendall(get(program, "/leaver"))
        _until(lambda: b"leaver-1" in connection.recv(65536), "no token came")
    left_at = _state(program)["made"].get("leaver", 0)
    _until(
        lambda: not _state(program)["running"].get("leaver"),
        "a client that left is still generated for: a write to it fails, drain() says so by "
        "ConnectionResetError; let it end the answer",
    )
    made = _state(program)["made"]["leaver"]
    check(
        made < MANY_STEPS,
        f"a client left after {left_at} tokens, and all {made} were computed: nobody noticed. "
        "write() alone does not say that the client is gone, drain() does",
    )


def _check_reluctant(program: Program) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(program.address)
        connection.sendall(get(program, "/large"))
        made = _still(program)
        check(
            made < MANY_STEPS,
            f"a client that reads nothing had all {made} tokens computed, which now stand in the "
            "server's memory: await drain() after each write",
        )
        _check_text(program, "reader")


def _still(program: Program) -> int:
    """Return how many tokens the large answer has when no more are made."""
    made, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < STILL_S:
        now = _state(program)["made"].get("large", 0)
        if now != made:
            made, since_s = now, time.monotonic()
        time.sleep(POLL_S)
    return int(made)


def _state(program: Program) -> Any:
    raw = ask(program, get(program, "/running")).raw
    return json.loads(raw.partition(b"\r\n\r\n")[2])


def _until(found: Callable[[], bool], problem: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not found():
        check(time.monotonic() < deadline_s, problem)
        time.sleep(POLL_S)


EXERCISE = Exercise(
    name="clients",
    title="Many clients, and one that leaves",
    task=(
        "Write `respond`, a coroutine: the head, each token of the asynchronous iterator as a "
        "chunk, and the end. Many run at once. When a client leaves, its answer must end at once; "
        "while a client does not read, no tokens may pile up for it."
    ),
    hints=(
        (
            "`async for token in tokens:` leaves the event loop to the others while it waits. "
            "Nothing else in `respond` may block: no time.sleep, no socket calls."
        ),
        (
            "`writer.write` only puts bytes into a buffer. `await writer.drain()` waits while the "
            "client does not read, and raises ConnectionResetError once it has left."
        ),
        "Do not catch that error: it ends `respond`, and with it the generation.",
    ),
    real=(
        "vLLM went on generating for clients that had left, as soon as a middleware stood before "
        "it (vllm-project/vllm #10087); xinference did so until September 2026 "
        "(xorbitsai/inference #5549)."
    ),
    grade=grade,
)
