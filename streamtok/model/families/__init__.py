"""A model folder as other tools write it: families' config.json keys, rotary variants, names.

Turns a Hugging Face folder into a `ModelConfig` and a `Checkpoint` of known tensors. Computes
nothing. Plugged in by `streamtok.model.load`.
"""
