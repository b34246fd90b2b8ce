"""Streams that a client can come back to, also after the server's process has died.

An answer is a function of its request and of the little that the server adds: an id, a seed, the
time, what was cached. That little is kept (`recording`), and with it the same bytes can be computed
again; while the process lives they are at hand (`log`). `streams` has both under one id.

Read next: `streamtok.api.resume.recording`.
"""
