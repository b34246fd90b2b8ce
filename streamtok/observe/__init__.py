"""What becomes of what connections tell: text in a terminal, files, spans.

Read next: `streamtok.observe.timeline`.
"""
