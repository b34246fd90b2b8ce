"""Exercise 5: many clients, and one that leaves. `streamtok learn build 5` grades this file."""

import asyncio
from collections.abc import AsyncGenerator

from streamtok.teach.build.clients_kit import serve_clients
from streamtok.teach.build.kit import LAST_CHUNK, chunk


async def respond(writer: asyncio.StreamWriter, tokens: AsyncGenerator[str, None]) -> None:
    """Send the head, each of `tokens` as a chunk, and the end."""
    # YOUR CODE
    raise NotImplementedError


if __name__ == "__main__":
    serve_clients(respond)
