"""Backpressure: a reader that does not read."""

import re

from msgspec import Struct

from streamtok.engine.commands import HIGH_WATER
from streamtok.http.transport import WRITE_AHEAD_BYTES
from streamtok.teach.lessons.lab import SEND_BUFFER_BYTES, Exchange, Lab, get, post
from streamtok.teach.lessons.lesson import Blocks, Lesson, Question, Table, Wire, whole_number

RECEIVE_BUFFER_BYTES = 4096
CHOICES = 4  # answers in one stream, which fill buffers four times as fast
TOKENS, MOST = 32, 100  # of each
GAUGE = re.compile(rb"^streamtok_running_streams .*\n", re.MULTILINE)


class Race(Struct, frozen=True):
    """Two equal streams, one of them read late; `gauge` is what ran when the other was over."""

    eager: Exchange
    late: Exchange
    gauge: bytes

    @property
    def paused(self) -> bool:
        """Whether the late one had not been computed to its end by then."""
        return not self.gauge.endswith(b" 0.0\n")

    @property
    def table(self) -> Table:
        """What each client got."""
        readers = (("reads at once", self.eager), ("reads late", self.late))
        return Table(
            ("client", "last byte after", "bytes of body", "complete"),
            tuple(
                (
                    name,
                    f"{exchange.recording.reads[-1].at_s:.2f} s",
                    f"{len(exchange.answer.body):,}",
                    "yes" if exchange.answer.complete else "no",
                )
                for name, exchange in readers
            ),
        )


def run(lab: Lab, tokens: int) -> Race:
    """Start a stream and do not read it; start the same again, read that to its end; then read."""
    body = {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "n": CHOICES,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,  # makes events large, so that buffers are soon full
    }
    request = post("/v1/chat/completions", body)
    with lab.connect(RECEIVE_BUFFER_BYTES) as late:
        late.send(request)
        eager = lab.exchange(request)
        metrics = lab.exchange(get("/metrics", "Connection: close")).answer.body
        gauge = GAUGE.search(metrics)
        assert gauge is not None
        return Race(eager, late.read(), gauge[0])


def show(lab: Lab) -> Blocks:
    """See what the server does for a client that does not read."""
    race = run(lab, TOKENS)
    yield (
        "A client that does not read fills buffers: its own, then the server's. TCP tells the "
        "sender how much room there is (RFC 9293 section 3.8.6), and at 0 nothing more leaves."
    )
    yield (
        f"We asked for a stream of {CHOICES} answers, {TOKENS} tokens each, and read nothing. Then "
        "a second client asked for the same and read at once. When it had everything, we asked "
        "`GET /metrics` how many answers were not complete:"
    )
    yield Wire(race.gauge)
    yield Question(
        "The second client has all its tokens. The first one asked before it. What has the server "
        "done for the first one by now?",
        "Computed until buffers were full, then paused its stream",
        "It still runs. The sockets' buffers were full, then the server's own "
        f"({WRITE_AHEAD_BYTES // 1024} KiB), then about {HIGH_WATER} tokens waited; so the engine "
        "left the stream out of its steps. Nobody else waits for a slow reader, and no memory is "
        "spent on it without bound.",
        "Answers that are complete do not count in that line.",
        (
            "Computed all tokens, and keeps them in memory",
            "Computed until buffers were full, then paused its stream",
            "Closed its connection",
        ),
    )
    yield "Then the first client read. The stream went on where it was:"
    yield race.table
    yield (
        "Real servers cannot wait for ever: after `--stall-timeout` (30 s) without a byte read, "
        "this one drops the connection. (For this lesson its sockets have send buffers of "
        f"{SEND_BUFFER_BYTES // 1024} KiB. Else the kernel alone may hold some megabytes.)"
    )


def change(lab: Lab, given: str) -> Blocks:
    """Repeat it with another number of tokens."""
    tokens = whole_number(given, 1, MOST)
    race = run(lab, tokens)
    yield Wire(race.gauge)
    if race.paused:
        yield "That is more than the buffers hold: the first stream was paused."
    else:
        yield (
            "The buffers hold that much: the first stream was complete too, though nobody had read "
            "a byte of it. What a server has written, a client need not have seen."
        )
    yield race.table


LESSON = Lesson(
    name="backpressure",
    title="Backpressure: a client that does not read",
    module="streamtok/http/transport.py",
    show=show,
    invitation=f"How many tokens should each answer have (1 to {MOST})?",
    default="8",
    change=change,
)
