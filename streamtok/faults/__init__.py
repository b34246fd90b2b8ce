"""Faults on demand: streams that break in ways that are asked for, to test clients against.

Without `--faults` nothing of it runs. `streamtok.app` plugs it in.
"""
