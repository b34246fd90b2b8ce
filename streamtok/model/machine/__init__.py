"""Products fitted to this machine: which cuts are exact and fast here, and threads that share them.

Plugged in by `streamtok.model.load`.
"""
