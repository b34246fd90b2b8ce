"""The settings of `--engine ray`, which `streamtok.settings` adds to those of `serve`."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from streamtok.config import Positive, setting
from streamtok.errors import ConfigError

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

    def check_lifetime(self, processes: int) -> None:
        """Check that the cluster outlives what is to share it: so many server's processes.

        Raises:
            ConfigError: it does not, as it is one that a process starts for itself.
        """
        if self.ray_address != "local":
            return
        hint = "give --ray-address auto or HOST:PORT, of a cluster that ray start has started"
        if self.ray_detached:
            raise ConfigError(
                f"--ray-detached: with --ray-address local the replicas end with the server; {hint}"
            )
        if processes > 1:
            raise ConfigError(
                "--workers: with --engine ray and --ray-address local each would start a cluster "
                f"of its own; {hint}"
            )
