"""How the server runs: one process, several that share a port, or a thread of another program."""
