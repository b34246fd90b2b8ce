"""The settings of `--engine ray`, which `streamtok.settings` adds to those of `serve`."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from streamtok.config import Positive, setting

Processors = Annotated[float, Meta(ge=0, description="a number, 0 or more")]


@dataclass(frozen=True)
class RayConfig:
    """How many replicas of the engine Ray runs, and where."""

    replicas: Positive = setting(1, "replicas of the engine, with --engine ray")
    ray_address: str = setting(
        "local",
        "Ray cluster that they run in: local starts one here, auto finds the one of this machine, "
        "or its address",
    )
    ray_cpus: Processors = setting(1.0, "processors that Ray sets aside for a replica")
    ray_detached: bool = setting(
        False, "leave the replicas running when the server ends, for the next one or for others"
    )
