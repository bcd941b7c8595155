"""The log as files: tiles of 256 hashes, bundles of 256 entries, each written once and never changed.

Theory. Tile ``n`` of level ``l`` holds 256 hashes, each of a complete subtree over ``256 ** l`` leaves. The rightmost
tiles are partial and lie beside under ``.p/``; when a tile is full, its partial ones are removed. Any complete subtree
of any level is folded from one tile, so the folder alone gives every proof (``complete``).

Invariants. A file appears whole or not at all (temporary file beside the log's folder, fsync, rename, fsync of the
file's folder; of tiles and bundles, the folders are synced together before what they hold is signed). What is there is not
written again. One process writes.

Source: C2SP tlog-tiles.
"""

import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, final

from hub.protocol.merkle import HASH_OCTETS, leaf_hash, node_hash

WIDTH: Final = 256
_CACHED: Final = 512
_PIECE: Final = 1 << 17
"""Octets read at once: most bundles are shorter."""
_ROOTS: Final = 2048
"""Roots of full tiles that are remembered, 32 octets each: a publication asks for up to 255 of each level."""


class LogError(Exception):
    """Say that the log's files are not what they must be; nothing is signed until a person has looked."""


def tile_path(level: int | None, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile below the log's folder; level None for the entries.

    Source: tlog-tiles, "Merkle Tree".
    """
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*("x" + part for part in parts[:-1]), parts[-1]])
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{'entries' if level is None else level}/{name}{partial}"


def kept_path(index: int) -> str:
    """Return the path of what is kept of a bundle of which entries were pruned."""
    return tile_path(None, index).replace("tile/entries/", "tile/kept/")


def bundle_of(entries: Sequence[bytes]) -> bytes:
    """Return the entry bundle of up to 256 entries. Source: tlog-tiles, "Log entries"."""
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def entries_of(bundle: bytes, width: int) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        LogError: It does not hold exactly ``width`` entries.
    """
    entries, at = [], 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        entries.append(bundle[at + 2 : end])
        at = end
    if at != len(bundle) or len(entries) != width:
        raise LogError(f"a bundle of {width} entries is damaged")
    return entries


@final
class Tiles:
    """Read and write the files of one log."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, made with mode 0700 if missing."""
        self.folder = folder
        self._temporary = folder.with_name(folder.name + ".new")
        _make_folder(folder)
        self._full = lru_cache(maxsize=_CACHED)(self._read_full)
        self.root = lru_cache(maxsize=_ROOTS)(self._root_of)
        """Return the root over a full tile ``(level, index)``, which never changes; raise LogError if it is not there."""
        self._laid: dict[int | None, int] = {}
        self._unsettled: set[Path] = set()

    def lay(self, level: int | None, index: int, data: Sequence[bytes], size: int) -> None:
        """Write a tile (its hashes) or bundle (its entries) of a log that is to have ``size`` entries; see ``settle``.

        Raises:
            LogError: What an earlier process left of it is no beginning of it, or holds more: an event that was
                committed once is no longer the same, or no longer there.
            OSError: The disk does not take it.
        """
        if self._laid.get(level) != index and self._fits_beside(level, index, data, size):
            self._laid[level] = index
        path = tile_path(level, index, len(data))
        self._add(path, _packed(level, data))
        # Also of what was there: who wrote it may have ended before its name was durable.
        self._unsettled.add((self.folder / path).parent)

    def settle(self) -> None:
        """Make the names of what was written durable, once for all files of a folder; then it may be signed.

        Raises:
            OSError: The disk does not take it.
        """
        for folder in tuple(self._unsettled):
            _sync_folder(folder)
            self._unsettled.discard(folder)

    def _fits_beside(self, level: int | None, index: int, data: Sequence[bytes], size: int) -> bool:
        """Check what is there of a tile; False where some of it cannot be compared yet."""
        full = self.folder / tile_path(level, index)
        parts, compared = full.with_name(full.name + ".p"), True
        for file in [full] * full.exists() + sorted(parts.glob("*")):
            width = WIDTH if file == full else int(file.name) if file.name.isdigit() else 0
            if width + index * WIDTH > size >> 8 * (level or 0):
                raise LogError(f"{file}: holds more than the database, which has lost events")
            if width > len(data):
                compared = False
            elif file.read_bytes() != _packed(level, data[:width]):
                raise LogError(f"{file}: is there already, and differs")
        return compared

    def check_end(self, size: int) -> None:
        """Refuse entries that an earlier process wrote beyond the end.

        Raises:
            LogError: There are some: the database has lost events.
        """
        after = self.folder / tile_path(None, -(-size // WIDTH))
        for path in (after, after.with_name(after.name + ".p")):
            if path.exists():
                raise LogError(f"{path}: holds more than the database, which has lost events")

    def write(self, path: str, data: bytes) -> None:
        """Write a file durably, whole or not at all; the same again is left alone.

        Raises:
            LogError: There is another file of that name.
            OSError: The disk does not take it.
        """
        self._add(path, data)
        _sync_folder((self.folder / path).parent)

    def _add(self, path: str, data: bytes) -> None:
        target = self.folder / path
        there = _octets(target)
        if there is None:
            self._put(target, data)
        elif there != data:
            raise LogError(f"{target}: is there already, and differs")

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably, in the place of what was there.

        Raises:
            OSError: The disk does not take it.
        """
        target = self.folder / path
        self._put(target, data)
        _sync_folder(target.parent)

    def _put(self, target: Path, data: bytes) -> None:
        _write_durably(self._temporary, data)
        try:
            self._temporary.replace(target)
        except FileNotFoundError:
            _make_folder(target.parent)
            self._temporary.replace(target)

    def drop_partial(self, level: int | None, index: int) -> None:
        """Remove the partial tiles of one that is full."""
        full = self.folder / tile_path(level, index)
        shutil.rmtree(full.with_name(full.name + ".p"), ignore_errors=True)

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return a tile of at least that width, cut to it.

        Raises:
            LogError: It is not there, or shorter.
        """
        for path in (tile_path(level, index, width), tile_path(level, index)):
            # Asked for at once: a partial tile is removed when the full one is there, by another process too.
            data = _octets(self.folder / path)
            if data is not None:
                if len(data) < width * HASH_OCTETS:
                    raise LogError(f"{self.folder / path}: is too short")
                return data[: width * HASH_OCTETS]
        raise LogError(f"{self.folder / tile_path(level, index, width)}: is missing")

    def entries(self, index: int, width: int) -> list[bytes]:
        """Return the first ``width`` entries of a bundle, from a full one where that is there; a pruned one is empty.

        Raises:
            LogError: It is missing or damaged.
        """
        exact = tile_path(None, index, width)
        full = ((kept_path(index), WIDTH), (exact, width), (tile_path(None, index), WIDTH))
        for path, holds in full:
            data = _octets(self.folder / path)
            if data is not None:
                return entries_of(data, holds)[:width]
        raise LogError(f"{self.folder / exact}: is missing")

    def holds(self, index: int, entries: Sequence[bytes]) -> bool:
        """Tell whether the bundle that was written of these entries is there as it should be."""
        path = tile_path(None, index, len(entries))
        return _octets(self.folder / path) == bundle_of(entries)

    def _read_full(self, level: int, index: int) -> bytes:
        return self.read(level, index, WIDTH)

    def _root_of(self, level: int, index: int) -> bytes:
        return _perfect(self.hashes(level, index, WIDTH))

    def hashes(self, level: int, index: int, width: int) -> list[bytes]:
        """Return the first ``width`` hashes of a tile.

        Raises:
            LogError: It is not there, or shorter.
        """
        data = self._full(level, index) if width == WIDTH else self.read(level, index, width)
        return [data[at : at + HASH_OCTETS] for at in range(0, width * HASH_OCTETS, HASH_OCTETS)]

    def checked_entries(self, index: int, width: int) -> list[bytes]:
        """Return the entries of a bundle, each of which has its hash in the tile beside; a pruned one is empty.

        Raises:
            LogError: The bundle or the tile is missing, damaged, or they do not fit.
        """
        entries = self.entries(index, width)
        for at, (entry, kept) in enumerate(
            zip(entries, self.hashes(0, index, width), strict=True), index * WIDTH
        ):
            if entry and leaf_hash(entry) != kept:
                path = self.folder / tile_path(None, index, width)
                raise LogError(f"{path}: entry {at} does not fit its hash in the tile")
        return entries

    def entry(self, index: int, size: int) -> bytes:
        """Return an entry of a log of ``size`` entries.

        Raises:
            LogError: Its bundle is missing or damaged.
        """
        width = min(WIDTH, size - index // WIDTH * WIDTH)
        entry = self.entries(index // WIDTH, width)[index % WIDTH]
        if not entry:
            raise LogError(f"entry {index} was pruned; its receipt is in the export made before")
        return entry


def _packed(level: int | None, data: Sequence[bytes]) -> bytes:
    return bundle_of(data) if level is None else b"".join(data)


@final
class View:
    """The tree of ``size`` leaves as the tiles hold it: gives the hash of any complete subtree."""

    def __init__(self, tiles: Tiles, size: int) -> None:
        """Look at the tree of the first ``size`` leaves."""
        self._tiles = tiles
        self._size = size

    def complete(self, level: int, index: int) -> bytes:
        """Return the hash of the complete subtree ``(level, index)``.

        Raises:
            LogError: A tile is missing or damaged.
        """
        tall, short = divmod(level, 8)
        tile, offset = divmod(index << short, WIDTH)
        width = min(WIDTH, (self._size >> (8 * tall)) - tile * WIDTH)
        hashes = self._tiles.hashes(tall, tile, width)[offset : offset + (1 << short)]
        return _perfect(hashes)

    def over(self, level: int, index: int) -> bytes:
        """Return the hash that stands at ``index`` on a tile level: the root over one full tile of the level below.

        Raises:
            LogError: That tile is missing or damaged.
        """
        return self._tiles.root(level - 1, index)


def _perfect(hashes: list[bytes]) -> bytes:
    """Return the root over a power of two of neighbours."""
    while len(hashes) > 1:
        each = iter(hashes)
        hashes = [node_hash(left, right) for left, right in zip(each, each, strict=True)]
    return hashes[0]


def _octets(file: Path) -> bytes | None:
    """Return what a file holds, None where there is none.

    By few calls to the system, here and below: a thread gives the interpreter away at each, and waits to have it back.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        parts = []
        while piece := os.read(opened, _PIECE):
            parts.append(piece)
        return b"".join(parts)
    finally:
        os.close(opened)


def _write_durably(file: Path, data: bytes) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(opened, rest) :]
        os.fsync(opened)
    finally:
        os.close(opened)


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each named durably by the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
