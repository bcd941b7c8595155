"""The sandbox's folder: writable, of mode 0700, and owned by one running world at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hub.node.errors import StartError

LOCK_NAME: Final = "lock"


@contextmanager
def owned_folder(folder: Path) -> Iterator[Path]:
    """Own a folder for the time of the context; yields its absolute path.

    The lock is the kernel's (flock), so it ends with the process however that ends; the file is removed too.

    Raises:
        StartError: The folder cannot be made or written, or another sandbox owns it.
    """
    folder = folder.absolute()
    lock = _open_lock(folder)
    try:
        yield folder
    finally:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        os.close(lock)


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run", "keys"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with --dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been removed by its last owner between our open and our lock.
        same = os.fstat(lock).st_ino == (folder / LOCK_NAME).stat().st_ino
    except OSError:
        same = False
    if same:
        return lock
    os.close(lock)
    raise StartError(
        f"{folder}: another sandbox runs on this folder; stop it, or choose another with --dir"
    )
