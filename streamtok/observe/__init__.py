"""Traces of connections: text in a terminal, JSON lines, packets, spans.

Read next: `streamtok.observe.timeline`.
"""
