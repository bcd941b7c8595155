"""An index of the log, derived from it: for searching and for reports; it may be thrown away and made again.

It is a SQLite file of its own, ``audit/index.db``: one narrow row per event (names are numbers), sums per day, route,
client and status with histograms of Hub time and bank time apart, and the spans in which a route did not answer.
``follow`` reads what the log has beyond it. Nothing here is proof of anything; the log is. Several processes have it open;
what is damaged, or was made of a log that the database no longer has (it was restored), is made anew by whoever follows next.

A route is down for a party (the bank or the Hub) from the second of a call that failed for that party's reason until
the second of the next call that did not; a lone failure costs its second. So every 5xx counts, planned or not, and a
partial outage counts for its route.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, final
from zoneinfo import ZoneInfo

import apsw
import msgspec
import trio

from hub.audit.histogram import Histogram
from hub.audit.search import PRUNED, Selection, event_of, hash_of
from hub.audit.source import Events
from hub.model.event import Event, Kind

FILE: Final = "audit/index.db"
_TRIES: Final = 500
_PAUSE_S: Final = 0.02
"""Ten seconds in all, as for any other lock of the index."""
_VERSION: Final = 3
_BATCH: Final = 1000
_GROUP: Final = 8
"""Batches per transaction, whose leaves are in memory together; their events are one batch at a time."""
_QUARTER_MS: Final = 900_000
_QUARTERS: Final = 10_000
"""Quarters of an hour whose day is remembered: no time zone changes its day within one."""
_SCHEMA: Final = """
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE entry (
  position INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, consent INTEGER, client INTEGER,
  organisation INTEGER, route INTEGER, verdict INTEGER NOT NULL, status INTEGER NOT NULL
) STRICT;
CREATE INDEX entry_consent ON entry (consent, position) WHERE consent IS NOT NULL;
CREATE INDEX entry_client ON entry (client, position) WHERE client IS NOT NULL;
CREATE INDEX entry_organisation ON entry (organisation, position) WHERE organisation IS NOT NULL;
CREATE INDEX entry_route ON entry (route, position) WHERE route IS NOT NULL;
CREATE INDEX entry_ended ON entry (verdict, position) WHERE status >= 400 OR verdict > 1;
CREATE INDEX entry_status ON entry (status, position) WHERE status >= 400 OR verdict > 1;
CREATE INDEX entry_time ON entry (time_ms);
CREATE TABLE sums (
  day TEXT NOT NULL, face TEXT NOT NULL, route TEXT NOT NULL, client TEXT NOT NULL,
  organisation TEXT NOT NULL, status INTEGER NOT NULL, hub BLOB NOT NULL, bank BLOB NOT NULL,
  PRIMARY KEY (day, face, route, client, organisation, status)
) STRICT, WITHOUT ROWID;
CREATE TABLE span (party TEXT NOT NULL, route TEXT NOT NULL, first INTEGER NOT NULL, end INTEGER) STRICT;
CREATE INDEX span_open ON span (party, route) WHERE end IS NULL;
CREATE INDEX span_first ON span (first);
CREATE TABLE done (
  one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, newest BLOB NOT NULL
) STRICT;
INSERT INTO done VALUES (1, 0, x'');
"""
VERDICTS: Final = {"allowed": 1, "refused": 2, "failed": 3, "unknown": 4}
_DAMAGED: Final = (apsw.CorruptError, apsw.NotADBError)
T = TypeVar("T")


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one kind of answers amounts to on one day of the tenant's time zone."""

    day: str
    face: str
    route: str
    client: str
    organisation: str
    status: int
    hub: Histogram
    bank: Histogram


class Span(msgspec.Struct, frozen=True):
    """Hold a time in which a route did not answer, seconds since 1970; ``end`` 0: it still does not."""

    party: str
    route: str
    first: int
    end: int


@final
class Index:
    """The index of one tenant's log. Made by ``open_index``."""

    def __init__(self, connection: apsw.Connection, zone: str) -> None:
        """Hold the open database, whose days are of ``zone``; every use of it is on a thread, one at a time."""
        self._zone = ZoneInfo(zone)
        self._days: dict[int, str] = {}
        self._db = connection
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._names: dict[str, int] = {}
        self._sums: dict[tuple[str, str, str, str, str, int], tuple[Histogram, Histogram]] = {}
        self._down: set[tuple[str, str]] = set()
        self._seen = -1
        """SQLite's mark of what others have written: they may have made the names anew."""
        self._damaged = False
        self.size = 0

    async def _on_thread(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            try:
                with self._lock:
                    return work()
            except _DAMAGED:
                self._damaged = True
                raise

        return await trio.to_thread.run_sync(locked, limiter=self._limiter)

    async def follow(self, keeper: Events) -> None:
        """Take in every event that the log has by now. Cancellation: what was taken in stays."""
        if not self._damaged:
            try:
                await self._follow(keeper)
            except _DAMAGED:
                pass
            else:
                return
        await self.forget()
        await self._follow(keeper)

    async def _follow(self, keeper: Events) -> None:
        self.size, newest = await self._on_thread(self._done)
        end = (await keeper.head()).size
        if self.size and [hash_of(one) for one in await keeper.events(self.size - 1, 1)] != [
            newest
        ]:
            await self.forget()
        while self.size < end:
            start, leaves = self.size, list[bytes]()
            while len(leaves) < _BATCH * _GROUP and start + len(leaves) < end:
                more = await keeper.events(start + len(leaves), _BATCH)
                if not more:
                    break
                leaves += more
            if not leaves:
                return
            self.size = await self._on_thread(partial(self._take, start, leaves))

    async def forget(self) -> None:
        """Empty the index, to be made anew; damaged or not."""

        def empty() -> None:
            try:
                with self._db:  # at once, for whoever reads
                    for table in ("name", "entry", "sums", "span"):
                        self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - the four names above
                    self._db.execute("UPDATE done SET size = 0, newest = x''")
            except (*_DAMAGED, apsw.SQLError):
                _empty(self._db)
                _prepare(self._db)
            self._names.clear()

        await self._on_thread(empty)
        self._damaged = False
        self.size = 0

    async def drop(self, positions: Sequence[int]) -> None:
        """Forget entries, and names that only they had; the sums stay."""
        unused = " AND ".join(
            f"id NOT IN (SELECT {column} FROM entry WHERE {column} IS NOT NULL)"  # noqa: S608 - names from here
            for column in ("consent", "client", "organisation", "route")
        )

        def dropped() -> None:
            self._db.pragma("secure_delete", 1)
            with self._db:
                rows = [(at,) for at in positions]
                self._db.executemany("DELETE FROM entry WHERE position = ?", rows)
                self._db.execute(f"DELETE FROM name WHERE {unused}")  # noqa: S608 - as above
            self._names.clear()
            with suppress(apsw.BusyError):  # somebody reads; the last who closes it does the same
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

        await self._on_thread(dropped)

    async def positions(self, selection: Selection, limit: int, before: int | None) -> list[int]:
        """Return the newest positions that the indexed members of a selection allow."""
        return await self._on_thread(lambda: self._positions(selection, limit, before))

    async def sums(self, first: str, last: str, client: str = "") -> list[Sum]:
        """Return the sums of the days from ``first`` to ``last`` (both ``YYYY-MM-DD`` and included), of one client or of all."""
        return await self._on_thread(lambda: self._read_sums(first, last, client))

    async def spans(self, start: int, end: int) -> list[Span]:
        """Return the spans of silence that touch a time, in seconds."""
        rows = await self._on_thread(
            lambda: self._db.execute(
                "SELECT party, route, first, end FROM span "
                "WHERE first < ? AND (end IS NULL OR end > ?) ORDER BY first",
                (end, start),
            ).fetchall()
        )
        return [Span(str(a), str(b), int(c or 0), int(d or 0)) for a, b, c, d in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # On a thread

    def _one(self, sql: str, *values: Any) -> Any:
        return self._db.execute(sql, values).get

    def _done(self) -> tuple[int, bytes]:
        size, newest = self._one("SELECT size, newest FROM done")
        return int(size), bytes(newest)

    def _take(self, start: int, leaves: Sequence[bytes]) -> int:
        self._sums.clear()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if (seen := int(self._db.pragma("data_version"))) != self._seen:
                self._names.clear()
                self._seen = seen
            size, _ = self._done()
            if size != start:  # another process was faster
                self._db.execute("ROLLBACK")
                return size
            spans = self._db.execute("SELECT party, route FROM span WHERE end IS NULL")
            self._down = {(party, route) for party, route in spans}
            for at in range(0, len(leaves), _BATCH):
                self._take_batch(start + at, [event_of(leaf) for leaf in leaves[at : at + _BATCH]])
            self._flush()
            done = start + len(leaves), hash_of(leaves[-1])
            self._db.execute("UPDATE done SET size = ?, newest = ?", done)
            self._db.execute("COMMIT")
        except BaseException:
            self._names.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return start + len(leaves)

    def _take_batch(self, start: int, events: Sequence[Event]) -> None:
        rows = [
            self._row(start + at, event) for at, event in enumerate(events) if event is not PRUNED
        ]
        self._db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        for event in events:
            if event.kind is not Kind.NODE and event.status and event.route:
                self._count(event)

    def _row(self, position: int, event: Event) -> tuple[int | None, ...]:
        return (
            position,
            event.time_ms,
            self._name(event.consent_id),
            self._name(event.client_id),
            self._name(event.organisation_id),
            self._name(event.route),
            VERDICTS[event.verdict],
            event.status,
        )

    def _name(self, text: str) -> int | None:
        if not text:
            return None
        found = self._names.get(text)
        if found is None:
            if len(self._names) > 100_000:
                self._names.clear()
            self._db.execute("INSERT OR IGNORE INTO name (text) VALUES (?)", (text,))
            found = self._names[text] = int(self._one("SELECT id FROM name WHERE text = ?", text))
        return found

    def _count(self, event: Event) -> None:
        day = self._day_of(event.time_ms)
        key = (
            day,
            str(event.face),
            event.route,
            event.client_id,
            event.organisation_id,
            event.status,
        )
        hub, bank = self._sums.setdefault(key, (Histogram(), Histogram()))
        hub.add(event.hub_us, max(1, event.count) if event.kind is Kind.REFUSED else 1)
        if event.bank_us:
            bank.add(event.bank_us)
        failed = party_of(event)
        for party in ("bank", "hub"):
            if failed == party:
                self._begin(party, event)
            elif (party, event.route) in self._down and (party == "hub" or event.bank_us):
                self._end(party, event)

    def _day_of(self, time_ms: int) -> str:
        quarter = time_ms // _QUARTER_MS
        if quarter not in self._days:
            if len(self._days) > _QUARTERS:
                self._days.clear()
            moment = datetime.fromtimestamp(time_ms / 1000, self._zone)
            self._days[quarter] = moment.strftime("%Y-%m-%d")
        return self._days[quarter]

    def _begin(self, party: str, event: Event) -> None:
        if (party, event.route) not in self._down:
            self._down.add((party, event.route))
            first = event.time_ms // 1000
            self._db.execute("INSERT INTO span VALUES (?, ?, ?, NULL)", (party, event.route, first))

    def _end(self, party: str, event: Event) -> None:
        self._down.discard((party, event.route))
        self._db.execute(
            "UPDATE span SET end = max(first + 1, ?) WHERE party = ? AND route = ? AND end IS NULL",
            (event.time_ms // 1000, party, event.route),
        )

    def _flush(self) -> None:
        for key, (hub, bank) in self._sums.items():
            row = self._db.execute(
                "SELECT hub, bank FROM sums WHERE day = ? AND face = ? AND route = ? "
                "AND client = ? AND organisation = ? AND status = ?",
                key,
            ).get
            for mine, packed in zip((hub, bank), row or (), strict=False):
                mine.join(msgspec.msgpack.decode(packed, type=Histogram))
            self._db.execute(
                "INSERT OR REPLACE INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, msgspec.msgpack.encode(hub), msgspec.msgpack.encode(bank)),
            )

    def _read_sums(self, first: str, last: str, client: str) -> list[Sum]:
        rows = self._db.execute(
            "SELECT day, face, route, client, organisation, status, hub, bank FROM sums "
            "WHERE day BETWEEN ?1 AND ?2 AND (?3 = '' OR client = ?3)",
            (first, last, client),
        )
        return [
            Sum(
                day=day,
                face=face,
                route=route,
                client=client,
                organisation=organisation,
                status=status,
                hub=msgspec.msgpack.decode(hub, type=Histogram),
                bank=msgspec.msgpack.decode(bank, type=Histogram),
            )
            for day, face, route, client, organisation, status, hub, bank in rows
        ]

    def _positions(self, selection: Selection, limit: int, before: int | None) -> list[int]:
        terms, values = ["position < ?"], [2**62 if before is None else before]
        for column, texts in (
            ("consent", {selection.consent_id} - {""}),
            ("consent", selection.consent_ids),
            ("client", {selection.client_id} - {""}),
            ("route", {selection.route} - {""}),
        ):
            if texts:
                terms.append(f"{column} IN ({','.join('?' * len(texts))})")
                values += [self._known(text) for text in sorted(texts)]
        for column, value in (
            ("status", selection.status),
            ("verdict", VERDICTS.get(selection.verdict)),
        ):
            if value:
                terms.append(f"{column} = ?")
                values.append(value)
                terms += ["(status >= 400 OR verdict > 1)"] if value >= 400 or 1 < value < 5 else []
        if selection.start_ms:
            terms.append("time_ms >= ?")
            values.append(selection.start_ms)
        if selection.end_ms:
            terms.append("time_ms < ?")
            values.append(selection.end_ms)
        if not selection.tpp:
            return self._newest(terms, values, limit)
        # One after the other, since each column's index has the order wanted and both together have none.
        values.append(self._known(selection.tpp))
        both = [
            self._newest([*terms, f"{c} = ?"], values, limit) for c in ("client", "organisation")
        ]
        return sorted({*both[0], *both[1]}, reverse=True)[:limit]

    def _newest(self, terms: Sequence[str], values: Sequence[object], limit: int) -> list[int]:
        sql = (
            f"SELECT position FROM entry WHERE {' AND '.join(terms)} ORDER BY position DESC LIMIT ?"  # noqa: S608 - columns from the table above
        )
        return [at for (at,) in self._db.execute(sql, (*values, limit))]

    def _known(self, text: str) -> int:
        found = self._one("SELECT id FROM name WHERE text = ?", text)
        return -1 if found is None else int(found)


def party_of(event: Event) -> str:
    """Return whose failure an answer was: ``bank``, ``hub``, or empty where it was none (a 4xx is not)."""
    if event.status < 500:
        return ""
    return "bank" if event.bank_us or event.check.startswith("bank") else "hub"


def open_index(folder: Path, zone: str) -> Index:
    """Open the index in a tenant's folder, made if missing, made anew if it is of another version or damaged.

    ``zone`` is the time zone of its days.
    """
    path = folder / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = apsw.Connection(str(path))
    try:
        path.chmod(0o600)
        connection.set_busy_timeout(10_000)
        try:
            _prepare(connection)
        except _DAMAGED:
            _empty(connection)
            _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return Index(connection, zone)


def _prepare(connection: apsw.Connection) -> None:
    _keep_a_wal(connection)
    connection.pragma("synchronous", "normal")
    connection.execute("BEGIN IMMEDIATE")  # of several that open it at once, one makes the tables
    try:
        version = connection.pragma("user_version")
        if version != _VERSION:
            _make_tables(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    if version not in {0, _VERSION}:
        # Somebody reads, or the disk is full: what was in it is overwritten by and by.
        with suppress(apsw.BusyError, apsw.FullError):
            connection.execute("VACUUM")


def _make_tables(connection: apsw.Connection) -> None:
    """Make the tables in the place of those of another version."""
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (name,) in connection.execute(tables).fetchall():
        connection.execute(f'DROP TABLE "{name}"')
    connection.execute(_SCHEMA)
    connection.pragma("user_version", _VERSION)


def _keep_a_wal(connection: apsw.Connection) -> None:
    """Have a write-ahead log; SQLite itself waits for nobody who makes one at the same moment."""
    for _ in range(_TRIES):
        with suppress(apsw.BusyError):
            connection.pragma("journal_mode", "wal")
            return
        time.sleep(_PAUSE_S)
    connection.pragma("journal_mode", "wal")


def _empty(connection: apsw.Connection) -> None:
    """Empty the file in place, whatever is in it: others may have it open, and would remove the files of a new one."""
    connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1)
    try:
        connection.execute("VACUUM")
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 0)
