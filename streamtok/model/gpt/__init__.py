"""The GPT-2 and GPT-NeoX families: another graph than the Llama line, beside it.

`streamtok.model.load` chooses between them by the folder's `config.json`.
"""
