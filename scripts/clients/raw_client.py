"""A streaming client of twenty lines that knows nothing but sockets: every byte is read by hand.

usage: raw_client.py [PORT] [PROMPT]
"""

import json
import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
prompt = sys.argv[2] if len(sys.argv) > 2 else "Tell me a story about a fox and a lantern."
body = json.dumps({"messages": [{"role": "user", "content": prompt}], "stream": True}).encode()

with socket.create_connection(("127.0.0.1", port)) as connection:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)  # an empty line ends the head
    stream = connection.makefile("rb")
    print(stream.readline().decode().strip(), file=sys.stderr)  # HTTP/1.1 200 OK
    while stream.readline() != b"\r\n":  # the headers, up to the empty line
        pass
    while size := int(stream.readline(), 16):  # a chunk: its size in hexadecimal ...
        event = stream.read(size)  # ... that many bytes: here one event, "data: ...\n\n" ...
        stream.readline()  # ... and CRLF
        data = event.removeprefix(b"data: ").strip()
        if data != b"[DONE]":
            choice = json.loads(data)["choices"][0]
            print(choice["delta"].get("content", ""), end="", flush=True)
    stream.readline()  # the chunk of size zero ends the answer; the connection stays open
print()
