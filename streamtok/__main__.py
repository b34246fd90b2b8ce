"""The command: `streamtok`, and `python -m streamtok`.

Ctrl-C and a closed pipe end every command quietly, at any moment. By itself, Python raises
KeyboardInterrupt wherever the program is, also in the middle of an import, which takes a second. So
Ctrl-C ends the process, as it does other programs, until a command asks for more
(`streamtok.serve.signals`).

Read next: `streamtok.cli`, the commands.
"""

import os
import signal
import sys

PIPE_STATUS = 128 + 13  # what a shell reports of a program that SIGPIPE has ended


def main() -> int:
    """Run a command; return the process's exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from streamtok import cli

    try:
        try:
            return cli.main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_STATUS
    except KeyboardInterrupt:
        return cli.INTERRUPTED


def _open_streams() -> None:
    """Give output a place where the caller has closed its standard streams (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
