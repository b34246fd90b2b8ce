"""What the engine's process is sent first. Imports no numpy, which the server does without."""

from msgspec import Struct

from streamtok.config import EngineConfig
from streamtok.engine.extras.grammars import Vocabulary


class Setup(Struct, frozen=True):
    """What the engine is made from; without a `vocabulary` there are no constraints."""

    config: EngineConfig
    vocabulary: Vocabulary | None
    log_level: int
