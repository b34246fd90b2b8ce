"""The settings of `streamtok learn`."""

from dataclasses import dataclass

from platformdirs import user_state_path

from streamtok.config import Port, setting


@dataclass(frozen=True)
class LearnConfig:
    """What `streamtok learn` needs."""

    plain: bool = setting(False, "print all lessons with their answers: no questions, no colour")
    progress: str = setting(
        str(user_state_path("streamtok", appauthor=False) / "lessons"),
        "file of the lessons that are done",
    )


@dataclass(frozen=True)
class ClassConfig:
    """What `streamtok learn --class` needs."""

    model: str = setting(
        "", "of --class: folder of a Hugging Face model (default: the shipped one)"
    )
    host: str = setting("0.0.0.0", "of --class: address to listen on, 0.0.0.0: all of the network")
    port: Port = setting(8000, "of --class: port to listen on; 0 lets the system choose")
    ledger: str = setting(":memory:", "of --class: file of the usage ledger")
