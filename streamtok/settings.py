"""Settings read from flags and from the environment.

A flag wins over the variable, the variable over the default. msgspec converts and checks them by
their types. This is the only module that reads the environment.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from streamtok.config import (
    Bytes,
    ServeConfig,
)
from streamtok.errors import ConfigError

Config = TypeVar("Config")
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
EXCLUSIVE = (("uds", "host"), ("uds", "port"), ("uds", "fd"), ("fd", "host"), ("fd", "port"))
NEED_RAY = ("replicas", "ray_address", "ray_cpus", "ray_detached")  # mean nothing without it
BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false", "": "false"}


def flag_name(field: Field[Any]) -> str:
    """Return the flag of a field: underscores as hyphens, without the unit of time."""
    return "--" + field.name.removesuffix("_s").replace("_", "-")


def variable_name(field: Field[Any]) -> str:
    """Return the environment variable of a field."""
    return "STREAMTOK_" + flag_name(field)[2:].replace("-", "_").upper()


def choices(kind: type[Any], name: str) -> tuple[str, ...]:
    """Return the values that the field `name` of `kind` may have; empty if it is no choice."""
    declared = get_type_hints(kind, include_extras=True)[name]
    return get_args(declared) if get_origin(declared) is Literal else ()


def secret(variable: str) -> str:
    """Return what the environment variable holds; nothing if none is named.

    Raises:
        ConfigError: it is not set.
    """
    if variable and variable not in os.environ:
        raise ConfigError(f"the environment variable {variable} is not set")
    return os.environ[variable] if variable else ""


def span_exporter() -> str:
    """Return the exporter of spans that OpenTelemetry's own variables ask for; none, if none do."""
    given = os.environ.get
    ends = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(map(given, ends)) else ""
    name = given("OTEL_TRACES_EXPORTER") or default
    is_off = name == "none" or given("OTEL_SDK_DISABLED", "").lower() == "true"
    return "" if is_off else name


def read(kind: type[Config], given: Mapping[str, str | None]) -> Config:
    """Return a config of type `kind` from the flags `given` (by field name), the environment, and
    the defaults.

    Raises:
        ConfigError: a value cannot be read, is out of range, or excludes another; names its flag or
            variable.
    """
    values = {}
    types = get_type_hints(kind, include_extras=True)
    named: dict[str, str] = {}  # field -> flag or variable it came from
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass
        sources = (
            (flag_name(field), given.get(field.name)),
            (variable_name(field), os.environ.get(variable_name(field))),
        )
        for source, text in sources:
            if text is not None:
                values[field.name] = _convert(text, types[field.name], source)
                if text:
                    named[field.name] = source
                break
    _check_exclusive(named)
    config = kind(**values)
    if isinstance(config, ServeConfig):
        _check_ray(config, named)
    return config


def _check_exclusive(named: Mapping[str, str]) -> None:
    """Refuse settings that exclude each other."""
    for one, other in EXCLUSIVE:
        if one in named and other in named:
            raise ConfigError(f"{named[one]} and {named[other]} exclude each other")


def _check_ray(config: ServeConfig, named: Mapping[str, str]) -> None:
    """Refuse settings of replicas where there are none, or could not be shared."""
    if config.engine == "ray":
        from streamtok.engine.cluster.lifetime import check_lifetime

        check_lifetime(config)
        return
    for field in NEED_RAY:
        if field in named:
            raise ConfigError(f"{named[field]} needs --engine ray")


def _convert(text: str, kind: Any, source: str) -> Any:
    """Return `text` as a value of type `kind`.

    Raises:
        ConfigError: it is none; names the `source`.
    """
    if kind is bool:
        text = BOOLEANS.get(text.lower(), text)
    if NoneType in get_args(kind):  # what is given is not None, not even "null"
        kind = get_args(kind)[0]
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_size)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: expected {_expected(kind)}, found {text!r}") from error


def _expected(kind: Any) -> str:
    """Return what a value of type `kind` is, in words."""
    if kind is bool:
        return "true or false"
    if kind is Bytes:
        return "bytes, such as 512MiB or 2GiB"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    (meta,) = kind.__metadata__
    return str(meta.description)


def _size(_: type[Any], text: str) -> Bytes:
    """Return a number of bytes: `text` is a whole number with a unit behind it, or none.

    Raises:
        ValueError: it is not; msgspec makes it a ValidationError.
    """
    match = re.fullmatch(r"([0-9]+) ?([A-Za-z]*)", text)
    if not match or match[2] not in UNITS:
        raise ValueError(text)
    return Bytes(int(match[1]) * UNITS[match[2]])
