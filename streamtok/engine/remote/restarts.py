"""When a process that ended is started again. Pure: knows no clock and no process.

At once the first time, then after growing pauses, so that one that cannot run does not take the
machine's time. The engine's process and the workers of `streamtok.serve.workers` share this policy.
"""

import signal
from contextlib import suppress

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 30.0
STEADY_S = 60.0  # one that lived this long did not fail because of how it was started


class Restarts:
    """Counts the failures of one process and its replacements."""

    def __init__(self) -> None:
        self.failures = 0  # in a row

    def delay_s(self, lived_s: float) -> float:
        """Count a failure of a process that lived `lived_s` seconds, 0 if it never started.

        Return how many seconds to wait before the next start.
        """
        self.failures = 1 if lived_s > STEADY_S else self.failures + 1
        if self.failures == 1:
            return 0.0
        # The exponent is bounded too: a failing process may be restarted for years.
        return min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 2, 16))


def describe_status(status: int) -> str:
    """Return what `status` says of a process's end."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):  # a signal that has no name here
        return signal.Signals(-status).name
    return f"signal {-status}"
