"""Copy a database into a new file, as it is at one moment, while others write."""

from pathlib import Path
from typing import Any

import apsw

from hub.state.schema import StoreError


def copy_database(connection: Any, target: Path) -> None:
    """Copy what a connection sees now into a new file.

    Raises:
        StoreError: The target exists, or cannot be written.
    """
    if target.exists():
        raise StoreError(f"{target}: exists already; give the path of a new file")
    try:
        copy = apsw.Connection(str(target))
        with copy.backup("main", connection, "main") as backup:
            backup.step(-1)
        copy.close()
    except apsw.Error as error:
        raise StoreError(f"{target}: the backup failed ({error})") from error
