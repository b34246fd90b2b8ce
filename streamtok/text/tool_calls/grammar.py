"""What a text with calls must be, as a grammar in llguidance's Lark.

It is free text, or text that is to have a form, up to the first tag, if calls are not required; and
from the tag on, calls of the functions there are, with arguments as each describes them. Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

from streamtok.text.tool_calls.forms import CallForm


def calls_grammar(
    form: CallForm,
    schemas: Mapping[str, Mapping[str, Any]],
    *,
    most: int,
    required: bool = False,
    answer: str | None = None,
) -> str:
    """Return the grammar of a text with at most `most` calls of functions with these parameters.

    A text that may be without calls is then an `answer`, a schema as JSON text, if there is one.
    """
    tag = form.tag
    if required:
        start = f"start: /{tag}/ calls"
    elif answer is not None:
        start = f"start: answer | /{tag}/ calls\nanswer: %json {answer}"
    else:
        # The end of a text may not come within a tag, so that no half of one is content.
        halves = "|".join(re.escape(tag[:length]) for length in range(1, len(tag)))
        start = (
            "start: TEXT | tagged calls\n"
            f"tagged[lazy]: /(?s:.*){tag}/\n"
            f"TEXT: /(?s:.*)/ & ~/(?s:.*){tag}(?s:.*)/ & ~/(?s:.*)({halves})/"
        )
    return "\n".join((start, *form.rules(schemas, most)))
