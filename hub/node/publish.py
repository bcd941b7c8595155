"""The audit log in the keeper's process: opened with the tenant's key, published, witnessed."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import apsw
import msgspec
import trio

from hub.audit.index import open_index
from hub.audit.log import Log
from hub.audit.note import NoteError
from hub.audit.open import keep_key, open_log, origin_of
from hub.audit.publish import Publisher, Witness
from hub.audit.tiles import LogError
from hub.audit.witness import read_witness
from hub.config import Settings
from hub.model.clock import Clock
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.node.build import Given
from hub.node.errors import StartError
from hub.state.keeper import Keeper
from hub.trust.web import Answer, Web

_COSIGNATURES_OCTETS: Final = 65_536
_LAST_S: Final = 5.0
_INDEX_S: Final = 30.0


@asynccontextmanager
async def publishing(given: Given) -> AsyncIterator[Given]:
    """Publish the tenant's log beside what is done in the block; the last events are published at its end.

    Raises:
        StartError: As ``publisher_of``.
        LogFailedError: The disk broke its word; in an exception group.
    """
    publisher = await publisher_of(given)
    if publisher is None:
        yield given
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        nursery.start_soon(follow_index, given)
        yield msgspec.structs.replace(given, conditions={"log": publisher.ready})
        nursery.cancel_scope.cancel()
    with trio.move_on_after(_LAST_S), suppress(OSError, LogError):
        await publisher.round()


async def follow_index(given: Given) -> None:
    """Keep the index of the log close behind it until cancelled, so that no report waits for it.

    An index that cannot be kept is noted; the log does not depend on it.
    """
    settings = given.settings
    index = None
    while True:
        try:
            if index is None:
                index = await trio.to_thread.run_sync(
                    open_index, settings.state.folder, settings.tenant.time_zone
                )
            await index.follow(given.keeper)
        except (apsw.Error, OSError, msgspec.MsgspecError) as error:
            given.observer.note("audit_index_failed", reason=type(error).__name__)
        await trio.sleep(_INDEX_S)


async def publisher_of(given: Given) -> Publisher | None:
    """Open the tenant's log for publishing; None where the tenant has no key for it.

    Raises:
        StartError: The key cannot be used, or the log is damaged; one line says which.
    """
    settings = given.settings
    if settings.keys.log is None:
        return None
    try:
        log = await trio.to_thread.run_sync(_open, given)
        witnesses = [_witness(given, line) for line in settings.log.witnesses]
    except (OSError, NoteError) as error:
        raise StartError(f"keys.log or [log]: {error}") from None
    except LogError as error:
        raise StartError(
            f"the audit log cannot be continued by this tenant.issuer and keys.log: {error}"
        ) from None
    if log.new_key:
        await announce_key(settings, log, given.keeper, given.clock)

    async def commit(event: Event) -> object:
        return await _commit(given, event)

    return Publisher(
        log,
        given.keeper,
        given.observer,
        clock=given.clock,
        commit=commit,
        witnesses=witnesses,
    )


def _open(given: Given) -> Log:
    settings = given.settings
    if settings.keys.log is None:
        raise LogError("there is no key")
    return open_log(
        settings.state.folder,
        origin=origin_of(settings.tenant.issuer),
        pem=settings.keys.log.read_bytes(),
        retiring=[path.read_bytes() for path in settings.log.retiring],
        failpoint=given.failpoint,
        keep=False,
    )


async def announce_key(settings: Settings, log: Log, keeper: Keeper, clock: Clock) -> None:
    """Make it an event that the log has a new key, then note the key; a crash in between makes it an event twice.

    Raises:
        StartError: The event could not be stored; the next start tries it again.

    Cancellation: the event may be durable and the key not noted.
    """
    event = Event(kind=Kind.KEY, time_ms=clock.now_ms(), subject=log.vkey, change="log-key")
    done = await keeper.commit((), (event,))
    if isinstance(done, Fault):
        raise StartError(f"keys.log: the new key could not be recorded: {done.private}")
    await trio.to_thread.run_sync(keep_key, settings.state.folder, log)


async def _commit(given: Given, event: Event) -> object:
    return await given.keeper.commit((), (event,))


def _witness(given: Given, line: str) -> Witness:
    url, verifier = read_witness(line)
    tls = ssl.create_default_context(cafile=given.settings.log.ca)

    async def ask(body: bytes) -> tuple[int, bytes] | None:
        async with Web(tls) as web:
            to = f"{url}/add-checkpoint"
            answer = await web.exchange("POST", to, (), body, _COSIGNATURES_OCTETS)
        return (answer.status, answer.body) if isinstance(answer, Answer) else None

    return Witness(verifier, ask)
