"""A disk that forgets what was not synced, fills up, or breaks its word: a VFS for the store's tests."""

import random
import shutil
from pathlib import Path

import apsw


class File(apsw.VFSFile):
    """A file whose writes reach the platter only when it is synced."""

    def __init__(self, disk, name, flags):
        super().__init__("unix", name, flags)
        self._disk = disk
        self._unsynced: list[tuple[int, bytes]] = []

    def xWrite(self, data, offset):
        self._disk.check_write()
        self._unsynced.append((offset, bytes(data)))

    def xFileSize(self):
        ends = [offset + len(data) for offset, data in self._unsynced]
        return max([super().xFileSize(), *ends])

    def xRead(self, amount, offset):
        size = super().xFileSize()
        have = super().xRead(min(amount, size - offset), offset) if offset < size else b""
        want = max(0, min(amount, self.xFileSize() - offset))
        content = bytearray(have.ljust(want, b"\0")[:want])
        for start, data in self._unsynced:
            first, last = max(start, offset), min(start + len(data), offset + want)
            if first < last:
                content[first - offset : last - offset] = data[first - start : last - start]
        return bytes(content)

    def xTruncate(self, size):
        self._flush()
        super().xTruncate(size)

    def xSync(self, flags):
        self._disk.check_sync()
        self._flush()
        super().xSync(flags)

    def _flush(self):
        for offset, data in self._unsynced:
            super().xWrite(data, offset)
        self._unsynced.clear()

    def cut_power(self, dice):
        """Let an arbitrary subset of the unsynced writes reach the platter: disks reorder."""
        for offset, data in self._unsynced:
            if dice.random() < 0.5:
                super().xWrite(data, offset)
        self._unsynced.clear()


class Disk(apsw.VFS):
    """Hold the open files, and what is wrong with the disk."""

    def __init__(self, name: str):
        super().__init__(name, "unix")
        self.name = name
        self.files: list[File] = []
        self.full = False
        self.broken = False

    def xOpen(self, name, flags):
        file = File(self, name, flags)
        self.files.append(file)
        return file

    def check_write(self):
        if self.full:
            raise apsw.FullError("no space left")

    def check_sync(self):
        if self.broken:
            error = apsw.IOError("the disk did not take it")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC
            raise error

    def cut_power(self, path: Path, target: Path, dice: random.Random) -> Path:
        """Cut the power, and return the database as the platter holds it, copied into ``target``."""
        for file in self.files:
            file.cut_power(dice)
        target.mkdir()
        for part in path.parent.glob(path.name + "*"):
            shutil.copy(part, target)
        return target / path.name
