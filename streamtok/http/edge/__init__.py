"""What surrounds the connection: sockets to listen on, TLS, proxies in front, other origins.

Not HTTP itself, which is in `streamtok.http`. `streamtok.app` plugs each of them in.
"""
