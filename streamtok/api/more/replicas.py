"""What `/health` and `/metrics` say of the replicas of the engine."""

from streamtok.api.more.answers import ReplicaBody
from streamtok.messages import EngineStats

GAUGES = {
    "ready": "Whether new requests may go to the replica.",
    "running": "Sequences that the replica generates for this server.",
    "queued": "Sequences of this server that wait in the replica.",
}
COUNTERS = {
    "tokens": "Tokens that the replica has sampled for this server.",
    "restarts": "Times that the replica was lost.",
    "resumed": "Sequences that the replica has continued for another one.",
}


def replica_bodies(stats: EngineStats) -> list[ReplicaBody]:
    """Return what `/health` says of each replica."""
    names = ("name", *GAUGES, *COUNTERS)
    return [
        ReplicaBody(**{name: getattr(replica, name) for name in names})
        for replica in stats.replicas  # each is a `streamtok.engine.cluster.stats.ReplicaStats`
    ]
