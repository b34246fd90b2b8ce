"""Writes wait for the end of the event loop's turn, and not longer: one for a socket, in order."""

import asyncio
import socket

import pytest

from streamtok.http.edge.outbox import TurnOutbox
from streamtok.http.transport import WRITE_AHEAD_BYTES, SocketStream


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))


async def test_what_is_for_one_socket_leaves_in_one_write_at_the_end_of_the_turn() -> None:
    outbox, one, two = TurnOutbox(), Transport(), Transport()
    outbox.add(one, b"a")
    outbox.add(two, b"b")
    outbox.add(one, b"c")
    assert (one.writes, two.writes) == ([], [])
    await asyncio.sleep(0)
    assert (one.writes, two.writes) == ([b"ac"], [b"b"])
    outbox.add(two, b"d")
    await asyncio.sleep(0)
    assert two.writes == [b"b", b"d"]


async def test_much_does_not_wait() -> None:
    outbox, transport = TurnOutbox(), Transport()
    half = bytes(WRITE_AHEAD_BYTES // 2)
    outbox.add(transport, half)
    outbox.add(transport, half)
    assert not transport.writes
    outbox.add(transport, b"x")
    assert transport.writes == [half + half + b"x"]
    await asyncio.sleep(0)
    assert len(transport.writes) == 1


async def test_who_has_gone_gets_nothing_and_the_others_do() -> None:
    outbox, gone, here = TurnOutbox(), Transport(), Transport()
    outbox.add(gone, b"a")
    outbox.add(here, b"b")
    gone.is_closed = True
    await asyncio.sleep(0)
    assert (gone.writes, here.writes) == ([], [b"b"])


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_what_was_sent_before_the_end_arrives(end: str) -> None:
    connected: asyncio.Future[SocketStream] = asyncio.get_running_loop().create_future()
    ours, theirs = socket.socketpair()
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: SocketStream(connected.set_result, 1.0, TurnOutbox()), ours
        )
        stream = await connected
        await stream.send(b"the last word")
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)  # the turn has not ended
        if end == "abort":
            stream.abort()
            assert theirs.recv(100) == b"the last word"
        else:
            closing = asyncio.create_task(stream.close(linger=False))
            await asyncio.sleep(0)
            assert theirs.recv(100) == b"the last word"
            theirs.shutdown(socket.SHUT_WR)
            await closing
