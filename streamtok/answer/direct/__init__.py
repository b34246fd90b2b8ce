"""The chunks of all streams made in one go, at the end of the event loop's turn.

Not what is in them, which is `streamtok.answer.generation`'s and `streamtok.answer.render`'s: with
this room a stream has the same bytes as without it, and costs less.
"""
