"""The seal on what we keep of the framework: a keyed digest over each record's name and content.

What a restart begins with decides who is let in, so it must be ours and whole. The key is a file beside the database,
made once; a record whose seal does not hold is not used, as if it had never been kept, and said so.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final, final

from hub.model.clock import Dice

_MAC: Final = 32
FILE: Final = "trust.key"


@final
class Seal:
    """Seal values under their names, and open them again."""

    __slots__ = ("_key", "broken")

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 octets."""
        if len(key) != _MAC:
            raise ValueError("a seal's key has 32 octets")
        self._key = key
        self.broken: list[str] = []
        """Names of records whose seal did not hold, until somebody has told of them."""

    @classmethod
    def of_folder(cls, folder: Path, dice: Dice) -> "Seal":
        """Return the seal of a tenant's folder, its key made there (mode 0600) when absent.

        Raises:
            OSError: The file cannot be read or written.
        """
        path = folder / FILE
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls(path.read_bytes())
        with os.fdopen(handle, "wb") as file:
            file.write(dice.token(_MAC))
            file.flush()
            os.fsync(file.fileno())
        return cls(path.read_bytes())

    def close(self, name: str, value: bytes) -> bytes:
        """Return a value with its seal in front."""
        return self._mac(name, value) + value

    def open(self, name: str, sealed: bytes) -> bytes | None:
        """Return the value of a sealed one, or None where the seal does not hold."""
        value = sealed[_MAC:]
        if hmac.compare_digest(sealed[:_MAC], self._mac(name, value)):
            return value
        self.broken.append(name)
        return None

    def _mac(self, name: str, value: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + value, hashlib.sha256)
