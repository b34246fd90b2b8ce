"""Which servers may use replicas that end with the process that started them."""

from streamtok.config import ServeConfig
from streamtok.errors import ConfigError


def check_lifetime(config: ServeConfig) -> None:
    """Check that the Ray cluster outlives what is to share it.

    Raises:
        ConfigError: it does not, as it is one that a process starts for itself.
    """
    if config.ray_address != "local":
        return
    hint = "give --ray-address auto or HOST:PORT, of a cluster that ray start has started"
    if config.ray_detached:
        raise ConfigError(
            f"--ray-detached: with --ray-address local the replicas end with the server; {hint}"
        )
    if config.workers > 1:
        raise ConfigError(
            "--workers: with --engine ray and --ray-address local each would start a cluster "
            f"of its own; {hint}"
        )
