"""The settings of `streamtok generate` and `streamtok chat`."""

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from streamtok.config import EngineConfig, Positive, setting

Temperature = Annotated[float, Meta(ge=0, le=2, description="a number, 0 to 2")]
Seed = Annotated[int, Meta(description="a whole number")]


@dataclass(frozen=True)
class TalkConfig:
    """Which server answers, and how tokens are drawn; what is not given is the server's default."""

    url: str = setting("", "URL of a server to ask (default: the model runs in this command)")
    api_key: str = setting("", "its API key; in the variable other users cannot see it")
    max_tokens: Positive | None = setting(None, "the most tokens to generate")
    temperature: Temperature | None = setting(None, "0 takes the likeliest token always")
    seed: Seed | None = setting(None, "the same seed gives the same answer")

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields of a request that are given."""
        names = ("max_tokens", "temperature", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class _ModelConfig(EngineConfig):
    model: str = setting(
        "",
        "folder of a Hugging Face model (default: the one that is shipped); with --url, its name",
    )


@dataclass(frozen=True)
class GenerateConfig(_ModelConfig, TalkConfig):
    """What `streamtok generate` needs."""

    raw: bool = setting(False, "continue the prompt, do not chat")


@dataclass(frozen=True)
class ChatConfig(_ModelConfig, TalkConfig):
    """What `streamtok chat` needs."""

    system: str = setting("", "the system message")
