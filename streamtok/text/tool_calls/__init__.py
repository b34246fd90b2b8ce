"""Function calls in text: how tools are described in a prompt, and calls read from an answer.

Not the JSON of any API. It plugs into the chat template and into the answer.
"""
