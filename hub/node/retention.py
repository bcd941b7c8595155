"""Retention of the audit log: export what is too old, declare it, forget it; of a stopped node."""

from pathlib import Path

import msgspec
import trio

from hub.audit.index import open_index
from hub.audit.log import Log
from hub.audit.note import NoteError
from hub.audit.open import open_log, origin_of
from hub.audit.prune import Plan, forget, plan
from hub.audit.receipt import export
from hub.audit.search import Selection
from hub.config import Settings
from hub.model.clock import Clock
from hub.model.fault import Fault
from hub.node.errors import StartError
from hub.node.publish import announce_key
from hub.node.reading import unreadable
from hub.state.backup import forget_events
from hub.state.keeper import Conflict
from hub.state.open import open_keeper


async def prune_log(settings: Settings, clock: Clock, target: Path) -> int:
    """Forget what ``log.retain`` says; return how many events. What a crash leaves undone, the next call does.

    Args:
        settings: Of the stopped node.
        clock: The time.
        target: A new folder for the export.

    Raises:
        StartError: The log is not published, so it cannot be pruned; the declaration or a new key could not be stored; a key or an event cannot be read.
        StoreError: The node runs, or its state cannot be written.
        LogError: The log is damaged.
        OSError: The disk does not take it.
    """
    folder = settings.state.folder
    if settings.keys.log is None:
        raise StartError("keys.log: a log that is not published cannot be pruned")
    async with open_keeper(folder, clock=clock, limits=settings.limits) as keeper:
        try:
            log = open_log(
                folder,
                origin=origin_of(settings.tenant.issuer),
                pem=settings.keys.log.read_bytes(),
                retiring=[one.read_bytes() for one in settings.log.retiring],
                keep=False,
            )
        except NoteError as error:
            raise StartError(f"keys.log or [log]: {error}") from None
        if log.new_key:
            await announce_key(settings, log, keeper, clock)
        await log.publish(keeper)
        now_ms = clock.now_ms()
        try:
            planned = await trio.to_thread.run_sync(
                plan, log.tiles, log.size, settings.log.retain, now_ms
            )
        except msgspec.MsgspecError as error:
            raise StartError(f"nothing was forgotten: {unreadable(error)}") from None
        if planned.now:
            await export(log, keeper, Selection(positions=frozenset(planned.now)), target)
            declared = await keeper.commit((), (planned.event(now_ms),))
            if not isinstance(declared, tuple):
                raise StartError(
                    f"nothing was forgotten: what is to be cannot be declared ({_why(declared)})"
                )
            await log.publish(keeper)
    if planned.all:
        await _forget(settings, log, planned)
    return len(planned.now)


async def _forget(settings: Settings, log: Log, planned: Plan) -> None:
    """Forget what is declared; what an earlier call did not come to, or what a backup brought back since, too."""
    folder, places = settings.state.folder, sorted(planned.all)
    await trio.to_thread.run_sync(forget_events, folder, planned.all)
    await trio.to_thread.run_sync(forget, log.tiles, places)
    index = open_index(folder, settings.tenant.time_zone)
    await index.drop(places)
    index.close()


def _why(refused: Conflict | Fault) -> str:
    return refused.private if isinstance(refused, Fault) else "a conflict"
