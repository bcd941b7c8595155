"""The tenant's database: records, events and the tree's head in one SQLite file, written in groups.

Theory. One connection writes, on one thread at a time; two others read, so that neither a lookup nor a search ever
waits for a sync (WAL). ``write`` takes a group of works and runs them in order inside one transaction; each sees what
those before it did, and a conflict of one leaves the others alone, because a work decides (``plan``) before it writes.
It is made of two: ``prepare``, which computes and holds the interpreter, and ``commit``, which waits for the disk and does
not; a thread of its own is worth its price for the second only.
The frontier of the tree is kept in memory, copied for the group, and put back if the group fails.

Invariants. When ``write`` returns, everything it answered for is synced to the disk. When it raises ``FullError``, nothing
of the group was written and the next call may succeed. Any other failure of the disk raises ``StoreFailedError``: after a
failed fsync the kernel may have dropped what it could not write, so trying again could lie.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, final

import apsw
import msgspec

from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.records import Record, Seen
from hub.protocol.merkle import Frontier
from hub.state.copying import copy_database
from hub.state.entry import MOST, decode, kind_of, put_entry, unavailable
from hub.state.interaction import SLICE, add_slice, sliced, traced
from hub.state.keeper import Granted, Once, Page, Put, Query, TreeHead, Versioned
from hub.state.known import Known, Row
from hub.state.plan import plan
from hub.state.schema import (
    SCHEMA_VERSION,
    StoreError,
    StoreFailedError,
    check_sqlite,
    check_version,
    migrate,
)
from hub.state.selection import Selection
from hub.state.steps import Entry, IndexRow, Leaf, Plan
from hub.state.work import Claims, Commit, Done, Failed, Purge, Work

T = TypeVar("T")
_SEEN: Final = kind_of(Seen)
_ROWS: Final = msgspec.msgpack.Decoder(tuple[tuple[str, str | int], ...])
_CACHE: Final = -8_192
"""Pages that the writer remembers, in KiB: eight times as many make appends no quicker, changes of many records by a hundredth."""
_CHECKPOINT_PAGES: Final = 2000
_RECORD: Final = "SELECT version, indexed, body FROM record WHERE kind = ? AND key = ?"
_VERSION: Final = "SELECT version, indexed FROM record WHERE kind = ? AND key = ?"
_HEAD: Final = "SELECT size, frontier, root, (SELECT max(position) FROM event) FROM head"
_FEW: Final = 1000
_KNOWN_OCTETS: Final = 8 << 20
_PURGE_MOST: Final = 1000
_SLICE_MOST: Final = 4
"""Times its size a slice may have, where sorting was put off for long: some 60 ms."""

_PASSING: Final = frozenset(
    {
        apsw.SQLITE_IOERR_WRITE,
        apsw.SQLITE_IOERR_SHMMAP,
        apsw.SQLITE_IOERR_SHMOPEN,
        apsw.SQLITE_IOERR_SHMSIZE,
        apsw.SQLITE_IOERR_TRUNCATE,
    }
)
"""I/O errors of a disk or quota that is full: nothing was promised yet, and they pass."""


class FullError(Exception):
    """Say that the disk took nothing of the group just now."""


@final
class Store:
    """Hold the open database."""

    def __init__(
        self,
        path: Path,
        *,
        replay_entries: int = 1_000_000,
        failpoint: Failpoint = no_failpoint,
        vfs: str | None = None,
        readonly: bool = False,
    ) -> None:
        """Open or make the database, bring it to the newest schema, and check its tree's head.

        Args:
            path: The file; its folder exists.
            replay_entries: The most single-use values remembered at once.
            failpoint: For tests.
            vfs: A VFS without shared memory, for tests: everything then uses one connection.
            readonly: Only read; any number of processes may, beside the one that writes.

        Raises:
            StoreError: It cannot be used; one line says why.
        """
        check_sqlite(apsw.sqlite_lib_version())
        self._failpoint = failpoint
        self._replay_entries = replay_entries
        self._pages = 0
        self._indexed: dict[tuple[str, str], bytes] = {}
        """Index rows of what the transaction has read or written, as they stand in it."""
        self.known = Known(
            0 if readonly else _KNOWN_OCTETS
        )  # who only reads does not hear of writes
        self._failed = False
        self.full = False
        """Whether the disk took nothing when it was last asked."""
        self._reader: Any = None
        self._searcher: Any = None
        try:
            self._open_readonly(path) if readonly else self._open(path, vfs)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise StoreError(f"{path}: is damaged ({error}); restore a backup") from error
        except apsw.Error as error:
            code = getattr(error, "extendedresult", None)
            full = isinstance(error, apsw.FullError) or code in _PASSING
            hint = ": is the disk full?" if full else ""
            raise StoreError(f"{path}: cannot be opened ({error}{hint})") from error
        self._frontier = self._stored_frontier(path)
        counted = self._writer.execute("SELECT count(*) FROM record WHERE kind = ?", (_SEEN,))
        self._seen = int(counted.get)
        self._before = self._frontier, self._seen
        self._sliced = sliced(self._writer)

    def _open_readonly(self, path: Path) -> None:
        self._writer: Any = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._writer.set_busy_timeout(1000)
        self._writer.pragma("query_only", "on")
        if check_version(self._writer, str(path)) != SCHEMA_VERSION:
            raise StoreError(f"{path}: was written by an older Hub; start this one once")
        self._reader = self._searcher = self._writer

    def _open(self, path: Path, vfs: str | None) -> None:
        self._writer = _connect(path, vfs)
        if vfs is not None:
            self._writer.pragma("locking_mode", "exclusive")
        if self._writer.pragma("journal_mode", "wal") != "wal":
            raise StoreError(f"{path}: this file system cannot hold a WAL database")
        self._writer.pragma("synchronous", "full")
        self._writer.pragma("cache_size", _CACHE)
        migrate(self._writer, str(path))
        self._writer.set_wal_hook(self._grown)
        self._reader = self._writer if vfs else _connect(path, None)
        self._searcher = self._writer if vfs else _connect(path, None)

    def _stored_frontier(self, path: Path) -> Frontier:
        size, packed, root, last = self._writer.execute(_HEAD).get  # at one moment: others write
        try:
            frontier = Frontier.unpack(size, packed)
        except ValueError as error:
            raise StoreError(f"{path}: the tree's head is damaged ({error})") from error
        if frontier.root() != root or (last is not None and last != size - 1):
            raise StoreError(f"{path}: events and the tree's head disagree; restore a backup")
        return frontier

    def close(self) -> None:
        """Move the log into the database and close. A full disk is no obstacle: the log then stays.

        After a failure nothing is moved: a sync that "succeeds" now would say nothing.
        """
        if self._failed:
            self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for connection in {self._reader, self._searcher} - {self._writer}:
            connection.close()
        try:
            self._writer.close()
        except apsw.Error as error:
            if not self._failed and isinstance(self._judge(error), StoreFailedError):
                raise StoreFailedError(f"the database could not be closed: {error}") from error

    # Writing: on one thread at a time

    @property
    def divisible(self) -> bool:
        """Tell whether readers see nothing of a group that is prepared and not committed."""
        return self._reader is not self._writer

    def write(self, works: Sequence[Work]) -> list[Done]:
        """Run a group of works in order, in one transaction, and sync it.

        Raises:
            FullError: Nothing was written; later it may be.
            StoreFailedError: The process must end.
        """
        done = self.prepare(works)
        self.commit()
        return done

    def prepare(self, works: Sequence[Work]) -> list[Done]:
        """Run a group of works in order, in a transaction that ``commit`` must end next.

        Raises:
            FullError: Nothing is written; later it may be.
            StoreFailedError: The process must end.
        """
        self._before = self._frontier.copy(), self._seen
        return self._undone_if_failed(lambda: self._transaction(works))

    def commit(self) -> None:
        """Commit what was prepared, and sync it; the one call that waits for the disk.

        Raises:
            FullError: Nothing was written; later it may be.
            StoreFailedError: The process must end.
        """
        self._undone_if_failed(self._end)
        self.known.end()
        self.full = False
        self._failpoint(Point.AFTER_COMMIT_BEFORE_ACK)

    def _undone_if_failed(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except apsw.Error as error:
            self._undo()
            raise self._judge(error) from error
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        self._frontier, self._seen = self._before
        self.known.undo()
        self._roll_back()

    def _transaction(self, works: Sequence[Work]) -> list[Done]:
        self._indexed.clear()
        self._writer.execute("BEGIN IMMEDIATE")
        self._failpoint(Point.AFTER_BEGIN)
        leaves: list[Leaf] = []
        done = [self._run(work, leaves) for work in works]
        if leaves:
            self._write_events(leaves)
            self._failpoint(Point.AFTER_EVENTS)
        return done

    def _end(self) -> None:
        self._failpoint(Point.BEFORE_COMMIT)
        self._writer.execute("COMMIT")

    def _run(self, work: Work, leaves: list[Leaf]) -> Done:
        match work:
            case Commit():
                return self._commit(work, leaves)
            case Claims():
                return self._claim(work)
            case Purge():
                return self._purge(work.now)

    def _commit(self, work: Commit, leaves: list[Leaf]) -> Done:
        """Write the records of a commit; its events join the group's in ``leaves``."""
        further: Sequence[Leaf] = ()
        if work.steps:
            try:
                planned = plan(work.steps, self._version_of, self._record_of)
            except apsw.Error:
                raise
            except Exception as error:  # noqa: BLE001 - a bug, or a worker's nonsense: it is the asker's, not the group's
                return Failed(error)
            if not isinstance(planned, Plan):
                return planned
            self._failpoint(Point.AFTER_PLAN)
            for entry, version, record in planned.entries:
                self._apply(entry, version, record)
            further = planned.leaves
        self._failpoint(Point.AFTER_RECORDS)
        first = self._frontier.size + len(leaves)
        leaves += work.leaves
        leaves += further
        return tuple(range(first, first + len(work.leaves)))

    def _record_of(self, kind: str, key: str) -> Versioned | None:
        row = self.known.current(kind, key) or self._read(self._writer, kind, key)
        if row is None:
            return None
        self._indexed[kind, key] = row.indexed
        return row.found

    def _read(self, connection: Any, kind: str, key: str) -> Row | None:
        """Read a record, and remember it if it is of a kind that is read often."""
        commits = self.known.commits
        read = connection.execute(_RECORD, (kind, key)).get
        if read is None:
            return None
        version, indexed, body = read
        row = Row(Versioned(decode(kind, body), version), indexed, len(body))
        self.known.keep(kind, key, row, commits)
        return row

    def _version_of(self, kind: str, key: str) -> int:
        row = self._writer.execute(_VERSION, (kind, key)).get
        if row is None:
            return 0
        version: int = row[0]
        self._indexed[kind, key] = row[1]
        return version

    def _apply(self, entry: Entry, before: int, record: Record | None = None) -> None:
        old = self._rows_of(entry.kind, entry.key) if before else set()
        new = set(entry.rows)
        if gone := old - new:
            self._writer.executemany(
                "DELETE FROM lookup WHERE kind = ? AND name = ? AND value = ? AND key = ?",
                [(entry.kind, name, value, entry.key) for name, value in gone],
            )
        if entry.body is None:
            self._delete(entry, before)
            return
        self._writer.execute(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET "
            "version = excluded.version, purge_at = excluded.purge_at, indexed = excluded.indexed, "
            "body = excluded.body",
            (
                entry.kind,
                entry.key,
                before + 1,
                entry.purge_at,
                packed := msgspec.msgpack.encode(entry.rows),
                entry.body,
            ),
        )
        self._indexed[entry.kind, entry.key] = packed
        found = None if record is None else Versioned(record, before + 1)
        row = None if found is None else Row(found, packed, len(entry.body))
        self.known.write(entry.kind, entry.key, row)
        self._seen += entry.kind == _SEEN and not before
        if more := new - old:
            self._writer.executemany(
                "INSERT INTO lookup VALUES (?, ?, ?, ?)",
                [(entry.kind, name, value, entry.key) for name, value in more],
            )

    def _delete(self, entry: Entry, before: int) -> None:
        self.known.write(entry.kind, entry.key, None)
        if before:
            self._writer.execute(
                "DELETE FROM record WHERE kind = ? AND key = ?", (entry.kind, entry.key)
            )
            self._indexed.pop((entry.kind, entry.key), None)
            self._seen -= entry.kind == _SEEN

    def _rows_of(self, kind: str, key: str) -> set[IndexRow]:
        packed = self._indexed.pop((kind, key), None)
        if packed is None:
            packed = self._writer.execute(
                "SELECT indexed FROM record WHERE kind = ? AND key = ?", (kind, key)
            ).get
        return set(_ROWS.decode(packed))

    def _claim(self, work: Claims) -> Done:
        if self._seen + len(work.onces) > self._replay_entries:
            return unavailable("keeper.replay", "the replay memory is full")
        return tuple(self._claim_one(once, work.now) for once in work.onces)

    def _claim_one(self, once: Once, now: int) -> Granted:
        entry = put_entry(Put(Seen(space=once.space, value=once.value, until=once.until)))
        version = self._writer.execute(
            "INSERT INTO record VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET "
            "version = version + 1, purge_at = excluded.purge_at, body = excluded.body "
            "WHERE purge_at <= ? RETURNING version",
            (_SEEN, entry.key, entry.purge_at, b"\x90", entry.body, now),
        ).get
        self._seen += version == 1
        return Granted(granted=version is not None)

    def _purge(self, now: int) -> Done:
        old = self._writer.execute(
            "SELECT kind, key FROM record WHERE purge_at <= ? ORDER BY purge_at LIMIT ?",
            (now, _PURGE_MOST),
        ).fetchall()
        for kind, key in old:
            self._apply(Entry(kind, key, None), 1)
        return tuple(old)

    def _write_events(self, leaves: Sequence[Leaf]) -> None:
        frontier = self._frontier
        self._writer.executemany(
            "INSERT INTO event VALUES (?, ?, ?)",
            [(at, name, leaf) for at, (name, leaf) in enumerate(leaves, frontier.size)],
        )
        frontier.extend([leaf for _, leaf in leaves])
        self._writer.execute(
            "UPDATE head SET size = ?, frontier = ?, root = ?",
            (frontier.size, frontier.pack(), frontier.root()),
        )

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except apsw.Error as error:
                raise StoreFailedError(
                    f"a transaction could not be rolled back: {error}"
                ) from error

    def _judge(self, error: apsw.Error) -> FullError | StoreFailedError:
        """Tell a disk that is full from one that is broken."""
        self.full = True
        extended = getattr(error, "extendedresult", None)
        if isinstance(error, apsw.FullError | apsw.BusyError | apsw.ReadOnlyError):
            return FullError(str(error))
        if isinstance(error, apsw.IOError) and extended in _PASSING:
            return FullError(str(error))
        self._failed = True
        return StoreFailedError(f"{type(error).__name__} ({extended}): {error}")

    def _grown(self, _connection: Any, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    @property
    def untidy(self) -> bool:
        """Tell whether it is time to ``tidy``."""
        return self._pages >= _CHECKPOINT_PAGES or self._frontier.size - self._sliced >= SLICE

    def tidy(self) -> None:
        """Move the log into the database, sort new events by their interaction; where due, and between two writes.

        Raises:
            StoreFailedError: The process must end. A full disk is no failure: what is due stays due until there is space.
        """
        if self._pages >= _CHECKPOINT_PAGES:
            self._pages = 0
            self._put_off_if_full(self._checkpoint)
        if self._frontier.size - self._sliced >= SLICE:
            self._put_off_if_full(self._slice)

    def _put_off_if_full(self, act: Callable[[], None]) -> None:
        try:
            act()
        except apsw.Error as error:
            self._roll_back()
            judged = self._judge(error)
            if isinstance(judged, StoreFailedError):
                raise judged from error

    def _checkpoint(self) -> None:
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _slice(self) -> None:
        beyond = min(self._frontier.size, self._sliced + _SLICE_MOST * SLICE)
        add_slice(self._writer, self._sliced, beyond)
        self._sliced = beyond

    # Reading one thing: on the loop's thread

    def lookup(self, kind: str, key: str) -> Versioned | None:
        """Return a record with its version, or None; some microseconds."""
        row = self.known.committed(kind, key) or self._read(self._reader, kind, key)
        return None if row is None else row.found

    def head(self) -> TreeHead:
        """Return the tree head as last committed."""
        return TreeHead(*self._reader.execute("SELECT size, root FROM head").get)

    # Reading many: on a thread of their own, one at a time

    def search(self, query: Query) -> Page:
        """Return the records that match."""
        selection = Selection(query, self._is_rare)
        rows = self._searcher.execute(*selection.page()).fetchall()
        items = tuple(Versioned(decode(query.kind, body), version) for version, body in rows)
        return Page(items, self._searcher.execute(*selection.total()).get if query.count else -1)

    def _is_rare(self, kind: str, name: str, value: str | int) -> bool:
        counted = self._searcher.execute(
            "SELECT count(*) FROM (SELECT 1 FROM lookup WHERE kind = ? AND name = ? AND value = ? LIMIT ?)",
            (kind, name, value, _FEW + 1),
        )
        return bool(counted.get <= _FEW)

    def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` events from index ``start`` on."""
        rows = self._searcher.execute(
            "SELECT leaf FROM event WHERE position >= ? ORDER BY position LIMIT ?",
            (start, max(0, min(limit, MOST))),  # SQLite takes less than none for all
        )
        return tuple([leaf for (leaf,) in rows.fetchall()])  # the loop gets no turn between rows

    def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first."""
        return traced(self._searcher, interaction_id)

    def backup(self, target: Path) -> None:
        """Copy the database as it is now into a new file, while others write.

        Raises:
            StoreError: The target exists, or cannot be written.
        """
        copy_database(self._searcher, target)


def _connect(path: Path, vfs: str | None) -> Any:
    connection = apsw.Connection(str(path), vfs=vfs)
    connection.set_busy_timeout(1000)
    connection.pragma("cell_size_check", "on")
    return connection
