"""A validated request and its answer: tokens in, text events out, counted. No JSON, no sockets.

Read next: `streamtok.answer.generation`.
"""
