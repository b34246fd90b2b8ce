"""Long prompts at the speed of large matrix products, to the bits of small ones.

A room: without it prompts are computed by the heart's small products. `streamtok.model.load` plugs
it in.
"""
