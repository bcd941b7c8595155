"""Typed settings from one TOML file and the environment, validated, then frozen; each value remembers its origin.

A setting is looked up in the environment (``HUB__SECTION__KEY``, values in TOML syntax or plain text), then in the
configuration file, then in the defaults of ``hub.settings``; the limits' defaults stand in ``config/limits.toml`` with unit, reason
and precedent. Unknown keys are errors. Paths are relative to the configuration file.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from hub.config_rules import wrong_settings
from hub.settings import (
    BankSettings,
    Keys,
    Lfi,
    Limits,
    Listen,
    LogSettings,
    Pair,
    Settings,
    StateSettings,
    Switches,
    Tenant,
    TrustSettings,
)

__all__ = [
    "BankSettings",
    "ConfigError",
    "Keys",
    "Lfi",
    "Limits",
    "Listen",
    "Loaded",
    "LogSettings",
    "Pair",
    "Settings",
    "StateSettings",
    "Switches",
    "Tenant",
    "TrustSettings",
    "config_folder",
    "default_limits",
    "load",
]


class ConfigError(Exception):
    """Say in one line what is wrong with the configuration, where it came from, and what was expected."""


def config_folder() -> Path:
    """Return the folder of shipped configuration: ``config/`` in a checkout, ``hub/_config`` in a wheel."""
    shipped = Path(__file__).parent / "_config"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "config"


def default_limits() -> dict[str, Any]:
    """Return the shipped default of each limit by name."""
    table = tomllib.loads((config_folder() / "limits.toml").read_text())
    return {name: row["value"] for name, row in table.items()}


_SECTIONS: Final = {
    "tenant": Tenant,
    "tpp": Listen,
    "lfi": Lfi,
    "ops": Listen,
    "keys": Keys,
    "bank": BankSettings,
    "trust": TrustSettings,
    "state": StateSettings,
    "log": LogSettings,
    "switches": Switches,
    "limits": Limits,
}


class Loaded(msgspec.Struct, frozen=True):
    """Hold settings together with where each value came from (``section.key`` -> origin)."""

    settings: Settings
    origins: dict[str, str]


def load(path: Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read, merge, validate and freeze the settings.

    Args:
        path: The TOML file.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: One line that names file, key, what came and what was expected.
    """
    environ = os.environ if environ is None else environ
    raw = _read(path)
    origins = {f"{s}.{k}": str(path) for s, t in raw.items() if isinstance(t, dict) for k in t}
    _overlay(raw, environ, origins)
    limits = raw.setdefault("limits", {})
    for name, value in default_limits().items():
        if isinstance(limits, dict) and name not in limits:
            limits[name] = value
            origins[f"limits.{name}"] = "config/limits.toml"
    _absolute(raw, path.resolve().parent)
    try:
        settings = msgspec.convert(raw, Settings, strict=True, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_blamed(str(error), origins) or path}: {error}") from None
    if wrong := wrong_settings(settings):
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    return Loaded(settings, origins)


def _path(kind: type, value: object) -> object:
    if kind is not Path:
        raise NotImplementedError(kind)
    if isinstance(value, str) and value and value.isprintable():
        return Path(value)
    raise ValueError(f"Expected the path of a file or folder, got {value!r}"[:200])


def _blamed(error: str, origins: Mapping[str, str]) -> str:
    """Return the variable of the environment that an error is about; empty where it is about the file."""
    at = re.search(r"at `\$\.([a-z0-9_.]+)", error)
    unknown = re.search(r"unknown field `([^`]+)`", error)
    name = ".".join(found[1] for found in (at, unknown) if found)
    origin = origins.get(name, "")
    return origin if origin.startswith("environment ") else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); check owner and mode") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _overlay(raw: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    for name, text in environ.items():
        if not name.startswith("HUB__"):
            continue
        parts = name[5:].lower().split("__")
        if len(parts) == 1 and parts[0] == "workers":
            raw["workers"] = _toml_value(text)
            origins["workers"] = f"environment {name}"
            continue
        if len(parts) != 2 or parts[0] not in _SECTIONS:
            raise ConfigError(
                f"environment {name}: expected HUB__SECTION__KEY with a section of {', '.join(_SECTIONS)}"
            )
        table = raw.setdefault(parts[0], {})
        if isinstance(table, dict):
            table[parts[1]] = _toml_value(text)
        origins[".".join(parts)] = f"environment {name}"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _absolute(raw: dict[str, Any], base: Path) -> None:
    """Make each path absolute, relative to the configuration file."""
    for section, kind in _SECTIONS.items():
        table = raw.get(section)
        if not isinstance(table, dict):
            continue
        for name, hint in get_type_hints(kind).items():
            if Pair in _flat(hint) and isinstance(table.get(name), dict):
                _absolute_pairs(table[name], base)
            if Path not in _flat(hint) or name not in table:
                continue
            value = table[name]
            if isinstance(value, list):
                table[name] = [_joined(base, v) for v in value]
            else:
                table[name] = _joined(base, value)


def _absolute_pairs(pairs: dict[str, Any], base: Path) -> None:
    for pair in pairs.values():
        if isinstance(pair, dict):
            pair.update({k: _joined(base, v) for k, v in pair.items()})


def _joined(base: Path, value: Any) -> Any:
    return str(base / value) if value and isinstance(value, str) else value


def _flat(hint: Any) -> set[Any]:
    found = {hint}
    for part in getattr(hint, "__args__", ()):
        found |= _flat(part)
    return found
