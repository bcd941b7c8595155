"""Receipts and exports: one entry, or a selection, with proofs that anybody checks without us.

A receipt is a C2SP tlog-proof: the entry (as its extra data), its index, the inclusion proof and the signed
checkpoint. An export is a folder: the events of a selection, a receipt of each, the log's public key and the verifier.

Source: C2SP tlog-proof.
"""

from base64 import b64encode
from pathlib import Path
from typing import Final, Protocol

import trio

from hub.audit import verify
from hub.audit.note import Checkpoint, split
from hub.audit.search import PRUNED, Selection, event_of
from hub.audit.source import Events
from hub.audit.tiles import LogError, Tiles, View
from hub.protocol.merkle import inclusion_proof

_READ: Final = 1000


class Published(Protocol):
    """A published log: ``Log`` in the process that writes it, ``ReadLog`` elsewhere."""

    tiles: Tiles
    note: str

    @property
    def size(self) -> int:
        """Return how many events are published."""
        ...

    @property
    def vkey(self) -> str:
        """Return the public key to check the log with."""
        ...


def receipt_of(tiles: Tiles, note: str, index: int) -> str:
    """Return the receipt of an entry under a signed checkpoint.

    Args:
        tiles: The log's files.
        note: The signed checkpoint.
        index: The entry's; below the checkpoint's size.

    Raises:
        LogError: The entry is not in this checkpoint, or a file is damaged.
    """
    checkpoint = Checkpoint.parse(split(note)[0])
    if not 0 <= index < checkpoint.size:
        raise LogError(f"entry {index} is not in the checkpoint of {checkpoint.size} entries")
    entry = tiles.entry(index, checkpoint.size)
    proof = inclusion_proof(index, checkpoint.size, View(tiles, checkpoint.size).complete)
    lines = ["c2sp.org/tlog-proof@v1", f"extra {b64encode(entry).decode()}", f"index {index}"]
    lines += [b64encode(part).decode() for part in proof]
    return "\n".join([*lines, "", note])


async def receipts(log: Published, keeper: Events, interaction_id: str) -> list[str]:
    """Return a receipt for each published event of an interaction, oldest first.

    The newest second may not be published yet; a ``Log`` is brought up to date with ``publish`` first.

    Raises:
        LogError: A file of the log is damaged.
    """
    note, size = log.note, log.size
    found = [one for one in await keeper.trace(interaction_id) if one[0] < size]
    return [await trio.to_thread.run_sync(receipt_of, log.tiles, note, index) for index, _ in found]


async def export(log: Published, keeper: Events, selection: Selection, target: Path) -> int:
    """Write an offline bundle of the selected published events; return how many.

    The folder ``target`` must not exist. It gets ``events.jsonl``, ``receipts/INDEX.tlog-proof``, ``checkpoint``,
    ``key``, ``verify.py`` and ``FORMAT.md``.

    Raises:
        LogError: The log does not fit the keeper, or is damaged.
        OSError: The target cannot be written.
    """
    note, size = log.note, log.size
    await trio.to_thread.run_sync(_begin_export, target, log)
    count = 0
    for start in range(0, size, _READ):
        leaves = await keeper.events(start, min(_READ, size - start))
        chosen = [
            (start + at, leaf)
            for at, leaf in enumerate(leaves)
            if (event := event_of(leaf)) is not PRUNED
            and selection.takes(event)
            and (selection.positions is None or start + at in selection.positions)
        ]
        await trio.to_thread.run_sync(_export_some, target, log.tiles, note, chosen)
        count += len(chosen)
    return count


def _begin_export(target: Path, log: Published) -> None:
    target.mkdir(mode=0o700, parents=True)
    (target / "receipts").mkdir(mode=0o700)
    (target / "events.jsonl").touch()
    (target / "checkpoint").write_text(log.note)
    (target / "key").write_text(log.vkey + "\n")
    (target / "verify.py").write_bytes(verifier_source())
    (target / "FORMAT.md").write_bytes(format_text())


def _export_some(target: Path, tiles: Tiles, note: str, chosen: list[tuple[int, bytes]]) -> None:
    with (target / "events.jsonl").open("ab") as file:
        for index, leaf in chosen:
            file.write(leaf + b"\n")
            receipt = target / "receipts" / f"{index}.tlog-proof"
            receipt.write_text(receipt_of(tiles, note, index))


def verifier_source() -> bytes:
    """Return the stand-alone verifier's file."""
    return Path(verify.__file__).with_suffix(".py").read_bytes()


def format_text() -> bytes:
    """Return the description of the log's format."""
    return Path(verify.__file__).with_name("FORMAT.md").read_bytes()
