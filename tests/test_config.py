"""Settings: flag over variable over default, and errors that name where a value came from."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from streamtok.config import EngineConfig, ServeConfig, default_model
from streamtok.errors import ConfigError
from streamtok.settings import (
    NEED_RAY,
    choices,
    flag_name,
    read,
    variable_name,
)
from streamtok.terminal.config import GenerateConfig

SETTINGS = {setting.name: setting for setting in fields(ServeConfig)}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("STREAMTOK_"):
            monkeypatch.delenv(name)


def test_without_flags_and_variables_the_defaults_hold() -> None:
    assert read(ServeConfig, {}) == ServeConfig()
    assert read(EngineConfig, {}) == EngineConfig()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_flags_win_over_variables_and_variables_over_defaults(
    setting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[type, tuple[str, str]] = {bool: ("true", "no"), float: ("2.5", "3.5")}
    texts = values.get(type(setting.default), ("2048", "4096"))
    if words := choices(ServeConfig, setting.name):
        texts = (words[0], words[-1])
    with_ray = {"engine": "ray", "ray_address": "auto"} if setting.name in NEED_RAY else {}

    def read_with(given: dict[str, str | None]) -> Any:
        return getattr(read(ServeConfig, with_ray | given), setting.name)

    parsed = [read_with({setting.name: text}) for text in texts]
    assert len({*parsed, setting.default}) >= 2
    assert {type(value) for value in parsed} == {type(setting.default)}
    monkeypatch.setenv(variable_name(setting), texts[0])
    with_ray.pop(setting.name, None)
    assert read_with({}) == read_with({setting.name: None}) == parsed[0]
    assert read_with({setting.name: texts[1]}) == parsed[1]


def test_names_come_from_the_field() -> None:
    setting = SETTINGS["drain_timeout_s"]
    assert flag_name(setting) == "--drain-timeout"
    assert variable_name(setting) == "STREAMTOK_DRAIN_TIMEOUT"
    assert len({flag_name(s) for s in SETTINGS.values()}) == len(SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "http", "a whole number, 0 to 65535"),
        ("port", "80.5", "a whole number, 0 to 65535"),
        ("port", "", "a whole number, 0 to 65535"),
        ("port", "-1", "a whole number, 0 to 65535"),
        ("port", "65536", "a whole number, 0 to 65535"),
        ("max_streams", "0", "a whole number, 1 or more"),
        ("max_queue", "-1", "a whole number, 0 or more"),
        ("step_tokens", "0", "a whole number, 1 or more"),
        ("kv_memory", "-1", "bytes, such as 512MiB or 2GiB"),
        ("kv_memory", "1.5GiB", "bytes, such as 512MiB or 2GiB"),
        ("kv_memory", "2GB", "bytes, such as 512MiB or 2GiB"),
        ("kv_memory", "", "bytes, such as 512MiB or 2GiB"),
        ("max_body_bytes", "0", "a whole number, 1 or more"),
        ("max_header_bytes", "1023", "a whole number, 1024 or more"),
        ("drain_timeout_s", "soon", "a number, 0 or more"),
        ("drain_timeout_s", "-0.1", "a number, 0 or more"),
        ("drain_timeout_s", "nan", "a number, 0 or more"),
        ("close_after_stream", "maybe", "true or false"),
        ("log_level", "loud", "one of debug, info, warning, error"),
    ],
)
def test_errors_name_the_flag_or_the_variable(
    name: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = SETTINGS[name]
    with pytest.raises(ConfigError, match=f"^{flag_name(setting)}: expected {expected}, found"):
        read(ServeConfig, {name: text})
    monkeypatch.setenv(variable_name(setting), text)
    with pytest.raises(ConfigError, match=f"^{variable_name(setting)}: expected {expected}, found"):
        read(ServeConfig, {})


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed"])
def test_what_may_be_left_out_is_checked_where_it_is_given(name: str) -> None:
    assert read(GenerateConfig, {name: "1"}) == GenerateConfig(**{name: 1})
    for text in ("null", "x", ""):
        with pytest.raises(ConfigError, match=r"expected a (whole )?number"):
            read(GenerateConfig, {name: text})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", "65535", 65535),
        ("max_queue", "0", 0),
        ("max_streams", "1", 1),
        ("max_header_bytes", "1024", 1024),
        ("drain_timeout_s", "0", 0.0),
        ("kv_memory", "0", 0),
        ("kv_memory", "1000", 1000),
        ("kv_memory", "64KiB", 2**16),
        ("kv_memory", "512 MiB", 2**29),
        ("kv_memory", "2GiB", 2**31),
    ],
)
def test_the_limits_are_in_range(name: str, text: str, value: float) -> None:
    assert getattr(read(ServeConfig, {name: text}), name) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "true", "TRUE", "yes", "on")),
        *((text, False) for text in ("0", "false", "False", "no", "off", "")),
    ],
)
def test_booleans_have_their_usual_names(
    text: str, value: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMTOK_CLOSE_AFTER_STREAM", text)
    assert read(ServeConfig, {}).close_after_stream is value


def test_a_wrong_variable_does_not_matter_where_the_flag_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMTOK_PORT", "http")
    assert read(ServeConfig, {"port": "1"}).port == 1


def test_commands_without_a_server_ignore_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMTOK_PORT", "http")
    assert read(EngineConfig, {"raw": "x", "max_streams": "3"}) == EngineConfig(max_streams=3)


def test_the_model_is_the_shipped_one_unless_another_is_named() -> None:
    assert EngineConfig().model_folder == Path(default_model())
    assert EngineConfig(model="other").model_folder == Path("other")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"replicas": "2"}, "--replicas needs --engine ray"),
        ({"ray_address": "auto", "engine": "thread"}, "--ray-address needs --engine ray"),
        ({"ray_detached": "true"}, "--ray-detached needs --engine ray"),
        ({"engine": "ray", "ray_detached": "true"}, "--ray-detached: with --ray-address local"),
        ({"engine": "ray", "workers": "2"}, "--workers: with --engine ray and --ray-address local"),
    ],
)
def test_replicas_that_could_not_be_are_refused(flags: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}"):
        read(ServeConfig, flags)


def test_workers_may_share_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMTOK_ENGINE", "ray")
    given = {"workers": "2", "ray_address": "auto", "ray_detached": "true"}
    assert read(ServeConfig, given).workers == 2
