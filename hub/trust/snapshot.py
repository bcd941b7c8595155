"""The last good snapshot, kept as small records, so that a change of one client is one small write.

``trust/index`` holds all organisations, ``trust/client/ID`` what the framework says of one client, ``trust/dates`` when
each of them was last confirmed, and the revocation list. A restart during an outage of the framework begins with these,
as old as they are.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from hub.model.event import Event
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.state.keeper import Change, Conflict, Keeper, Put
from hub.trust.mirror import Client, Index, Organisation, Revoked

INDEX: Final = "trust/index"
DATES: Final = "trust/dates"
CLIENT: Final = "trust/client/"


class Dates(msgspec.Struct, frozen=True, kw_only=True):
    """Hold when each part was last confirmed (seconds), and the revocation list."""

    index: int = 0
    clients: dict[str, int] = {}
    revoked: Revoked = Revoked()


class StoredClient(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one client; None where the framework said that it does not know it."""

    client: Client | None = None


def encode_index(index: Index) -> Setting:
    """Return the record of all organisations."""
    value = msgspec.msgpack.encode(list(index.organisations.values()))
    return Setting(name=INDEX, value=value)


def encode_client(client_id: str, client: Client | None) -> Setting:
    """Return the record of one client."""
    value = msgspec.msgpack.encode(StoredClient(client=client))
    return Setting(name=CLIENT + client_id, value=value)


def encode_dates(dates: Dates) -> Setting:
    """Return the record of the dates."""
    return Setting(name=DATES, value=msgspec.msgpack.encode(dates))


async def load_dates(keeper: Keeper) -> Dates:
    """Read the dates; empty ones where nothing was kept."""
    found = await keeper.lookup(Setting, DATES)
    return Dates() if found is None else msgspec.msgpack.decode(found[0].value, type=Dates)


async def load_index(keeper: Keeper, fetched: int) -> Index:
    """Read all organisations."""
    found = await keeper.lookup(Setting, INDEX)
    if found is None:
        return Index()
    rows = msgspec.msgpack.decode(found[0].value, type=list[Organisation])
    return Index(organisations={row.id: row for row in rows}, fetched=fetched)


async def load_client(keeper: Keeper, client_id: str, fetched: int) -> StoredClient | None:
    """Read one client; None where it was never kept."""
    found = await keeper.lookup(Setting, CLIENT + client_id)
    if found is None:
        return None
    stored = msgspec.msgpack.decode(found[0].value, type=StoredClient)
    if stored.client is None or not fetched:
        return stored
    return StoredClient(client=msgspec.structs.replace(stored.client, fetched=fetched))


async def keep(keeper: Keeper, settings: Iterable[Setting], event: Event) -> bool:
    """Write records whole with their event; tell whether they are durable."""
    changes: list[Change] = [Put(setting) for setting in settings]
    done = await keeper.commit(changes, [event])
    return not isinstance(done, Conflict | Fault)
