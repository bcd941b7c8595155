"""Verify a copy of an audit log, its checkpoints and its receipts; needs only Python 3.11 and ``cryptography``.

This file stands alone: it shares no code with the Hub that wrote the log, and is shipped beside each log.

    python verify.py log FOLDER --key VKEY [--witness VKEY ...] [--checkpoint FILE ...] [--live]
    python verify.py receipt FILE ... --key VKEY [--witness VKEY ...] [--log FOLDER]

``log`` recomputes the whole tree from the entries, compares every file with it, and checks that each older checkpoint
given is a beginning of it: nothing was changed, removed, inserted or reordered since that checkpoint was signed. Give
checkpoints that you kept yourself; without one, nobody can tell whether the newest entries were cut off and the rest
signed again. ``--live`` passes over files that the checkpoint does not cover (a log copied while it was written).
``receipt`` shows that one entry is in the tree of a signed checkpoint. The exit code is 0 if everything holds, else 1.

Sources: RFC 9162 section 2.1 (tree and proofs); C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles,
tlog-proof.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256
HASH = 32
LOG_KEY, WITNESS_KEY = 1, 4
LATE_MS = 5000


class RejectedError(Exception):
    """Say what does not hold, and where."""


# Notes and checkpoints


@dataclass(frozen=True)
class Key:
    """Hold a public key under its name."""

    name: str
    id: bytes
    type: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> "Key":
        """Read ``name+id+base64(type || key)``."""
        parts = vkey.strip().split("+", 2)
        if len(parts) != 3:
            raise RejectedError("key: not of the form name+id+key")
        packed = decode64(parts[2], "key")
        name = parts[0]
        expected = hashlib.sha256(name.encode() + b"\n" + packed).digest()[:4]
        if (
            len(packed) != 33
            or packed[0] not in {LOG_KEY, WITNESS_KEY}
            or parts[1] != expected.hex()
        ):
            raise RejectedError("key: not an Ed25519 key with a fitting id")
        return cls(name, expected, packed[0], packed[1:])

    def stands(self, text: str, signature: bytes) -> bool:
        """Tell whether a signature stands for the text of a note."""
        message = text.encode()
        if self.type == WITNESS_KEY:
            moment = int.from_bytes(signature[:8])
            message = f"cosignature/v1\ntime {moment}\n{text}".encode()
            signature = signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Checkpoint:
    """Hold a head that the log has signed."""

    origin: str
    size: int
    root: bytes


def decode64(text: str, where: str) -> bytes:
    """Decode base64; only the one canonical form passes."""
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        raise RejectedError(f"{where}: not base64") from None
    if base64.b64encode(octets).decode() != text:
        raise RejectedError(f"{where}: not the canonical base64 form")
    return octets


def open_checkpoint(note: bytes, key: Key, witnesses: Sequence[Key], where: str) -> Checkpoint:
    """Return the checkpoint of a note that the log's key and every witness have signed."""
    try:
        content = note.decode()
    except UnicodeDecodeError:
        raise RejectedError(f"{where}: not UTF-8") from None
    if any(ord(char) < 32 and char != "\n" for char in content):
        raise RejectedError(f"{where}: holds control characters")
    text, gap, tail = content.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise RejectedError(f"{where}: not a signed note")
    text += "\n"
    good = list(_good_signatures(text, tail[:-1].split("\n"), [key, *witnesses], where))
    for needed in (key, *witnesses):
        if needed not in good:
            raise RejectedError(f"{where}: not signed by {needed.name}")
    return _parse_checkpoint(text, key, where)


def _good_signatures(
    text: str, lines: Iterable[str], keys: Sequence[Key], where: str
) -> Iterator[Key]:
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, packed = rest.partition(" ")
        if dash != "\N{EM DASH}" or not name or not packed:
            raise RejectedError(f"{where}: a signature line is malformed")
        signature = decode64(packed, where)
        for key in keys:
            if (key.name, key.id) == (name, signature[:4]):
                if not key.stands(text, signature[4:]):
                    raise RejectedError(f"{where}: the signature of {name} does not hold")
                yield key


def _parse_checkpoint(text: str, key: Key, where: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]):
        raise RejectedError(f"{where}: not a checkpoint")
    origin, size, packed = lines[:3]
    if origin != key.name:
        raise RejectedError(f"{where}: is of the log {origin!r}, not of {key.name!r}")
    root = decode64(packed, where)
    if len(root) != HASH:
        raise RejectedError(f"{where}: the root has {len(root)} octets")
    return Checkpoint(origin, number(size, where), root)


def number(text: str, where: str) -> int:
    """Read a decimal number without leading zeroes."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and str(int(text)) == text):
        raise RejectedError(f"{where}: {text[:40]!r} is not a number")
    return int(text)


# The tree


def leaf_hash(entry: bytes) -> bytes:
    """RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree: for each power of two in its size, the hash of that part."""

    def __init__(self) -> None:
        """Start empty."""
        self.size = 0
        self._parts: list[tuple[int, bytes]] = []

    def add(self, hashed: bytes) -> None:
        """Add a leaf by its hash; parts of equal height join."""
        height = 0
        while self._parts and self._parts[-1][0] == height:
            hashed = node_hash(self._parts.pop()[1], hashed)
            height += 1
        self._parts.append((height, hashed))
        self.size += 1

    def root(self) -> bytes:
        """Return the root."""
        if not self._parts:
            return hashlib.sha256(b"").digest()
        hashed = self._parts[-1][1]
        for _, left in reversed(self._parts[:-1]):
            hashed = node_hash(left, hashed)
        return hashed


def root_by_proof(entry: bytes, index: int, size: int, proof: Sequence[bytes], where: str) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162 section 2.1.3.2)."""
    if index >= size:
        raise RejectedError(f"{where}: entry {index} cannot be in a tree of {size}")
    hashed, position, last = leaf_hash(entry), index, size - 1
    for part in proof:
        if last == 0:
            raise RejectedError(f"{where}: the proof is too long")
        if position % 2 == 1 or position == last:
            hashed = node_hash(part, hashed)
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            hashed = node_hash(hashed, part)
        position, last = position // 2, last // 2
    if last:
        raise RejectedError(f"{where}: the proof is too short")
    return hashed


# The log's files


def tile_name(kind: str, index: int) -> str:
    """Return the path of a full tile."""
    digits = str(index)
    while len(digits) % 3:
        digits = "0" + digits
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return f"tile/{kind}/" + "/".join(["x" + group for group in groups[:-1]] + groups[-1:])


@dataclass
class Report:
    """Hold what was found to hold, and what a reader should know."""

    origin: str
    size: int
    root: bytes
    remarks: list[str] = field(default_factory=list)


class LogFolder:
    """A copied log; remembers which files it has looked at."""

    def __init__(self, folder: Path) -> None:
        """Look at ``folder``, which holds ``checkpoint`` and ``tile``."""
        self.folder = folder
        self.seen: set[str] = set()

    def read(self, name: str) -> bytes:
        """Return a file."""
        self.seen.add(name)
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            raise RejectedError(f"{name}: is missing") from None

    def read_tile(self, kind: str, index: int, width: int) -> tuple[str, bytes]:
        """Return the name and content of a tile of the tree."""
        name = tile_name(kind, index)
        name = name if width == WIDTH else f"{name}.p/{width}"
        return name, self.read(name)

    def check_partials(
        self, kind: str, index: int, beginnings: Callable[[int], bytes], width: int
    ) -> None:
        """Check partial tiles of earlier sizes that are still there: each is a beginning of the tile."""
        name = tile_name(kind, index) + ".p"
        folder = self.folder / name
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            known = re.fullmatch("[1-9][0-9]{0,2}", file.name) and int(file.name) <= min(width, 255)
            part = f"{name}/{file.name}"
            if known and self.read(part) != beginnings(int(file.name)):
                raise RejectedError(f"{part}: differs from the tile that it became")

    def strangers(self) -> list[str]:
        """Return the files that nothing has asked for."""
        files = (file for file in self.folder.rglob("*") if not file.is_dir() or file.is_symlink())
        names = {file.relative_to(self.folder).as_posix() for file in files}
        return sorted(names - self.seen)


class Reader:
    """Rebuild the tree from the entries, and compare every tile with it."""

    def __init__(self, log: LogFolder, size: int) -> None:
        """Read the first ``size`` entries."""
        self._log = log
        self._size = size
        self._levels: list[list[bytes]] = [[]]
        self._done: list[int] = [0]
        self.tree = Tree()

    def entries(self) -> Iterator[bytes]:
        """Give each entry once it is compared with its tile."""
        for index in range(-(-self._size // WIDTH)):
            width = min(WIDTH, self._size - index * WIDTH)
            name, bundle = self._log.read_tile("entries", index, width)
            entries = split_bundle(bundle, width, name, index * WIDTH)
            self._log.check_partials("entries", index, partial(_beginning, entries), width)
            for entry in entries:
                hashed = leaf_hash(entry)
                self._levels[0].append(hashed)
                self.tree.add(hashed)
                yield entry
            if width == WIDTH:
                self._finish(0)
        self._finish_partials()

    def _finish(self, level: int) -> None:
        """Compare a full tile, and carry its root up."""
        hashes = self._levels[level]
        self._compare(level, hashes)
        while len(hashes) > 1:
            hashes = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
        self._levels[level] = []
        self._done[level] += 1
        if level + 1 == len(self._levels):
            self._levels.append([])
            self._done.append(0)
        self._levels[level + 1].append(hashes[0])
        if len(self._levels[level + 1]) == WIDTH:
            self._finish(level + 1)

    def _finish_partials(self) -> None:
        for level, hashes in enumerate(self._levels):
            if hashes:
                self._compare(level, hashes)

    def _compare(self, level: int, hashes: list[bytes]) -> None:
        index, width = self._done[level], len(hashes)
        name, data = self._log.read_tile(str(level), index, width)
        if data != b"".join(hashes):
            at = next(
                (n for n, h in enumerate(hashes) if data[n * HASH : n * HASH + HASH] != h), width
            )
            first = (index * WIDTH + at) * WIDTH**level
            raise RejectedError(f"{name}: hash {at} does not fit the entries from {first} on")
        self._log.check_partials(str(level), index, lambda n: data[: n * HASH], width)


def split_bundle(bundle: bytes, width: int, name: str, first: int) -> list[bytes]:
    """Return the entries of a bundle, each after its length in two octets."""
    entries: list[bytes] = []
    at = 0
    while at < len(bundle) and len(entries) < width:
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        if end > len(bundle):
            raise RejectedError(f"{name}: entry {first + len(entries)} is cut off")
        entries.append(bundle[at + 2 : end])
        at = end
    if len(entries) < width:
        raise RejectedError(f"{name}: ends before entry {first + len(entries)}")
    if at != len(bundle):
        raise RejectedError(f"{name}: goes on after entry {first + width - 1}")
    return entries


def _beginning(entries: Sequence[bytes], count: int) -> bytes:
    return join_bundle(entries[:count])


def join_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bundle of some entries."""
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


# What is verified


def verify_log(
    folder: Path,
    key: Key,
    *,
    witnesses: Sequence[Key] = (),
    older: Sequence[tuple[str, bytes]] = (),
    live: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _size: None,
) -> Report:
    """Verify a whole log; the first thing that does not hold raises RejectedError.

    Args:
        folder: Holds ``checkpoint`` and ``tile``.
        key: The log's key, from a source that you trust.
        witnesses: Keys that must have cosigned the checkpoint.
        older: Names and contents of checkpoints that were kept.
        live: Pass over files that the checkpoint does not cover.
        progress: Called now and then with entries done and entries in all.
    """
    log = LogFolder(folder)
    head = open_checkpoint(log.read("checkpoint"), key, witnesses, "checkpoint")
    kept = [(name, open_checkpoint(note, key, (), name)) for name, note in older]
    for name, checkpoint in kept:
        if checkpoint.size > head.size:
            raise RejectedError(
                f"checkpoint: has {head.size} entries; {name} had {checkpoint.size} already"
            )
    report = Report(head.origin, head.size, head.root)
    _read_all(log, head, kept, report, progress)
    strangers = log.strangers()
    if strangers and not live:
        raise RejectedError(f"{strangers[0]}: does not belong to a log of {head.size} entries")
    return report


def _read_all(
    log: LogFolder,
    head: Checkpoint,
    kept: Sequence[tuple[str, Checkpoint]],
    report: Report,
    progress: Callable[[int, int], None],
) -> None:
    reader, meaning = Reader(log, head.size), Meaning()
    waiting = sorted(kept, key=lambda item: item[1].size)
    waiting = _due(waiting, reader.tree)
    for entry in reader.entries():
        meaning.take(reader.tree.size - 1, entry)
        waiting = _due(waiting, reader.tree)
        if reader.tree.size % 65536 == 0:
            progress(reader.tree.size, head.size)
    if reader.tree.root() != head.root:
        raise RejectedError("checkpoint: its root is not that of the entries")
    report.remarks += meaning.remarks()


def _due(waiting: list[tuple[str, Checkpoint]], tree: Tree) -> list[tuple[str, Checkpoint]]:
    """Compare the kept checkpoints of the size that the tree has now."""
    while waiting and waiting[0][1].size == tree.size:
        name, checkpoint = waiting[0]
        if checkpoint.root != tree.root():
            raise RejectedError(
                f"{name}: the first {tree.size} entries are not those it was signed for"
            )
        waiting = waiting[1:]
    return waiting


class Meaning:
    """Look at what the entries say; oddities are remarks, not reasons to reject."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._latest = 0
        self._back = 0
        self._intents: dict[str, int] = {}

    def take(self, index: int, entry: bytes) -> None:
        """Read one entry."""
        try:
            event = json.loads(entry)  # noqa: TID251 - this file stands alone
            version, moment, kind = event["v"], int(event["time_ms"]), event["kind"]
        except (ValueError, KeyError, TypeError):
            raise RejectedError(f"entry {index}: is not an event") from None
        if version != 1:
            raise RejectedError(f"entry {index}: is an event of the unknown version {version!r}")
        self._back += moment < self._latest - LATE_MS
        self._latest = max(self._latest, moment)
        if kind == "intent":
            self._intents[event.get("interaction_id", "")] = index
        elif kind == "outcome":
            self._intents.pop(event.get("interaction_id", ""), None)

    def remarks(self) -> list[str]:
        """Return what a reader should know."""
        found = [f"entry {at}: an intent without an outcome" for at in self._intents.values()]
        if self._back:
            found.append(f"{self._back} entries are over 5 s older than one before them")
        return found


def verify_receipt(
    receipt: bytes, key: Key, *, witnesses: Sequence[Key] = (), where: str = "receipt"
) -> tuple[int, bytes, Checkpoint]:
    """Verify one receipt; return the entry's index, the entry, and the checkpoint it is proved by."""
    head, gap, note = receipt.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise RejectedError(f"{where}: not a receipt") from None
    if not gap or len(lines) < 3 or lines[0] != "c2sp.org/tlog-proof@v1":
        raise RejectedError(f"{where}: not a receipt")
    if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise RejectedError(f"{where}: holds no entry or no index")
    entry = decode64(lines[1].removeprefix("extra "), where)
    index = number(lines[2].removeprefix("index "), where)
    proof = [decode64(line, where) for line in lines[3:]]
    if any(len(part) != HASH for part in proof):
        raise RejectedError(f"{where}: a hash of the proof is not 32 octets long")
    checkpoint = open_checkpoint(note, key, witnesses, where)
    if root_by_proof(entry, index, checkpoint.size, proof, where) != checkpoint.root:
        raise RejectedError(f"{where}: the entry is not in the tree of its checkpoint")
    return index, entry, checkpoint


# The command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        for line in _run(options):
            sys.stdout.write(line + "\n")
    except (RejectedError, OSError) as error:
        sys.stdout.write(f"REJECTED {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Verify an audit log, its checkpoints and receipts."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    log = commands.add_parser("log", help="a copied log folder")
    log.add_argument("folder", type=Path)
    log.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="one kept earlier"
    )
    log.add_argument("--live", action="store_true", help="the log is being written")
    receipt = commands.add_parser("receipt", help="receipts of entries")
    receipt.add_argument("files", type=Path, nargs="+")
    receipt.add_argument("--log", type=Path, help="also verify this log against the receipts")
    for command in (log, receipt):
        command.add_argument("--key", required=True, help="the log's key, or a file with it")
        command.add_argument(
            "--witness", action="append", default=[], help="a key, or a file with it"
        )
    return parser


def _key(text: str) -> Key:
    return Key.parse(Path(text).read_text() if "+" not in text else text)


def _run(options: argparse.Namespace) -> Iterator[str]:
    key, witnesses = _key(options.key), [_key(text) for text in options.witness]
    kept: list[tuple[str, bytes]] = []
    if options.command == "receipt":
        for file in options.files:
            receipt = file.read_bytes()
            index, entry, head = verify_receipt(receipt, key, witnesses=witnesses, where=str(file))
            kept.append((str(file), receipt.partition(b"\n\n")[2]))
            yield f"{file}: entry {index} is in the log {head.origin} of {head.size} entries"
            yield entry.decode(errors="replace")
    else:
        kept = [(str(file), file.read_bytes()) for file in options.checkpoint]
    folder = options.log if options.command == "receipt" else options.folder
    if folder is not None:
        live = options.command == "receipt" or options.live
        yield from _log_lines(folder, key, witnesses, kept, live=live)


def _log_lines(
    folder: Path, key: Key, witnesses: list[Key], kept: list[tuple[str, bytes]], *, live: bool
) -> Iterator[str]:
    report = verify_log(folder, key, witnesses=witnesses, older=kept, live=live, progress=_progress)
    yield f"{report.origin}: {report.size} entries, root {report.root.hex()}: everything holds"
    yield from (f"{name}: is a beginning of it" for name, _ in kept)
    yield from (f"note: {remark}" for remark in report.remarks)


def _progress(done: int, size: int) -> None:
    sys.stderr.write(f"{done} of {size} entries\n")


if __name__ == "__main__":
    sys.exit(main())
