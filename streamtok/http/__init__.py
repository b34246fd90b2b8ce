"""HTTP/1.1 on a socket: bytes to requests, answers to chunks. Knows nothing of models or tokens."""
