"""Retention of the audit log: export what is too old, declare it, forget it; of a stopped node."""

from pathlib import Path

import trio

from hub.audit.index import open_index
from hub.audit.open import open_log, origin_of
from hub.audit.prune import forget, plan
from hub.audit.receipt import export
from hub.audit.search import Selection
from hub.config import Settings
from hub.model.clock import Clock
from hub.node.errors import StartError
from hub.state.backup import forget_events
from hub.state.open import open_keeper


async def prune_log(settings: Settings, clock: Clock, target: Path) -> int:
    """Forget what ``log.retain`` says; return how many events. What a crash leaves undone, the next call does.

    Args:
        settings: Of the stopped node.
        clock: The time.
        target: A new folder for the export.

    Raises:
        StartError: The log is not published, so it cannot be pruned.
        StoreError: The node runs, or its state cannot be written.
        LogError: The log is damaged.
        OSError: The disk does not take it.
    """
    folder = settings.state.folder
    if settings.keys.log is None:
        raise StartError("keys.log: a log that is not published cannot be pruned")
    async with open_keeper(folder, clock=clock, limits=settings.limits) as keeper:
        log = open_log(
            folder,
            origin=origin_of(settings.tenant.issuer),
            pem=settings.keys.log.read_bytes(),
            retiring=[one.read_bytes() for one in settings.log.retiring],
        )
        await log.publish(keeper)
        now_ms = clock.now_ms()
        planned = await trio.to_thread.run_sync(
            plan, log.tiles, log.size, settings.log.retain, now_ms
        )
        if not planned.now:
            return 0
        await export(log, keeper, Selection(positions=frozenset(planned.now)), target)
        await keeper.commit((), (planned.event(now_ms),))
        await log.publish(keeper)
    await trio.to_thread.run_sync(forget_events, folder, planned.now)
    await trio.to_thread.run_sync(forget, log.tiles, sorted(planned.now))
    index = open_index(folder, settings.tenant.time_zone)
    await index.drop(sorted(planned.now))
    index.close()
    return len(planned.now)
