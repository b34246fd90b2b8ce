"""How much each caller may ask for: requests and tokens per minute, and streams at once.

Each rate is a token bucket that holds a minute's worth. A request costs one of "requests" when it
comes in, even if it then fails. Its prompt is charged to "tokens" when the engine takes it, what
was generated when that is known, at its end; a request is refused while nothing is left. So the
last one may overdraw, by no more than itself, and what is overdrawn is paid off before the next one
is let in. Each server process counts for itself.
"""

import math

from streamtok.answer.limits import Limits
from streamtok.clock import Clock
from streamtok.config import ApiConfig
from streamtok.errors import InvalidRequest, RateLimited
from streamtok.http.request import HeaderList

SWEEP_AT = 1024  # callers from which on those with nothing to remember are forgotten


class Bucket:
    """Units flow in at `per_minute`, and as many fit in; it begins full.

    Pure: every method is given the time, in seconds of a clock that does not go back.
    """

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._level_at_s = now_s

    def level(self, now_s: float) -> float:
        """Return how many units are left; below zero, how many are owed."""
        inflow = (now_s - self._level_at_s) * self.per_minute / 60
        return min(self.per_minute, self._level + inflow)

    def take(self, amount: int, now_s: float) -> None:
        """Take `amount` out, even if it is not there."""
        self._level, self._level_at_s = self.level(now_s) - amount, now_s

    def wait_s(self, amount: int, now_s: float) -> float:
        """Return the seconds until `amount` is there, if nothing is taken until then."""
        return max(0.0, (amount - self.level(now_s)) * 60 / self.per_minute)


class Account:
    """What one caller has used: a bucket for each rate that is limited, and running streams."""

    def __init__(self, config: ApiConfig, now_s: float) -> None:
        rates = {"requests": config.requests_per_minute, "tokens": config.tokens_per_minute}
        self.buckets = {kind: Bucket(rate, now_s) for kind, rate in rates.items() if rate}
        self.streams = 0

    def take(self, kind: str, amount: int, now_s: float) -> None:
        """Charge `amount`, if there is a limit to it."""
        if bucket := self.buckets.get(kind):
            bucket.take(amount, now_s)

    def is_fresh(self, now_s: float) -> bool:
        """Whether this is what a new account would be."""
        full = all(not bucket.wait_s(bucket.per_minute, now_s) for bucket in self.buckets.values())
        return full and not self.streams


class RateLimits(Limits):
    """The accounts of all callers."""

    def __init__(self, config: ApiConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._sweep_at = SWEEP_AT
        self._any = bool(
            config.requests_per_minute or config.tokens_per_minute or config.streams_per_key
        )

    def admit(self, caller: str) -> None:
        """See `Limits.admit`."""
        if not self._any:
            return
        account, now_s = self._account(caller), self._clock.monotonic_s()
        waits_s = {kind: bucket.wait_s(1, now_s) for kind, bucket in account.buckets.items()}
        kind = max(waits_s, key=waits_s.__getitem__, default="requests")
        if waits_s.get(kind):
            raise RateLimited(
                f"the limit of {account.buckets[kind].per_minute} {kind} per minute is reached",
                kind=kind,
                retry_after_s=math.floor(waits_s[kind]) + 1,  # whole seconds, and none too early
            )
        account.take("requests", 1, now_s)

    def check_streams(self, caller: str, count: int) -> None:
        """See `Limits.check_streams`."""
        most = self._config.streams_per_key
        if not most:
            return
        if count > most:
            raise InvalidRequest(
                f"{count} choices are asked for; {most} may run at once", param="n"
            )
        if (running := self._account(caller).streams) + count > most:
            raise RateLimited(
                f"{running} streams run already, of {most} at once; this request adds {count}",
                kind="requests",
                retry_after_s=1,  # one may end at any moment
            )

    def begin(self, caller: str, streams: int, prompt_tokens: int) -> None:
        """See `Limits.begin`."""
        if self._any:
            account = self._account(caller)
            account.streams += streams
            account.take("tokens", prompt_tokens, self._clock.monotonic_s())

    def end(self, caller: str, streams: int, generated_tokens: int) -> None:
        """See `Limits.end`."""
        if self._any:
            account = self._account(caller)
            account.streams -= streams
            account.take("tokens", generated_tokens, self._clock.monotonic_s())

    def headers(self, caller: str) -> HeaderList:
        """Return what is left, in the headers that OpenAI uses for it."""
        account, now_s = self._accounts.get(caller), self._clock.monotonic_s()
        headers = []
        for kind, bucket in account.buckets.items() if account else ():
            remaining = max(0, math.floor(bucket.level(now_s)))
            full_in_s = bucket.wait_s(bucket.per_minute, now_s)
            headers += [
                (f"x-ratelimit-limit-{kind}", str(bucket.per_minute)),
                (f"x-ratelimit-remaining-{kind}", str(remaining)),
                (f"x-ratelimit-reset-{kind}", duration(full_in_s)),
            ]
        return tuple(headers)

    def _account(self, caller: str) -> Account:
        account = self._accounts.get(caller)
        if account is None:
            now_s = self._clock.monotonic_s()
            if len(self._accounts) >= self._sweep_at:
                self._sweep(now_s)
            account = self._accounts[caller] = Account(self._config, now_s)
        return account

    def _sweep(self, now_s: float) -> None:
        """Forget who has nothing to remember; so rarely that it costs a request next to nothing."""
        self._accounts = {c: a for c, a in self._accounts.items() if not a.is_fresh(now_s)}
        self._sweep_at = max(SWEEP_AT, 2 * len(self._accounts))


def duration(seconds: float) -> str:
    """Return `seconds` as OpenAI writes it: "6m0s", "8.64s" or "120ms", rounded up."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{milliseconds / 1000:g}s"
