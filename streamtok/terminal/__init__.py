"""`streamtok chat` and `streamtok generate`: text in a terminal, as it is generated.

Both read the same server-sent events that any client gets, from a server or, `generate` without
`--url`, straight from the endpoint. Read next: `streamtok.terminal.answers`, the events as text.
"""
