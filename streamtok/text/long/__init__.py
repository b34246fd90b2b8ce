"""Long texts: what cannot fit is known by its length, and the rest is tokenised in pieces.

Read next: `streamtok.text.long.pieces`.
"""

from streamtok.text.long.pieces import LongTexts

__all__ = ["LongTexts"]
