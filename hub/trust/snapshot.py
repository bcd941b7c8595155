"""The last good snapshot, kept as small sealed records, so that a change of one party is one small write.

``trust/index/XX`` holds the organisations of one of 256 buckets, ``trust/client/ID`` what the framework says of one
client, ``trust/seen/SERIAL`` a certificate that a worker has met, and ``trust/dates`` when each part was last confirmed,
the revocation list and what OCSP has said. Buckets are what makes a list of ten thousand organisations cheap: one that
changed is one bucket written, and one bucket read by each worker.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hub.model.event import Event
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.state.keeper import Change, Conflict, Keeper, Put
from hub.trust.mirror import Client, Organisation, Revoked
from hub.trust.revocation import OcspAnswer
from hub.trust.seal import Seal

INDEX: Final = "trust/index/"
DATES: Final = "trust/dates"
CLIENT: Final = "trust/client/"
SEEN: Final = "trust/seen/"
BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))


class Dates(msgspec.Struct, frozen=True, kw_only=True):
    """Hold when each part was last confirmed (seconds), the revocation list, OCSP's answers and certificates met, by serial number."""

    index: int = 0
    clients: dict[str, int] = {}
    revoked: Revoked = Revoked()
    ocsp: dict[str, OcspAnswer] = {}
    seen: tuple[str, ...] = ()
    failed: int = 0


class StoredClient(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one client; None where the framework said that it does not know it."""

    client: Client | None = None


_ROWS: Final = msgspec.msgpack.Decoder(list[Organisation])


def bucket_of(organisation_id: str) -> str:
    """Return the bucket that an organisation is kept in."""
    return BUCKETS[zlib.crc32(organisation_id.encode()) & 0xFF]


def in_buckets(organisations: Iterable[Organisation]) -> dict[str, bytes]:
    """Return the content of every bucket, empty ones too, each in the order of the ids."""
    rows: dict[str, list[Organisation]] = {bucket: [] for bucket in BUCKETS}
    for organisation in organisations:
        rows[bucket_of(organisation.id)].append(organisation)
    return {
        bucket: msgspec.msgpack.encode(sorted(held, key=lambda o: o.id))
        for bucket, held in rows.items()
    }


def read_bucket(content: bytes) -> list[Organisation]:
    """Return the organisations of one bucket."""
    return _ROWS.decode(content)


def encode_bucket(seal: Seal, bucket: str, content: bytes) -> Setting:
    """Return the record of one bucket."""
    return _sealed(seal, INDEX + bucket, content)


def encode_client(seal: Seal, client_id: str, client: Client | None) -> Setting:
    """Return the record of one client."""
    return _sealed(seal, CLIENT + client_id, msgspec.msgpack.encode(StoredClient(client=client)))


def encode_dates(seal: Seal, dates: Dates) -> Setting:
    """Return the record of the dates."""
    return _sealed(seal, DATES, msgspec.msgpack.encode(dates))


def encode_seen(seal: Seal, serial: str, certificate: bytes) -> Setting:
    """Return the record of a certificate that was met."""
    return _sealed(seal, SEEN + serial, certificate)


def _sealed(seal: Seal, name: str, value: bytes) -> Setting:
    return Setting(name=name, value=seal.close(name, value))


async def load(keeper: Keeper, seal: Seal, name: str) -> bytes | None:
    """Read one record's content; None where it was never kept or its seal does not hold."""
    found = await keeper.lookup(Setting, name)
    return None if found is None else seal.open(name, found[0].value)


async def load_dates(keeper: Keeper, seal: Seal) -> Dates:
    """Read the dates; empty ones where nothing was kept."""
    content = await load(keeper, seal, DATES)
    return Dates() if content is None else msgspec.msgpack.decode(content, type=Dates)


async def load_client(
    keeper: Keeper, seal: Seal, client_id: str, fetched: int
) -> StoredClient | None:
    """Read one client; None where it was never kept."""
    content = await load(keeper, seal, CLIENT + client_id)
    if content is None:
        return None
    stored = msgspec.msgpack.decode(content, type=StoredClient)
    if stored.client is None or not fetched:
        return stored
    return StoredClient(client=msgspec.structs.replace(stored.client, fetched=fetched))


async def keep(keeper: Keeper, changes: Sequence[Change], event: Event) -> bool:
    """Write records whole with their event; tell whether they are durable."""
    done = await keeper.commit(changes, [event])
    return not isinstance(done, Conflict | Fault)


def puts(settings: Iterable[Setting]) -> list[Change]:
    """Return the changes that write these records whatever was there."""
    return [Put(setting) for setting in settings]
