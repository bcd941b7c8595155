"""The last good snapshot, kept as small sealed records, so that a change of one party is one small write.

``trust/index/XX`` holds the organisations of one of 256 buckets, ``trust/client/ID`` what the framework says of one
client, ``trust/seen/SERIAL`` a certificate that a worker has met, ``trust/met`` the serial numbers of those,
``trust/revoked`` the revocation list, and ``trust/dates`` when each part was last confirmed and what OCSP says is revoked.
Buckets are what makes a list of ten thousand organisations cheap: one that changed is one bucket written, and one bucket
read by each worker. The dates are written in every round, so they are small however much is known.
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
MET: Final = "trust/met"
REVOKED: Final = "trust/revoked"
PUSHED: Final = "trust/pushed"
"""The last notification of the framework, which asks the process that refreshes to look anew."""
BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))


class Dates(msgspec.Struct, frozen=True, kw_only=True):
    """Hold when each part was last confirmed (seconds), and the certificates that OCSP says are revoked.

    Attributes:
        index: The organisations.
        clients: All clients but the late ones.
        late: Clients whose date is another.
        revoked: The revocation list.
        ocsp: Answers by serial number.
        failed: The last failed look at anything.
    """

    index: int = 0
    clients: int = 0
    late: dict[str, int] = {}
    revoked: int = 0
    ocsp: dict[str, OcspAnswer] = {}
    failed: int = 0


class StoredClient(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one client; None where the framework said that it does not know it."""

    client: Client | None = None


_ROWS: Final = msgspec.msgpack.Decoder(list[Organisation])
_MET: Final = msgspec.msgpack.Decoder(tuple[str, ...])


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


def encode_revoked(seal: Seal, revoked: Revoked) -> Setting:
    """Return the record of the revocation list; its date is kept with all the others'."""
    undated = msgspec.structs.replace(revoked, fetched=0)
    return _sealed(seal, REVOKED, msgspec.msgpack.encode(undated))


def encode_met(seal: Seal, serials: Iterable[str]) -> Setting:
    """Return the record of which certificates were met."""
    return _sealed(seal, MET, msgspec.msgpack.encode(tuple(serials)))


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
    try:
        return Dates() if content is None else msgspec.msgpack.decode(content, type=Dates)
    except msgspec.ValidationError:
        return Dates()  # kept by an older version: as if never confirmed


async def load_revoked(keeper: Keeper, seal: Seal) -> Revoked:
    """Read the revocation list, undated; an empty one where none was kept."""
    content = await load(keeper, seal, REVOKED)
    return Revoked() if content is None else msgspec.msgpack.decode(content, type=Revoked)


async def load_met(keeper: Keeper, seal: Seal) -> tuple[str, ...]:
    """Read the serial numbers of the certificates that were met."""
    content = await load(keeper, seal, MET)
    return () if content is None else _MET.decode(content)


async def load_client(keeper: Keeper, seal: Seal, client_id: str) -> StoredClient | None:
    """Read one client; None where it was never kept."""
    content = await load(keeper, seal, CLIENT + client_id)
    return None if content is None else msgspec.msgpack.decode(content, type=StoredClient)


async def keep(keeper: Keeper, changes: Sequence[Change], event: Event) -> bool:
    """Write records whole with their event; tell whether they are durable."""
    done = await keeper.commit(changes, [event])
    return not isinstance(done, Conflict | Fault)


def puts(settings: Iterable[Setting]) -> list[Change]:
    """Return the changes that write these records whatever was there."""
    return [Put(setting) for setting in settings]
