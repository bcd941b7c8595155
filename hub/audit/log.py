"""Publish the committed events as tiles and signed checkpoints; verify before signing.

Theory. The keeper's tree head is the truth about what was committed; the files follow it. A publication reads the
events since the last checkpoint, writes their bundles and tiles, reads all of it back from the disk, recomputes the
root from what it read, compares it with the keeper's, and only then signs. So a flipped bit anywhere between the
transaction and the file stops the log before it says something that it would have to stand by for ever.

Invariants. No checkpoint is signed that is not a continuation of the one signed before. Nothing is written on top of a
tail that does not fit: at the start the newest entries are checked against their hashes and these against the
checkpoint, before each publication those of the bundle that is continued. A log that is ahead of its keeper (a database restored from an older backup) is never signed again: that would be two histories.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import trio

from hub.audit.note import Checkpoint, NoteError, Signer, Verifier, open_note
from hub.audit.search import hash_of
from hub.audit.source import Events, Head
from hub.audit.tiles import WIDTH, LogError, Tiles, View, tile_path
from hub.audit.witness import join
from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.protocol.merkle import Frontier, complete_parts, leaf_hash, root_hash

CHECKPOINT: Final = "checkpoint"
_WHOLE: Final = WIDTH.bit_length() - 1
"""The level of the subtree over one full tile."""
_READ: Final = 1000
_STEP: Final = 8_192
"""Entries in memory at once; a multiple of the tiles' width. Eight times as many left 30 MB more with the process under load."""
_TAIL: Final = 65_536
"""Entries that are checked against their hashes when the log is opened; ``verify`` checks them all."""


@final
class Log:
    """One published log: its folder, its key, and how far it has come."""

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        *,
        retiring: Sequence[Signer] = (),
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        """Open the log and check that its files lead to its last checkpoint.

        Args:
            folder: Where ``checkpoint`` and ``tile/`` are; made if missing. Only one process writes to it.
            signer: The log's key; its name is the log's origin.
            retiring: Keys that it replaces; they sign too, so that who knows only them can follow.
            failpoint: For tests.

        Raises:
            LogError: The files are damaged, or another key's.
        """
        self.folder = folder
        self.tiles = Tiles(folder)
        self._signer = signer
        self._retiring = tuple(retiring)
        self._failpoint = failpoint
        self._frontier = Frontier()
        self._signing = threading.Lock()
        self._fits = False
        self.new_key = False
        """Whether the log had not been signed with this key before (set by ``open_log``)."""
        self.note = ""
        """The last signed checkpoint as it stands in the file; empty before the first."""
        file = folder / CHECKPOINT
        if file.exists():
            self._resume(file)

    @property
    def origin(self) -> str:
        """Return the log's name."""
        return self._signer.verifier.name

    @property
    def vkey(self) -> str:
        """Return the public key to check the log with."""
        return self._signer.verifier.vkey()

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """Return the keys of which one must have signed what the log finds of itself."""
        return tuple(one.verifier for one in (self._signer, *self._retiring))

    @property
    def size(self) -> int:
        """Return how many events are published."""
        return self._frontier.size

    def _resume(self, file: Path) -> None:
        try:
            self.note = file.read_bytes().decode()
            text, _ = open_note(self.note, self.verifiers)
            checkpoint = Checkpoint.parse(text)
        except (NoteError, UnicodeDecodeError) as error:
            raise LogError(f"{file}: {error}") from error
        view = View(self.tiles, checkpoint.size)
        parts = complete_parts(0, checkpoint.size)
        self._frontier = Frontier(checkpoint.size, [view.complete(*part) for part in parts])
        if checkpoint.origin != self.origin or self._frontier.root() != checkpoint.root:
            raise LogError(f"{file}: the tiles do not lead to this checkpoint")
        self._check_tail(view, checkpoint.size)

    def _check_tail(self, view: View, size: int) -> None:
        """Refuse a log whose newest entries are not those that it signed."""
        for index in range(max(0, size - _TAIL) // WIDTH, -(-size // WIDTH)):
            width = min(WIDTH, size - index * WIDTH)
            self.tiles.checked_entries(index, width)
            if width == WIDTH and view.over(1, index) != view.complete(8, index):
                path = self.folder / tile_path(0, index)
                raise LogError(f"{path}: does not fit its hash in the tile above")

    async def publish(self, keeper: Events) -> bool:
        """Bring the files up to the keeper's head and sign it; False if there was nothing new.

        Raises:
            LogError: Something does not fit; nothing was signed.
            OSError: The disk does not take it; nothing was signed.
        Cancellation: files may have been written; nothing half signed.
        """
        head = await keeper.head()
        if head.size < self.size:
            raise LogError(
                f"{self.folder}: the log has {self.size} events, the database {head.size}; "
                "it will not be signed again"
            )
        if head.size == self.size and self.note:
            return False
        await trio.to_thread.run_sync(self.tiles.check_end, head.size)
        await self._check_keeper(keeper)
        frontier, leaves, start = self._frontier.copy(), await self._tail_bundle(), self.size
        while start < head.size:
            end = min(head.size, start // WIDTH * WIDTH + _STEP)
            while start < end:
                more = await keeper.events(start, min(_READ, end - start))
                if not more:
                    raise LogError(f"{self.folder}: the keeper gave fewer events than it has")
                leaves += more
                start += len(more)
            await trio.to_thread.run_sync(self._lay, leaves, frontier, end, head.size)
            leaves = []
        await trio.to_thread.run_sync(self._sign, frontier, head)
        return True

    async def _check_keeper(self, keeper: Events) -> None:
        """Refuse a keeper that has not the events that were published last, before any of its own lie beside them.

        Raises:
            LogError: It is another one, or was restored from an older backup and has grown since.
        """
        if self._fits or not self.size:
            return
        index = (self.size - 1) // WIDTH
        first, width = index * WIDTH, self.size - index * WIDTH
        leaves = await keeper.events(first, width)
        stored = await trio.to_thread.run_sync(self.tiles.hashes, 0, index, width)
        if [hash_of(leaf) for leaf in leaves] != stored:
            raise LogError(
                f"{self.folder}: the database is not the one that the entries from {first} on were published from; "
                "it will not be signed again"
            )
        self._fits = True

    async def _tail_bundle(self) -> list[bytes]:
        """Return the entries of the last, partial bundle; they lead to what was signed, or nothing goes on.

        Raises:
            LogError: They do not.
        """
        index, width = divmod(self.size, WIDTH)
        if not width:
            return []
        return await trio.to_thread.run_sync(self.tiles.checked_entries, index, width)

    def _lay(self, leaves: Sequence[bytes], frontier: Frontier, size: int, committed: int) -> None:
        """Write some entries and their tiles, and continue the frontier over what then stands on the disk."""
        first = frontier.size // WIDTH
        self._write(first, leaves, size, committed)
        for index in range(first, -(-size // WIDTH)):
            width = min(WIDTH, size - index * WIDTH)
            if width == WIDTH and frontier.size == index * WIDTH:
                frontier.append(self.tiles.root(0, index), _WHOLE)
                continue
            for hashed in self.tiles.hashes(0, index, width)[frontier.size - index * WIDTH :]:
                frontier.append(hashed)

    def _sign(self, frontier: Frontier, head: Head) -> None:
        if frontier.root() != head.root or self._root(head.size) != head.root:
            raise LogError(f"{self.folder}: the files do not lead to the root that was committed")
        self.tiles.settle()
        self._failpoint(Point.BEFORE_CHECKPOINT)
        note = self._signed(Checkpoint(self.origin, head.size, head.root).text())
        self.tiles.replace(CHECKPOINT, note.encode())
        self._failpoint(Point.AFTER_CHECKPOINT)
        first = self.size // WIDTH
        self._frontier, self.note = frontier, note
        self._drop_partials(first, head.size)

    def _signed(self, text: str) -> str:
        note = self._signer.sign(text)
        return note + "".join(one.sign(text).removeprefix(f"{text}\n") for one in self._retiring)

    def add_signature(self, lines: str, witness: Verifier) -> None:
        """Put a witness's signature under the last checkpoint; on a thread, where several witnesses may have answered.

        Raises:
            NoteError: It is not the witness's, or not of this checkpoint.
            OSError: The disk does not take it.
        """
        with self._signing:
            note = join(self.note, lines, witness)
            self.tiles.replace(CHECKPOINT, note.encode())
            self.note = note

    def _root(self, size: int) -> bytes:
        return root_hash(size, View(self.tiles, size).complete)

    def _write(self, first: int, leaves: Sequence[bytes], size: int, committed: int) -> None:
        """Write the bundles from ``first`` on, read them back, and write every tile that they complete or extend."""
        for at in range(0, len(leaves), WIDTH):
            some = leaves[at : at + WIDTH]
            index = first + at // WIDTH
            hashes = [leaf_hash(leaf) for leaf in some]
            self.tiles.lay(None, index, some, committed)
            self.tiles.lay(0, index, hashes, committed)
            self._read_back(index, some, hashes)
        level, below = 1, first
        while size >> (8 * level):
            below = self._write_level(level, below, size, committed)
            level += 1

    def _read_back(self, index: int, entries: Sequence[bytes], hashes: list[bytes]) -> None:
        """Compare a bundle and its tile on the disk with what was written: cheaper than hashing the entries again.

        Raises:
            LogError: They are not the same.
        """
        width, tiles = len(entries), self.tiles
        if tiles.holds(index, entries) and tiles.hashes(0, index, width) == hashes:
            return
        tiles.checked_entries(index, width)  # says which one does not fit
        raise LogError(f"{self.folder / tile_path(0, index, width)}: is not what was written")

    def _write_level(self, level: int, below: int, size: int, committed: int) -> int:
        """Write the tiles of one level from the full tiles below, from the tile over ``below`` on."""
        first, total = below // WIDTH, size >> (8 * level)
        for index in range(first, -(-total // WIDTH)):
            width = min(WIDTH, total - index * WIDTH)
            view = View(self.tiles, size)
            hashes = [view.over(level, index * WIDTH + at) for at in range(width)]
            self.tiles.lay(level, index, hashes, committed)
        return first

    def _drop_partials(self, first: int, size: int) -> None:
        for index in range(first, size // WIDTH):
            self.tiles.drop_partial(None, index)
        level, start = 0, first
        while size >> (8 * level):
            for index in range(start, (size >> (8 * level)) // WIDTH):
                self.tiles.drop_partial(level, index)
            level, start = level + 1, start // WIDTH
