"""The engine in a process of its own: how it is started, spoken to and replaced.

Not what it computes: `streamtok.engine.core` runs there as it does in a thread. `streamtok.app`
chooses between the two.
"""
