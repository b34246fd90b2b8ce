"""Scripted answers: a file of rules says what is answered to which request.

For tests of programs that call a model, such as agents: the answer is prescribed, and everything
else is real. Its text goes through the tokenizer, an engine that says given tokens, the dialect of
each API, the framing, the ledger and the limits. What no rule matches goes to the model.

It plugs in as a `Director` (`streamtok.api.services`), by `streamtok.app`. `streamtok help script`
describes the file. Read next: `streamtok.script.rules`.
"""
