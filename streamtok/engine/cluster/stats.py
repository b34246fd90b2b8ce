"""What a server knows of one of its replicas, for `/health` and `/metrics`."""

from streamtok.messages import EngineStats


class ReplicaStats(EngineStats, frozen=True):
    """How busy a replica is with what this server has sent, and where it runs.

    `ready` says that new requests may go there; it has sampled `tokens`.
    """

    name: str = ""
    place: str = ""
    ready: bool = True
    tokens: int = 0
