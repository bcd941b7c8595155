"""Back up a tenant's state, check a backup, put one back."""

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import apsw

from hub.protocol.merkle import Frontier, leaf_hash
from hub.state.copying import copy_database
from hub.state.interaction import agree, forget_names
from hub.state.keeper import TreeHead
from hub.state.open import DATABASE, locked
from hub.state.schema import SCHEMA_VERSION, StoreError, check_version

FORGOTTEN: Final = b"\0"
"""Begins a leaf whose content was forgotten: its hash follows. No event begins so."""


def forget_events(folder: Path, hashes: Mapping[int, bytes]) -> None:
    """Put hashes in the place of events in the database of a stopped Hub; the tree stays what it is.

    What was forgotten before is left alone.

    Raises:
        StoreError: The Hub runs, the database cannot be written, or an event has another hash; nothing was forgotten.
    """
    with locked(folder):
        try:
            with closing(apsw.Connection(str(folder / DATABASE))) as connection:
                connection.pragma("secure_delete", 1)
                with connection:
                    there = _still_there(connection, hashes)
                    forget_names(connection, there)
                    connection.executemany(
                        "UPDATE event SET leaf = ?, interaction = '' WHERE position = ?",
                        [(FORGOTTEN + hashes[position], position) for position in there],
                    )
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            raise StoreError(f"{folder}: events could not be forgotten ({error})") from None


def _still_there(connection: apsw.Connection, hashes: Mapping[int, bytes]) -> list[int]:
    """Return the positions whose events are not forgotten yet; each must be the very event that is meant.

    Raises:
        StoreError: It is another one, or none.
    """
    there = []
    for position, leaf_is in hashes.items():
        leaf = connection.execute("SELECT leaf FROM event WHERE position = ?", (position,)).get
        if leaf is None or (leaf[1:] if leaf[:1] == FORGOTTEN else leaf_hash(leaf)) != leaf_is:
            raise StoreError(f"event {position} is not the one that is to be forgotten")
        if leaf[:1] != FORGOTTEN:
            there.append(position)
    return there


def copy_state(folder: Path, target: Path) -> None:
    """Copy the database of a folder into a new file, as it is at one moment, while its keeper writes or not.

    A database of an older version is copied as it is: that is the backup to make before it is brought forward.

    Raises:
        StoreError: There is no state, or the target exists or cannot be written.
    """
    source = _opened(folder / DATABASE)
    try:
        copy_database(source, target)
    finally:
        source.close()


def _opened(path: Path) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(1000)
        check_version(connection, str(path))
    except apsw.Error as error:
        raise StoreError(f"{path}: cannot be opened ({error})") from None
    return connection


_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What a file system without links says."""


class OtherHistoryError(StoreError):
    """A backup is whole, but its events are not those of the head that is known."""


def check_backup(source: Path, known: TreeHead | None = None) -> TreeHead:
    """Return the tree head of a backup whose database is whole and whose events lead to that head.

    Args:
        source: The backup.
        known: An earlier head of the same tree, as it was published; a backup that is older says nothing of it.

    Raises:
        OtherHistoryError: Its events do not lead through ``known``.
        StoreError: It is damaged, or not a database of a Hub.
    """
    try:
        connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            version = check_version(connection, str(source))
            found = connection.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                raise StoreError(f"{source}: is damaged: {found}")
            if version == SCHEMA_VERSION and not agree(connection):
                raise StoreError(f"{source}: events are sorted wrongly by their interaction")
            return _checked_tree(connection, source, known)
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreError(f"{source}: cannot be read as a database ({error})") from None


def _checked_tree(connection: apsw.Connection, source: Path, known: TreeHead | None) -> TreeHead:
    frontier, other = Frontier(), False
    for position, leaf in connection.execute("SELECT position, leaf FROM event ORDER BY position"):
        if position != frontier.size:
            raise StoreError(f"{source}: event {frontier.size} is missing")
        frontier.append(leaf[1:] if leaf[:1] == FORGOTTEN else leaf_hash(leaf))
        if known is not None and frontier.size == known.size:
            other = frontier.root() != known.root
    size, root = connection.execute("SELECT size, root FROM head").get
    if (frontier.size, frontier.root()) != (size, root):
        raise StoreError(f"{source}: its events do not lead to its tree's root")
    if other and known is not None:
        raise OtherHistoryError(
            f"{source}: is of another history: its first {known.size} events are not those of the published log"
        )
    return TreeHead(size, root)


def put_back(source: Path, folder: Path) -> Path | None:
    """Put a backup in the place of a stopped Hub's database; return where the old one is kept, None if there was none.

    Raises:
        StoreError: The Hub runs, or a file cannot be written.
    """
    with locked(folder):
        try:
            return _swap(source, folder)
        except OSError as error:
            raise StoreError(f"{folder}: the backup cannot be put back ({error})") from None


def _fold(present: Path) -> None:
    """Move what is in the log of a database into it, so that the log is not needed beside it; of a damaged one nothing."""
    with suppress(apsw.Error):
        connection = apsw.Connection(str(present))
        try:
            connection.pragma("user_version")  # who has read nothing knows of no log
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()


def _swap(source: Path, folder: Path) -> Path | None:
    """Put the new file there in one step: at every moment there is a database, the old one or the new one."""
    new, present = folder / f"{DATABASE}.new", folder / DATABASE
    shutil.copyfile(source, new)
    new.chmod(0o600)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    aside = None
    if present.exists():
        _fold(present)
        aside = folder / f"{DATABASE}.before-{present.stat().st_mtime_ns}"
        for name in ("-wal", "-shm"):  # of a damaged one
            if (old := present.with_name(DATABASE + name)).exists():
                old.rename(aside.with_name(aside.name + name))
        if aside.exists() and aside.samefile(present):  # of an attempt that was cut off
            aside.unlink()
        try:
            os.link(present, aside)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            present.rename(aside)
    new.rename(present)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return aside
