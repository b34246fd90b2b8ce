"""Chat templates in Jinja, as models bring them: rendered as transformers does, and safely.

Special tokens in messages stay text. `streamtok.app` plugs a template into the Services.
"""
