"""Matrix products whose bits per row do not depend on the other rows.

Not the layers that use them, which are in `streamtok.model.decoder`.
"""
