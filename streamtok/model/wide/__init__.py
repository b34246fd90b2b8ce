"""Long prompts and many streams: large matrix products and all threads, to the bits of small ones.

A room: without it all is computed by the heart's small products. `streamtok.model.load` plugs it
in.
"""
