"""The sandbox's clock: wall time plus an offset that every process of the world shares.

The offset lives in a file of eight octets (mode 0600) that each process maps into memory: moving it is one aligned
store, reading it one load, and there is nothing to fetch. Only the sandbox's composition roots open the file; a Hub
started by ``hub serve`` is never told of one (architecture 2.10).
"""

import mmap
import os
import time
from pathlib import Path
from typing import Final, Self, final

from typing_extensions import override

from hub.model.clock import Clock

_OCTETS: Final = 8


@final
class SharedClock(Clock):
    """Tell wall time plus the world's offset."""

    __slots__ = ("_map", "_offset_ms")

    def __init__(self, shared: mmap.mmap) -> None:
        """Read the offset (milliseconds, signed, native order) from a mapping of eight octets."""
        self._map = shared
        self._offset_ms = memoryview(shared).cast("q")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open the file, made with an offset of zero if it is missing or damaged."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size != _OCTETS:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, _OCTETS)
            return cls(mmap.mmap(descriptor, _OCTETS))
        finally:
            os.close(descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file of a running world.

        Raises:
            FileNotFoundError: No world made one there.
            ValueError: The file is not eight octets long.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(descriptor).st_size != _OCTETS:
                raise ValueError(f"{path}: expected a clock of {_OCTETS} octets")
            return cls(mmap.mmap(descriptor, _OCTETS, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

    @override
    def now(self) -> int:
        return self.now_ms() // 1000

    @override
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._offset_ms[0]

    @property
    def offset_ms(self) -> int:
        """Return the offset in milliseconds."""
        return self._offset_ms[0]

    def move(self, seconds: float) -> None:
        """Move the whole world's time by that many seconds, forward or back."""
        self._offset_ms[0] = self._offset_ms[0] + int(seconds * 1000)

    def close(self) -> None:
        """Give the mapping back."""
        self._offset_ms.release()
        self._map.close()
