"""Several processes that serve one address, and the supervisor that keeps them running.

The supervisor binds the sockets and loads the model, then forks its workers: where their engines
are threads, the weights are the same physical memory in all of them, because nobody writes to it.
Each worker has an engine, limits and metrics of its own; the ledger's file is common. Workers start
one after another, so that a wrong setting is reported once, and what depends on files is made once.

Supervisor and worker talk over a socket pair, one byte a message, and not by signals: Ctrl-C and
systemd send theirs to every process of a group, and a worker could not tell them from the
supervisor's. The end of the pair also tells each of them that the other is gone.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from msgspec import Struct, field

from streamtok.app import App, Share
from streamtok.config import ServeConfig
from streamtok.engine.remote.restarts import Restarts, describe_status
from streamtok.errors import ConfigError, StreamtokError
from streamtok.http.edge.sockets import open_endpoint
from streamtok.script.stage import open_script
from streamtok.serve.process import STOPPING, Control, run
from streamtok.serve.signals import RELOAD as RELOAD_SIGNAL
from streamtok.serve.signals import SIGNALS, signal_socket
from streamtok.startup import read_files

log = logging.getLogger(__name__)

READY = b"+"  # from a worker: it serves
STOP, RELOAD, ABORT = b"s", b"r", b"a"  # to a worker: see Control
ABORT_S = 5.0  # how long workers have to end after the second signal, before they are killed


def supervise(config: ServeConfig, announce: Callable[[str], None]) -> int:
    """Serve with several workers until a signal comes, and return the exit status.

    `announce` is called with the URL when all of them serve.

    Raises:
        ConfigError: a setting is wrong.
        ModelError: the model cannot be loaded.
    """
    if "fork" not in get_all_start_methods():
        raise ConfigError("--workers: this system cannot fork; one process serves all it can")
    if config.ledger == ":memory:":
        raise ConfigError("--ledger: with several --workers it must be a file; found :memory:")
    open_script(config)  # wrong or not, before anything is started
    with signal_socket() as signals:
        endpoint = open_endpoint(config)
        url = endpoint.url("https" if config.certfile else "http")
        try:
            files = read_files(config)
            parts = enumerate(endpoint.split(config.workers), 1)
            workers = [_Worker(Share(number, part, files)) for number, part in parts]
            return _Supervisor(config, workers, signals).run(lambda: announce(url))
        finally:
            endpoint.close()


class _Worker(Struct):
    """The place of one worker: the process that has it now, or when the next one starts."""

    share: Share
    process: BaseProcess | None = None
    channel: socket.socket | None = None
    ready: bool = False
    started_s: float = 0.0  # monotonic, as is the next
    start_at_s: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)

    def tell(self, message: bytes) -> None:
        """Send one of the messages, if there is a process to hear it."""
        if self.channel:
            with suppress(OSError):
                self.channel.send(message)

    def hang_up(self) -> None:
        """Close our end; a process that is there will stop."""
        if self.channel:
            self.channel.close()
            self.channel = None


class _Supervisor:
    """Starts workers, replaces those that end, and passes on what signals ask for."""

    def __init__(
        self, config: ServeConfig, workers: Sequence[_Worker], signals: socket.socket
    ) -> None:
        self._config = config
        self._workers = workers
        self._signals = signals
        self._announced = False
        self._stopping = False
        self._kill_at_s: float | None = None
        self._status = 0

    def run(self, announce: Callable[[], None]) -> int:
        """Return the exit status when all workers have ended."""
        try:
            while not self._stopping or any(worker.process for worker in self._workers):
                self._start_due()
                self._kill_due()
                watched = self._watched()
                for source in wait(list(watched), self._patience_s()):
                    watched[source]()
                if not self._announced and all(worker.ready for worker in self._workers):
                    self._announced = True
                    announce()
        finally:
            for worker in self._workers:
                worker.hang_up()
        return self._status

    def _start_due(self) -> None:
        for worker in self._workers:
            due = not self._stopping and time.monotonic() >= worker.start_at_s
            if worker.process is None and due:
                self._start(worker)
            if not (self._announced or worker.ready):
                return  # the first time, one after another

    def _start(self, worker: _Worker) -> None:
        worker.started_s = time.monotonic()
        try:
            self._fork(worker)
        except OSError as error:  # no room for one more process
            worker.hang_up()
            self._replace(worker, f"cannot be started: {error.strerror}", 1)

    def _fork(self, worker: _Worker) -> None:
        """Fork; signals are held back until the child no longer shares our way to hear them."""
        worker.channel, theirs = socket.socketpair()
        arguments = (self._config, worker.share, theirs, self._private(worker))
        context: Any = get_context("fork")
        process: BaseProcess = context.Process(target=_work, args=arguments)
        _mask_signals(block=True)
        try:
            process.start()
            worker.process = process
        finally:
            _mask_signals(block=False)
            theirs.close()

    def _private(self, worker: _Worker) -> list[socket.socket]:
        """Return the sockets that a new process must close, to see when others close theirs."""
        listening = {sock for other in self._workers for sock in other.share.endpoint.sockets}
        channels = [other.channel for other in self._workers if other.channel]
        return [self._signals, *channels, *listening.difference(worker.share.endpoint.sockets)]

    def _watched(self) -> dict[Any, Callable[[], None]]:
        """Return what to do for each socket and process that something may come from."""
        watched: dict[Any, Callable[[], None]] = {self._signals: self._hear_signals}
        for worker in self._workers:
            if worker.channel:
                watched[worker.channel] = partial(self._hear, worker)
            if worker.process:
                watched[worker.process.sentinel] = partial(self._reap, worker)
        return watched

    def _patience_s(self) -> float | None:
        """Return the seconds until there is something to do without being asked."""
        times = [] if self._kill_at_s is None else [self._kill_at_s]
        if not self._stopping and self._announced:
            times += [worker.start_at_s for worker in self._workers if worker.process is None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    # What workers do

    def _hear(self, worker: _Worker) -> None:
        if worker.channel is None:
            return
        try:
            worker.ready = worker.channel.recv(1) == READY
        except OSError:
            worker.ready = False
        if not worker.ready:
            worker.hang_up()

    def _reap(self, worker: _Worker) -> None:
        """Note that a worker's process has ended, and decide what follows."""
        assert worker.process is not None
        worker.process.join()
        code = worker.process.exitcode or 0
        worker.process = None
        worker.ready = False
        worker.hang_up()
        if self._stopping:
            self._status = self._status or (1 if code else 0)
        else:
            self._replace(worker, f"ended ({describe_status(code)})", code)

    def _replace(self, worker: _Worker, reason: str, code: int) -> None:
        """Plan the next start of a worker, unless it is the first that failed."""
        if not self._announced:  # it has said why
            self._stop()
            self._status = code if code > 0 else 1
            return
        now_s = time.monotonic()
        worker.start_at_s = now_s + worker.restarts.delay_s(now_s - worker.started_s)
        log.error("worker %d %s; it is replaced", worker.share.worker, reason)

    # What signals ask for

    def _hear_signals(self) -> None:
        for number in self._signals.recv(64):
            if number == RELOAD_SIGNAL:
                self._tell(RELOAD)
            elif not self._stopping:
                print(STOPPING, file=sys.stderr)
                self._stop()
            else:
                self._status = 128 + number
                self._kill_at_s = time.monotonic() + ABORT_S
                self._tell(ABORT)

    def _stop(self) -> None:
        """Tell all; our copies of the sockets are closed, or they would outlive the workers'."""
        self._stopping = True
        for worker in self._workers:
            worker.share.endpoint.close()
        self._tell(STOP)

    def _tell(self, message: bytes) -> None:
        for worker in self._workers:
            worker.tell(message)

    def _kill_due(self) -> None:
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            self._kill_at_s = None
            for worker in self._workers:
                if worker.process:
                    worker.process.kill()


def _mask_signals(*, block: bool) -> None:
    """Hold back signals, or let those through that were held back."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK if block else signal.SIG_UNBLOCK, SIGNALS)


# In a worker's process


def _work(
    config: ServeConfig, share: Share, channel: socket.socket, private: Sequence[socket.socket]
) -> None:
    """Serve until the supervisor says stop, or is gone."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the event loop handles it
    _mask_signals(block=False)
    for sock in private:
        sock.close()
    attach = partial(_obey, channel)
    try:
        status = run(lambda: App(config, share), attach, lambda _: channel.sendall(READY))
    except StreamtokError as error:
        print(f"streamtok: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _obey(channel: socket.socket, control: Control) -> None:
    """Do what comes over `channel`. SIGTERM stops this worker alone, and another replaces it."""
    loop = asyncio.get_running_loop()
    channel.setblocking(False)

    def hear() -> None:
        try:
            orders = channel.recv(64)
        except OSError:
            orders = b""
        if not orders:
            loop.remove_reader(channel)
            control.stop()
        if STOP in orders:
            control.stop()
        if RELOAD in orders:
            control.reload()
        if ABORT in orders:
            control.abort(signal.SIGTERM)

    loop.add_reader(channel, hear)
    loop.add_signal_handler(signal.SIGTERM, control.stop)
