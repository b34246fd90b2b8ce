"""The command: `streamtok`, and `python -m streamtok`.

Ctrl-C and a closed pipe end every command quietly, at any moment. By itself, Python raises
KeyboardInterrupt wherever the program is, also in the middle of an import, which takes a second. So
Ctrl-C ends the process, as it does other programs, until a command asks for more
(`streamtok.serve.signals`).

Read next: `streamtok.cli`, the commands.
"""

import errno
import os
import signal
import sys

from streamtok.engine.remote.early import EarlyProcess, ahead

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of output that is not buffered
PIPE_STATUS = 128 + 13  # what a shell reports of a program that SIGPIPE has ended


def main() -> int:
    """Run a command; return the process's exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    # First of all, so that it loads the model while this process imports what it needs
    early = ahead(sys.argv[1:], os.environ)
    try:
        return _run(early)
    finally:
        if early:
            early.close()


def _run(early: EarlyProcess | None) -> int:
    from streamtok import cli

    try:
        status = cli.main(early=early)
    except BrokenPipeError:
        return _discard_output(PIPE_STATUS)
    except KeyboardInterrupt:
        status = cli.INTERRUPTED
    except OSError as error:
        if error.errno not in FULL:
            raise
        return _say(error)
    except SystemExit:  # `--help`, and wrong use
        if failed := _flush(0):
            return failed
        raise
    return _flush(status)


def _flush(status: int) -> int:
    """Write what is left of the output; return the exit status, which is `status` if that works."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _discard_output(PIPE_STATUS)
    except OSError as error:
        return _say(error) if status == 0 else _discard_output(status)  # it has been said
    return status


def _say(error: OSError) -> int:
    """Say that the output cannot be written, as on a full disk; return the exit status."""
    print(f"streamtok: standard output: cannot be written: {error.strerror}", file=sys.stderr)
    return _discard_output(2)


def _discard_output(status: int) -> int:
    """Let the interpreter flush without an error at its end; return `status`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _open_streams() -> None:
    """Give output a place where the caller has closed its standard streams (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
