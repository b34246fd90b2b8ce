"""A language model's tokens, each in an HTTP/1.1 chunk of its own, the moment it is made.

The way of one request, and where to read it:

    socket bytes -> h11 events -> Request -> token ids -> engine -> asyncio.Queue
        -> text -> SSE event -> chunk -> socket bytes

Start with `streamtok.model.reference` for what a model computes, `streamtok.http.connection` for
what happens on a socket, and `streamtok.answer.generation` for how the two meet.
"""

__version__ = "0.1.0"
