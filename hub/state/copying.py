"""Copy a database into a new file, as it is at one moment, while others write."""

import os
from pathlib import Path
from typing import Any

import apsw

from hub.state.schema import StoreError


def copy_database(connection: Any, target: Path) -> None:
    """Copy what a connection sees now into a new file, its owner's alone from the first octet on; whole or not at all.

    Raises:
        StoreError: The target exists, or cannot be written.
    """
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StoreError(f"{target}: exists already; give the path of a new file") from None
    except OSError as error:
        raise StoreError(f"{target}: a new file cannot be made there ({error})") from None
    try:
        _copy(connection, target)
    except BaseException as error:
        for part in ("", "-journal", "-wal", "-shm"):
            target.with_name(target.name + part).unlink(missing_ok=True)
        if isinstance(error, apsw.Error):
            raise StoreError(f"{target}: the backup failed ({error})") from error
        raise


def _copy(connection: Any, target: Path) -> None:
    copy = apsw.Connection(str(target))
    try:
        with copy.backup("main", connection, "main") as backup:
            backup.step(-1)
        copy.pragma("journal_mode", "delete")  # one file, nothing beside it
    finally:
        copy.close()
