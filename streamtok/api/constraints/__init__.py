"""Answers that keep to a form: JSON schemas, and tools with their choice.

Not the grammars themselves, which are in `streamtok.engine.extras.grammars`.
"""
