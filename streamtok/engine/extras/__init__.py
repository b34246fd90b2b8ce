"""Beyond plain sampling: grammars, drafts, log-probabilities, embeddings.

Not what every token passes through: that is `streamtok.engine.core` and what it imports, which
never imports this package. `all_extras` is handed to the engine by `streamtok.app` and by
`streamtok.engine.remote.child`. `backlog` plugs into `streamtok.engine.client` in the same way, in
a server that has no numpy: so this module imports none either.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamtok.engine.core import EngineExtras
    from streamtok.engine.extras.grammars import Grammars

__all__ = ["all_extras"]


def all_extras(grammars: "Grammars | None" = None) -> "EngineExtras":
    """Return everything an engine can do beyond plain sampling; constraints need `grammars`."""
    from streamtok.engine.core import EngineExtras
    from streamtok.engine.extras.drafts import PromptLookup
    from streamtok.engine.extras.embeddings import pool
    from streamtok.engine.extras.kv_sizing import count_slots
    from streamtok.engine.extras.logprobs import logprobs, score
    from streamtok.engine.extras.pace import paced

    return EngineExtras(
        count_slots=count_slots,
        pace=paced,
        drafter=PromptLookup,
        start_guide=grammars.start if grammars else None,
        logprobs=logprobs,
        prompt_logprobs=score,
        pool=pool,
    )
