"""A proxy for people who debug streams: between a client and any HTTP/1.1 server.

It passes bodies on unchanged, chunk by chunk as they come, and can trace both sides, record
exchanges and answer from recordings, break streams on demand (`streamtok.faults`), and apply the
doctor's rules to what passes. It is not a load balancer or a cache, and upgrades no connection.
`streamtok proxy` starts it. Read next: `streamtok.proxy.forward`.
"""
