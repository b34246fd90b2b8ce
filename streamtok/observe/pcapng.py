"""The trace as a capture that Wireshark opens: each write or read is one TCP segment.

The bytes are the real ones, addresses and times too. IP and TCP headers are made up around them: a
handshake, sequence numbers that count, an end. What TLS would hide is shown as it was before, on
port 80, where Wireshark looks for HTTP; ends of Unix sockets have addresses of RFC 5737.

The format is that of draft-ietf-opsawg-pcapng: a section, one interface, then a block a packet. A
section that is appended to another, by the next start or another process, is valid too.
"""

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count

from msgspec import Struct

from streamtok import __version__
from streamtok.http.transport import Address
from streamtok.observe.trace import Accepted, Bytes, Closed, Ended, Record

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # types of blocks
BYTE_ORDER = 0x1A2B3C4D
RAW_IP = 101  # the link type: packets begin with an IP header
NAME, RESOLUTION, APPLICATION = 2, 9, 4  # options
TCP = 6  # the protocol's number in IP headers
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
WINDOW = 0xFFFF
LARGE_WINDOWS = bytes((3, 3, 14, 1))  # an option of SYN: 2**14 times what windows say, and padding
MOST_BYTES = 0xFFFF - 40 - 20  # in one segment: IP has 16 bits for its length
HTTP_PORT = 80
UNIX_CLIENT, UNIX_SERVER = "192.0.2.1", "192.0.2.2"


class Capture:
    """Records to blocks."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._ports = count(1)

    @property
    def header(self) -> bytes:
        """What a section begins with."""
        section = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
        application = _option(APPLICATION, f"streamtok {__version__}".encode())
        interface = struct.pack("<HHI", RAW_IP, 0, 0)
        options = _option(NAME, b"streamtok") + _option(RESOLUTION, bytes([9]))
        return _block(SECTION, section + application + _option(0, b"")) + _block(
            INTERFACE, interface + options + _option(0, b"")
        )

    def encode(self, record: Record) -> bytes:
        """Return the packets that `record` adds."""
        if isinstance(record, Accepted):
            self._flows[record.connection] = self._begin(record)
        flow = self._flows[record.connection]
        if isinstance(record, Closed):
            del self._flows[record.connection]
        return b"".join(_packet(record.at_s, data) for data in flow.packets(record))

    def _begin(self, record: Accepted) -> "_Flow":
        port = 1024 + next(self._ports) % 64_000
        client = record.client or (UNIX_CLIENT, port)
        host, port = record.server or (UNIX_SERVER, HTTP_PORT)
        return _Flow(_Side(client), _Side((host, HTTP_PORT if record.encrypted else port)))


class _Side:
    """One end of a connection, and the number of its next byte."""

    def __init__(self, address: Address) -> None:
        self.address = ip_address(address[0])
        self.port = address[1]
        self.next = 0


class _Flow(Struct):
    """One connection."""

    client: _Side
    server: _Side
    was_reset: bool = False

    def packets(self, record: Record) -> Iterator[bytes]:
        if self.was_reset:
            return
        if isinstance(record, Accepted):
            yield self._segment(self.client, SYN, options=LARGE_WINDOWS)
            yield self._segment(self.server, SYN | ACK, options=LARGE_WINDOWS)
            yield self._segment(self.client, ACK)
        elif isinstance(record, Bytes):
            side = self.server if record.sent else self.client
            for start in range(0, len(record.data), MOST_BYTES):
                yield self._segment(side, PSH | ACK, record.data[start : start + MOST_BYTES])
        elif isinstance(record, Ended):
            side = self.server if record.side == "server" else self.client
            self.was_reset = record.reset
            yield self._segment(side, (RST if record.reset else FIN) | ACK)
            if not record.reset:
                yield self._segment(self._other(side), ACK)

    def _other(self, side: _Side) -> _Side:
        return self.server if side is self.client else self.client

    def _segment(self, side: _Side, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        """Return a packet from `side`, and count it (RFC 9293 section 3.1)."""
        other = self._other(side)
        acknowledged = other.next if flags & ACK else 0
        words = 5 + len(options) // 4
        head = struct.pack(
            "!HHIIBBHHH",
            *(side.port, other.port, side.next, acknowledged),
            *(words << 4, flags, WINDOW, 0, 0),
        )
        side.next = (side.next + len(data) + bool(flags & (SYN | FIN))) % 2**32
        segment = bytearray(head + options + data)
        addresses = side.address.packed + other.address.packed
        pseudo = addresses + struct.pack("!II", len(segment), TCP)
        struct.pack_into("!H", segment, 16, _checksum(pseudo + bytes(segment)))
        return _ip_header(addresses, len(segment)) + segment


def _ip_header(addresses: bytes, length: int) -> bytes:
    """Return the header before `length` bytes of TCP, for two addresses of either version."""
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28, length, TCP, 64) + addresses
    head = bytearray(
        struct.pack("!BBHHHBBH", 4 << 4 | 5, 0, 20 + length, 0, 0, 64, TCP, 0) + addresses
    )
    struct.pack_into("!H", head, 10, _checksum(bytes(head)))
    return bytes(head)


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packet(at_s: float, data: bytes) -> bytes:
    at_ns = int(at_s * 1e9)
    head = struct.pack("<IIIII", 0, at_ns >> 32, at_ns & 0xFFFFFFFF, len(data), len(data))
    return _block(PACKET, head + _padded(data))


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
