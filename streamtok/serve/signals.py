"""Signals, by what the platform has: Windows knows no SIGHUP, and its event loop no handlers.

Read next: `streamtok.serve.process`, which they stop.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Handler = Callable[[], object]
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
RELOAD = getattr(signal, "SIGHUP", None)  # asks to read files again; the others ask to stop


def handle_signals(stop: Callable[[int], object], reload: Handler) -> None:
    """Call `stop` with the number of a signal that asks to stop, and `reload` for SIGHUP.

    Both are called on the running event loop.
    """
    loop = asyncio.get_running_loop()
    handlers: Mapping[int, Handler] = {
        number: reload if number == RELOAD else _bind(stop, number) for number in SIGNALS
    }
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
    except NotImplementedError:  # Windows
        waker = _wake_up(loop)  # kept by the handlers, so as long as signals are written to it
        for number, handler in handlers.items():
            signal.signal(
                number, lambda *_, call=handler, waker=waker: loop.call_soon_threadsafe(call)
            )


def _bind(stop: Callable[[int], object], number: int) -> Handler:
    return lambda: stop(number)


def _wake_up(loop: asyncio.AbstractEventLoop) -> socket.socket:
    """Have signals end the loop's wait for sockets, as Python's handlers run only then.

    Returns the socket that they are written to. Were it closed, its number could become that of a
    client's connection, and a signal would write into an answer.
    """
    reader, writer = _wakeup_pair()

    def drain() -> None:
        reader.recv(64)

    loop.add_reader(reader, drain)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    return writer


@contextmanager
def signal_socket() -> Iterator[socket.socket]:
    """Give a socket from which the numbers of SIGNALS can be read, without an event loop."""
    reader, writer = _wakeup_pair()
    before = [signal.signal(number, lambda *_: None) for number in SIGNALS]
    signal.set_wakeup_fd(writer.fileno())
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
        reader.close()
        writer.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt within the block, where it would end the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def restored() -> Iterator[None]:
    """Let SIGINT do after the block what it did before it, whatever an event loop has set."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wakeup_pair() -> tuple[socket.socket, socket.socket]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    return reader, writer
