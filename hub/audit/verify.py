"""Verify a copy of an audit log, its checkpoints and its receipts; needs only Python 3.11 and ``cryptography``.

This file stands alone: it holds no code of the Hub, was written from ``FORMAT.md`` beside it, and is shipped with each log.

    python verify.py log FOLDER --key KEY [--witness KEY ...] [--checkpoint FILE ...] [--since FILE] [--until FILE] [--live]
    python verify.py receipt FILE ... --key KEY [--witness KEY ...]

KEY is a verifier key or a file of them, one per line (a log whose key was renewed has several; one must have signed).
Give ``--checkpoint`` files that you kept yourself: without one, nobody can tell whether the newest entries were cut off,
or all of it signed anew. ``--since`` and ``--until`` read only from and up to such a one; ``--live`` passes over files that
the newest checkpoint does not cover (copied while written). The exit code is 0 if everything holds, else 1.
"""

import argparse
import base64
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, WITNESS, PROOF = 1, 4, "c2sp.org/tlog-proof@v1"
KINDS = {(33, LOG), (33, WITNESS)}
WIDTH, STEP = 256, 1_000_000  # of a tile; entries between two lines of progress
Keys = Sequence["Key"]
CLOCK_MS = 120_000  # a request may have come in this long before it was written down


class RejectedError(Exception):
    """What was given does not hold: where, and what."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


def decode64(text: str, where: str) -> bytes:
    """Decode Base64, canonical only."""
    if re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text):
        data = base64.b64decode(text)
        if base64.b64encode(data).decode() == text:
            return data
    raise RejectedError(where, "is not canonical Base64")


def number(text: str, where: str) -> int:
    """Read a decimal number without leading zeros, of at most thirteen digits."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,12}", text):
        raise RejectedError(where, f"{text[:20]!r} is not a number of entries")
    return int(text)


@dataclass(frozen=True)
class Key:
    """Hold the public key of a log or a witness."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> "Key":
        """Read a verifier key (format, 1)."""
        name, ident, encoded = [*vkey.strip().split("+", 2), "", ""][:3]
        data = decode64(encoded, "key")
        key = cls(name, int.from_bytes(data[:1]), data[1:])
        if not name or key.ident.hex() != ident or (len(data), key.kind) not in KINDS:
            raise RejectedError("key", "is no Ed25519 verifier key, or its id is another's")
        return key

    @property
    def ident(self) -> bytes:
        """The four octets that name this key in a signature."""
        return sha256(b"%s\n%c%s" % (self.name.encode(), self.kind, self.public)).digest()[:4]

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """Say whether a signature (after the key's id) holds for a note's text."""
        if self.kind == WITNESS:
            time, signature = signature[:8], signature[8:]
            text = b"cosignature/v1\ntime %d\n" % int.from_bytes(time) + text
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Checkpoint:
    """Hold what a log's key has signed: so many entries, and their root."""

    origin: str
    size: int
    root: bytes


def open_checkpoint(note: bytes, keys: Keys, witnesses: Keys, where: str) -> Checkpoint:
    """Return a checkpoint that one of the log's keys and every witness given have signed."""
    text, gap, lines = note.decode(errors="replace").rpartition("\n\n")
    odd = re.search("[\0-\x09\x0b-\x1f\x7f\ufffd]", text + lines)
    if odd or not gap or not lines.endswith("\n"):
        raise RejectedError(where, "is not a signed note")
    signed = _signed_by(f"{text}\n".encode(), lines[:-1].split("\n"), [*keys, *witnesses], where)
    if not set(signed) & set(keys):
        raise RejectedError(where, "is not signed by the log's key")
    if missing := set(witnesses) - set(signed):
        raise RejectedError(where, f"is not signed by witness {missing.pop().name}")
    parts = text.split("\n")
    if len(parts) != 3 or parts[0] not in {key.name for key in signed if key in keys}:
        raise RejectedError(where, "is not a checkpoint of this log")
    return Checkpoint(parts[0], number(parts[1], where), decode64(parts[2], where))


def _signed_by(text: bytes, lines: list[str], keys: list[Key], where: str) -> list[Key]:
    signed = []
    for line in lines:
        match = re.fullmatch(r"— ([^ +]+) ([A-Za-z0-9+/=]+)", line)
        data = decode64(match[2], where) if match else b""
        if not match or len(data) < 5:
            raise RejectedError(where, "has a malformed signature line")
        for key in keys:
            if (key.name, key.ident) == (match[1], data[:4]):
                signed.append(key)
                if not key.has_signed(text, data[4:]):
                    raise RejectedError(where, f"the signature of {key.name} does not hold")
    return signed


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees as a node."""
    return sha256(b"\1" + left + right).digest()


def root_of(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Return the root of a tree: row 0 the leaves after the last full tile, row 1 the full tiles not in row 2, ..."""
    root = None
    for row in rows:
        rest = list(row)
        while rest:
            pairs = rest[-(bit := len(rest) & -len(rest)) :]
            while len(pairs) > 1:
                pairs = [node_hash(*pairs[at : at + 2]) for at in range(0, len(pairs), 2)]
            root = pairs[0] if root is None else node_hash(pairs[0], root)
            del rest[-bit:]
    return sha256().digest() if root is None else root


def root_by_proof(entry: bytes, index: int, size: int, proof: Sequence[bytes], where: str) -> bytes:
    """Return the root that an inclusion proof leads to."""
    last, here, at = size - 1, leaf_hash(entry), index
    for side in proof:
        if last == 0:
            raise RejectedError(where, "its proof is too long")
        if at % 2 or at == last:
            while not at % 2:
                at, last = at >> 1, last >> 1
            here = node_hash(side, here)
        else:
            here = node_hash(here, side)
        at, last = at >> 1, last >> 1
    if last:
        raise RejectedError(where, "its proof is too short")
    return here


def name_of(row: str, index: int, width: int = WIDTH) -> str:
    """Return the name of a tile or bundle below the folder."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return f"tile/{row}/{'/'.join(groups)}" + ("" if width == WIDTH else f".p/{width}")


@dataclass
class Folder:
    """Hold a copied folder, and which of its files have had their turn."""

    root: Path
    live: bool = False
    seen: set[str] = field(default_factory=set)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if it is not there."""
        path = self.root / name
        self.seen.add(name)
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None

    def need(self, row: str, index: int, width: int) -> tuple[str, bytes, int]:
        """Return name, bytes and width of a tile; of a log copied while written, a wider one will do."""
        for wide in range(width, WIDTH + 1) if self.live else (width,):
            name = name_of(row, index, wide)
            if (data := self.read(name)) is not None:
                return name, data, wide
        raise RejectedError(name_of(row, index, width), "is missing")

    def hashes(self, row: int | str, index: int, width: int) -> tuple[str, list[bytes]]:
        """Return name and hashes of a tile."""
        name, data, wide = self.need(str(row), index, width)
        if len(data) != 32 * wide:
            raise RejectedError(name, f"has {len(data)} octets, not {32 * wide}")
        return name, [data[at : at + 32] for at in range(0, 32 * width, 32)]

    def entries(self, index: int, width: int) -> tuple[str, list[bytes]]:
        """Return name and entries of a bundle; a pruned entry is empty."""
        name = name_of("kept", index)
        data = self.read(name) if width == WIDTH else None
        wide, kept = WIDTH, data is not None
        if data is None:
            name, data, wide = self.need("entries", index, width)
        elif self.read(name_of("entries", index)) is not None and not self.live:
            raise RejectedError(name, "stands beside the entries that it replaces")
        found, at = [], 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 2])
            found.append(data[at + 2 : at + 2 + length])
            at += 2 + length
            if len(found) > wide or at > len(data) or not (length or kept):
                raise RejectedError(name, f"its entry {len(found) - 1} cannot be one")
        if len(found) != wide:
            raise RejectedError(name, f"holds {len(found)} entries, not {wide}")
        return name, found[:width]

    def check_rest(self, size: int) -> None:
        """Refuse files that have no place in the log; an earlier, shorter tile must begin the one that replaced it."""
        files = (path for path in self.root.rglob("*") if not path.is_dir())
        for name in {path.relative_to(self.root).as_posix() for path in files} - self.seen:
            match = re.fullmatch(r"tile/([0-9]|entries)/([0-9x/]*[0-9])\.p/([0-9]{1,3})", name)
            row, index, width = match.groups() if match else ("", "0", "0")
            read = self.entries if row == "entries" else partial(self.hashes, row)
            at, short = int(re.sub("[x/]", "", index)), int(width)
            now = min(WIDTH, (size >> 8 * int(row if row.isdigit() else 0)) - at * WIDTH)
            if not 0 < short < now or name != name_of(row, at, short):
                raise RejectedError(name, "does not belong to this log")
            if read(at, now)[1][:short] != read(at, short)[1]:
                raise RejectedError(name, "is no beginning of what replaced it")


@dataclass
class Report:
    """Say what was verified, and what is odd although everything holds."""

    origin: str
    size: int
    root: bytes
    remarks: list[str]


@dataclass
class Walk:
    """Go through the entries, bundle by bundle; hold the hashes of each row that is not yet a full tile."""

    folder: Folder
    size: int
    waiting: list[tuple[str, Checkpoint]]
    months: dict[str, str]
    rows: list[list[bytes]] = field(default_factory=list)
    intents: dict[str, list[int]] = field(default_factory=dict)
    pruned: list[tuple[int, bytes]] = field(default_factory=list)
    declared: tuple[int, int, str] = (0, 0, sha256().hexdigest())
    remarks: list[str] = field(default_factory=list)
    time_ms: int = 0

    def start_at(self, start: int) -> None:
        """Take the rows before an entry (a multiple of 256) from the tiles; what follows proves them right."""
        while start >> 8 * len(self.rows):
            level, done = len(self.rows), start >> 8 * len(self.rows)
            width = min(WIDTH, (self.size >> 8 * level) - (done & ~255)) if done & 255 else 0
            tile = self.folder.hashes(level, done >> 8, width)[1] if width else []
            self.rows.append(tile[: done & 255])

    def bundle(self, first: int) -> None:
        """Check a bundle of entries, its tile, and the checkpoints that end in it."""
        width = min(WIDTH, self.size - first)
        _, entries = self.folder.entries(first // WIDTH, width)
        stored = self.folder.hashes(0, first // WIDTH, width)[1]
        leaves = [leaf_hash(one) if one else stored[at] for at, one in enumerate(entries)]
        self._compare(0, first // WIDTH, leaves)
        if not all(entries):  # pruned: only the tile above tells that their hashes are the same
            wide = min(WIDTH, (self.size >> 8) - (first >> 16 << 8))
            name, above = self.folder.hashes(1, first >> 16, wide)
            if above[first >> 8 & 255] != root_of([leaves]):
                raise RejectedError(name_of("0", first >> 8), f"does not fit {name}")
        self._check_due(first, leaves)
        for at, entry in enumerate(entries, first):
            if entry:
                self._note_meaning(at, entry)
            else:
                self.pruned.append((at, leaves[at - first]))
        self._add(0, leaves, first + width)

    def _check_due(self, first: int, leaves: list[bytes]) -> None:
        while self.waiting and self.waiting[0][1].size <= first + len(leaves):
            (name, head), rows = self.waiting.pop(0), self.rows or [[]]
            if root_of([[*rows[0], *leaves[: head.size - first]], *rows[1:]]) != head.root:
                raise RejectedError(name, f"the first {head.size} entries are not those it signed")

    def _add(self, level: int, hashes: list[bytes], done: int) -> None:
        if level == len(self.rows):
            self.rows.append([])
        row = self.rows[level] = self.rows[level] + hashes
        if len(row) == WIDTH:
            if level:
                self._compare(level, (done >> 8 * level + 8) - 1, row)
            self.rows[level] = []
            self._add(level + 1, [root_of([row])], done)

    def _compare(self, level: int, index: int, row: list[bytes]) -> None:
        wide = min(WIDTH, (self.size >> 8 * level) - index * WIDTH)
        name, stored = self.folder.hashes(level, index, wide)
        for at, (one, other) in enumerate(zip(row, stored, strict=False)):
            if one != other:
                first = (index * WIDTH + at) << 8 * level
                raise RejectedError(name, f"hash {at} does not fit the entries from {first} on")

    def finish(self, end: int) -> None:
        """Check what is left: checkpoints at the end, tiles that are not full."""
        self._check_due(end, [])
        for level, row in enumerate(self.rows):
            if level and row:
                self._compare(level, end >> 8 * level + 8, row)
        for at in sorted(at for waiting in self.intents.values() for at in waiting):
            self.remarks.append(f"entry {at}: an intent without an outcome that is known")

    def check_pruned(self) -> None:
        """Compare the pruned entries with what the log itself says was pruned."""
        digest = sha256(b"".join(leaf for _, leaf in self.pruned)).hexdigest()
        first, last = (self.pruned[0][0], self.pruned[-1][0]) if self.pruned else (0, -1)
        if (len(self.pruned), digest) != self.declared[1:] or last >= self.declared[0]:
            raise RejectedError(f"entry {first}", "what was pruned is not what the log declares")
        self.remarks += [f"{len(self.pruned)} entries were pruned, as declared"] * (last >= 0)

    def _note_meaning(self, index: int, entry: bytes) -> None:
        try:
            event = json.loads(entry.decode())  # noqa: TID251 - this file stands alone
            kind, time_ms, change = event["kind"], event["time_ms"], event.get("change")
            if event["v"] != 1 or time_ms < self.time_ms - CLOCK_MS:
                self.remarks.append(f"entry {index}: its version is unknown, or it is out of time")
            self.time_ms = max(time_ms, self.time_ms)
            if kind == "intent":
                self.intents.setdefault(event["interaction_id"], []).append(index)
            elif kind == "outcome" and ">" not in (change or ""):
                if not (waiting := self.intents.pop(event["interaction_id"], [])):
                    self.remarks.append(f"entry {index}: an outcome without an intent")
                elif left := waiting[event.get("verdict") != "unknown" :]:
                    self.intents[event["interaction_id"]] = left
            elif (kind, change) == ("node", "month-closed"):
                month, _, closed = event["subject"].partition(" ")
                if self.months.get(month) != closed:
                    raise RejectedError(f"months/{month}", f"is not what entry {index} names")
            elif (kind, change) == ("admin", "pruned"):
                end, digest = event["subject"].split(" ")
                self.declared = int(end), event["count"], digest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.remarks.append(f"entry {index}: is no event of version 1")


def _months(folder: Folder, keys: Keys) -> list[tuple[str, Checkpoint]]:
    """Read the checkpoints that closed the months; each month's must be no smaller than the month's before."""
    found: list[tuple[str, Checkpoint]] = []
    for path in sorted((folder.root / "months").glob("*")):
        note = folder.read(name := f"months/{path.name}")
        if note is None or not re.fullmatch(r"[0-9]{4}-[0-9]{2}", path.name):
            raise RejectedError(name, "does not belong to this log")
        head = open_checkpoint(note, keys, (), name)
        if found and head.size < found[-1][1].size:
            raise RejectedError(name, "is smaller than the month's before it")
        found.append((name, head))
    return found


def verify_log(
    root: Path,
    key: Keys,
    *,
    witnesses: Keys = (),
    older: Sequence[tuple[str, bytes]] = (),
    since: bytes | None = None,
    until: bytes | None = None,
    live: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Verify a copied log: signed by one of its keys and, newest, by every witness; ``older`` must be beginnings of it.

    ``since``, ``until``: read only the bundles from and up to these. ``live``: pass over what the newest does not cover.
    """
    folder = Folder(root, live)
    if (note := folder.read("checkpoint")) is None:
        raise RejectedError("checkpoint", "is missing")
    head = open_checkpoint(note, key, witnesses, "checkpoint")
    months = _months(folder, key)
    kept = [(name, open_checkpoint(text, key, (), name)) for name, text in older]
    start, last = 0, ("checkpoint", head)
    if since is not None:
        kept.append(("--since", open_checkpoint(since, key, (), "--since")))
        start = min(kept[-1][1].size, head.size) // WIDTH * WIDTH
    if until is not None:
        last = "--until", open_checkpoint(until, key, (), "--until")
    for name, one in [*months, *kept, last]:
        if one.origin != head.origin or one.size > head.size:
            raise RejectedError(name, f"{name} had {one.size} entries; this log has {head.size}")
    if odd := [name for name, one in kept if not start <= one.size <= last[1].size]:
        raise RejectedError(odd[0], "is not between the checkpoints to begin and to end with")
    kept += [month for month in months if start <= month[1].size <= last[1].size]
    closed = {name[7:]: f"{one.size} {one.root.hex()}" for name, one in months}
    walk = Walk(folder, head.size, [*sorted(kept, key=lambda one: one[1].size), last], closed)
    walk.start_at(start)
    end = min(-(-last[1].size // WIDTH) * WIDTH, head.size)
    for first in range(start, end, WIDTH):
        walk.bundle(first)
        if progress is not None and first % STEP < WIDTH:
            progress(first, end)
    walk.finish(end)
    if start == 0 and until is None:
        walk.check_pruned()
        if not live:
            folder.check_rest(head.size)
    return Report(head.origin, last[1].size, last[1].root, walk.remarks)


def verify_receipt(
    receipt: bytes, key: Keys, *, witnesses: Keys = (), where: str = "receipt"
) -> tuple[int, bytes, Checkpoint]:
    """Verify a receipt; return the entry's index, the entry, and the checkpoint of the tree that it is in."""
    text, _, note = receipt.partition(b"\n\n")
    lines = text.decode(errors="replace").split("\n")
    if [lines[0], *(line[:6] for line in lines[1:3])] != [PROOF, "extra ", "index "]:
        raise RejectedError(where, "is no receipt")
    entry, index = decode64(lines[1][6:], where), number(lines[2][6:], where)
    proof = [decode64(line, where) for line in lines[3:]]
    head = open_checkpoint(note, key, witnesses, where)
    if index >= head.size or any(len(side) != 32 for side in proof):
        raise RejectedError(where, "its proof cannot be one")
    if not compare_digest(root_by_proof(entry, index, head.size, proof, where), head.root):
        raise RejectedError(where, "the entry is not in the tree of its checkpoint")
    return index, entry, head


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Verify an audit log, or receipts of its entries.")
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--key", type=_keys, required=True, help="the log's key, or a file of keys")
    both.add_argument("--witness", type=_keys, action="extend", default=[], help="likewise")
    log = commands.add_parser("log", help="a copied log folder", parents=[both])
    log.add_argument("folder", type=Path)
    log.add_argument("--checkpoint", type=Path, action="append", default=[], help="kept earlier")
    log.add_argument("--since", type=Path, help="a checkpoint kept earlier: begin there")
    log.add_argument("--until", type=Path, help="a checkpoint kept earlier: end there")
    log.add_argument("--live", action="store_true", help="the log is being written")
    receipt = commands.add_parser("receipt", help="receipts of entries", parents=[both])
    receipt.add_argument("files", type=Path, nargs="+")
    return parser


def _keys(text: str) -> list[Key]:
    return [Key.parse(one) for one in (text if "+" in text else Path(text).read_text()).split()]


def _run(options: argparse.Namespace) -> Iterator[str]:
    more: dict[str, Any] = {"witnesses": options.witness}
    if options.command == "receipt":
        for file in options.files:
            where = str(file)
            at, entry, head = verify_receipt(file.read_bytes(), options.key, where=where, **more)
            yield f"{file}: entry {at} is in the log {head.origin} of {head.size} entries"
            yield entry.decode(errors="replace")
        return
    more["older"] = kept = [(str(file), file.read_bytes()) for file in options.checkpoint]
    more["since"], more["until"] = [f and f.read_bytes() for f in (options.since, options.until)]
    more["progress"] = lambda at, size: sys.stderr.write(f"{at} of {size} entries\n")
    report = verify_log(options.folder, options.key, live=options.live, **more)
    yield f"{report.origin}: {report.size} entries, root {report.root.hex()}: everything holds"
    yield from (f"{name}: is a beginning of it" for name, _ in kept)
    yield from (f"note: {remark}" for remark in report.remarks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    try:
        sys.stdout.writelines(f"{line}\n" for line in _run(_parser().parse_args(arguments)))
    except (RejectedError, OSError) as error:
        sys.stdout.write(f"REJECTED {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
