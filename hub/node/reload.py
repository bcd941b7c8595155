"""A new configuration for a running node: read, judged, and handed on whole, or refused and told.

What a running process cannot change (ports, its folder, the number of workers) keeps its value and is named. What
would make it another Hub (provider, environment) is refused. Names of settings are told, never their values.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, final

import msgspec
import trio

from hub.config import ConfigError, Loaded, Settings
from hub.model.event import Event, Kind, Verdict
from hub.node.build import Given
from hub.node.check import check_files
from hub.node.errors import StartError

IDENTITY: Final = ("tenant.provider_id", "tenant.environment")
"""A node with another one of these is another node."""
FIXED: Final = (
    "workers",
    "tpp.bind",
    "tpp.port",
    "lfi.bind",
    "lfi.port",
    "ops.bind",
    "ops.port",
    "state.folder",
    "state.socket",
    "keys.log",
    "log.retiring",
    "log.witnesses",
    "log.ca",
    "limits.replay_entries",
    "limits.commit_queue",
    "limits.buckets",
    "limits.reserve_octets",
)
"""Settings that hold until the next start."""

Reader = Callable[[], Loaded]


@final
class Reloads:
    """Ask for a reload; several that are asked for at once are one."""

    __slots__ = ("_asked", "_heard")

    def __init__(self) -> None:
        """Nothing asked for."""
        self._asked, self._heard = trio.open_memory_channel[None](1)

    def ask(self) -> None:
        """Ask for one; never waits."""
        with suppress(trio.WouldBlock):
            self._asked.send_nowait(None)

    async def wait(self) -> None:
        """Wait until one is asked for. Cancellation: nothing is lost."""
        await self._heard.receive()


async def read_again(read: Reader, given: Given) -> Settings | None:
    """Read the configuration; return the settings to take over, None where nothing changed or it is no good.

    What was found is told: as a note with the reason, and as an event with names only.

    Cancellation: nothing happens.
    """
    try:
        loaded = await trio.to_thread.run_sync(_read, read)
        settings, changed, kept = judge(loaded.settings, given.settings)
    except (ConfigError, StartError) as error:
        await tell(given, "configuration_kept", "configuration.invalid", (), why=str(error))
        return None
    if kept:
        given.observer.note("configuration_needs_restart", settings=",".join(kept))
    if not changed:
        given.observer.note("configuration_same")
        return None
    return settings


def _read(read: Reader) -> Loaded:
    loaded = read()
    check_files(loaded.settings)
    return loaded


def judge(found: Settings, present: Settings) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
    """Return the settings to take over, the names of what changes, and of what waits for the next start.

    Raises:
        ConfigError: It belongs to another node.
    """
    for name in IDENTITY:
        if _value(found, name) != _value(present, name):
            raise ConfigError(f"{name}: cannot change in a running node; stop it and start it anew")
    kept = tuple(name for name in FIXED if _value(found, name) != _value(present, name))
    for name in kept:
        found = _with(found, name, _value(present, name))
    return found, differences(found, present), kept


def differences(one: Settings, other: Settings) -> tuple[str, ...]:
    """Return the names of the settings in which two differ."""
    names: list[str] = []
    for section in Settings.__struct_fields__:
        a, b = getattr(one, section), getattr(other, section)
        fields = getattr(a, "__struct_fields__", None)
        if fields is None:
            names += [section] if a != b else []
        else:
            names += [f"{section}.{f}" for f in fields if getattr(a, f) != getattr(b, f)]
    return tuple(names)


def _value(settings: Settings, name: str) -> Any:
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _with(settings: Settings, name: str, value: Any) -> Settings:
    section, _, field = name.partition(".")
    if field:
        value = msgspec.structs.replace(getattr(settings, section), **{field: value})
    return msgspec.structs.replace(settings, **{section: value})


async def tell(
    given: Given, note: str, check: str, changed: tuple[str, ...], why: str = ""
) -> None:
    """Say what became of a reload: a note, and an event that names what changed.

    Cancellation: the event may or may not be written.
    """
    given.observer.note(note, changed=",".join(changed), **({"why": why} if why else {}))
    event = Event(
        kind=Kind.CONFIGURATION,
        time_ms=given.clock.now_ms(),
        verdict=Verdict.REFUSED if check else Verdict.ALLOWED,
        check=check,
        subject=",".join(changed)[:500],
        change="reload",
    )
    await given.keeper.commit((), (event,))
