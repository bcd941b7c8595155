"""The address of a Unix socket, however deep its folder lies: it holds 107 octets only, and a path may be longer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MOST: Final = 107
"""Linux, unix(7): 108 octets with the one that ends it."""


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Give an address by which a socket of that path can be bound or connected to while the context lasts.

    Raises:
        OSError: Its folder cannot be opened.
    """
    if len(os.fsencode(path)) <= _MOST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
