"""How many examples a property test tries: few in the default suite, many in `.ci/run explore`."""

import os

from hypothesis import settings

TIMES = 25 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 1


def examples(count: int, **others: int | list[object] | None) -> settings:
    """Return settings for `count` examples in the default suite, and for many times that at night.

    An explicit `max_examples` would overrule that of the profile.
    """
    return settings(max_examples=count * TIMES, **others)  # type: ignore[arg-type]
