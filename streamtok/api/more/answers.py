"""The JSON that goes out of the endpoints beside the answers, as types."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from streamtok import __version__
from streamtok.api.more.sums import UsageSum
from streamtok.api.routing import State
from streamtok.ledger import UsageRecord

Item = TypeVar("Item")


class ReplicaBody(Struct):
    """A replica of the engine, and how busy it is with what this server has sent."""

    name: str
    ready: bool
    running: int
    queued: int
    tokens: int
    restarts: int
    resumed: int


class Health(Struct, omit_defaults=True):
    """The answer of `GET /health`; `replicas` are there with `--engine ray`."""

    status: State
    replicas: list[ReplicaBody] | None = None


class TokenPiece(Struct):
    """A token of `POST /tokenize`: its text, or its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class ModelBody(Struct):
    """One entry of `GET /v1/models`."""

    id: str
    created: int
    owned_by: str = "streamtok"
    object: str = "model"


class ListBody(Struct, Generic[Item]):
    """A list of objects."""

    data: list[Item]
    object: str = "list"


class EmbeddingBody(Struct):
    """A text as a point: numbers, or their 32 bits each, the least significant first, as base64."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(Struct):
    """What embeddings cost, in tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Struct):
    """The answer of `POST /v1/embeddings`."""

    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


class Tokens(Struct):
    """The answer of `POST /tokenize`."""

    tokens: list[int | TokenPiece]
    count: int


class Detokenized(Struct):
    """The answer of `POST /detokenize`."""

    content: str


class Prompt(Struct):
    """The answer of `POST /apply-template`."""

    prompt: str


class GenerationSettings(Struct):
    """The context, in tokens, and the sampling parameters of who names none."""

    n_ctx: int
    params: Mapping[str, float]


class Props(Struct):
    """The answer of `GET /props`."""

    default_generation_settings: GenerationSettings
    total_slots: int
    model_alias: str
    chat_template: str
    bos_token: str
    eos_token: str
    faults: bool
    build_info: str = f"streamtok/{__version__}"


class UsageRecordBody(UsageRecord, frozen=True, kw_only=True, tag="usage", tag_field="object"):
    """What one request cost: tokens, and seconds since 1970 or of its duration."""

    total_tokens: int


class UsageSumBody(UsageSum, frozen=True, kw_only=True, tag="usage.sum", tag_field="object"):
    """What the requests of one group cost, and what they were grouped by."""

    group_by: str | None


class ModelList(ListBody[ModelBody]):
    """The answer of `GET /v1/models`."""


class UsageSums(ListBody[UsageSumBody]):
    """The answer of `GET /v1/usage`."""
