"""Witnesses: whoever holds a key checks that the log only grows, and says so under its checkpoint.

Theory. A log that shows two people two histories is found out when both histories need the same witness's signature:
the witness remembers the last head it signed and wants a consistency proof from it to the next one. ``decide`` is that
check, a pure function; a shell keeps the new ``Latest`` durably and atomically before it answers. The log's side is
``request_of`` and ``join``.

Source: C2SP tlog-witness, tlog-cosignature.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hub.audit.note import Checkpoint, NoteError, Signer, Verifier, open_note, split
from hub.audit.tiles import Tiles, View
from hub.protocol.merkle import EMPTY_ROOT, consistency_proof, verify_consistency

_LINES: Final = 63
_REQUEST_OCTETS: Final = 1_000_000


def read_witness(line: str) -> tuple[str, Verifier]:
    """Read who is asked for a cosignature: a base URL and a verifier key, with a space between.

    Raises:
        NoteError: It is something else.
    """
    url, _, vkey = line.partition(" ")
    if not url.startswith("https://"):
        raise NoteError("a witness is a https:// URL and a verifier key")
    return url.rstrip("/"), Verifier.parse(vkey)


class Latest(msgspec.Struct, frozen=True):
    """Hold what a witness remembers of a log: the size and root that it signed last."""

    size: int = 0
    root: bytes = EMPTY_ROOT


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a witness's answer; ``latest`` is what to remember, durably, before it is sent (None: no change)."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    origin: str = ""
    latest: Latest | None = None


def decide(
    body: bytes,
    *,
    logs: Mapping[str, Sequence[Verifier]],
    latest: Mapping[str, Latest],
    signer: Signer,
    now: int,
) -> Answer:
    """Decide on an ``add-checkpoint`` request.

    Args:
        body: The request's body.
        logs: The keys of each log that the witness knows, by origin.
        latest: What it remembers of each.
        signer: The witness's key, of the kind ``COSIGNATURE``.
        now: Seconds since 1970.

    Faults: 400 malformed, 403 no known key has signed, 404 unknown log, 409 not the size (or root) remembered,
    422 the proof does not hold.

    Source: tlog-witness, "add-checkpoint".
    """
    try:
        old, proof, note = _parse(body)
        new = Checkpoint.parse(split(note)[0])
    except (NoteError, ValueError):
        return Answer(status=400, body=b"the request is malformed\n")
    if new.origin not in logs:
        return Answer(status=404, body=b"the log is unknown\n")
    try:
        open_note(note, logs[new.origin])
    except NoteError:
        return Answer(status=403, body=b"no known key of the log has signed the checkpoint\n")
    return _judge(old, proof, note, new, latest.get(new.origin, Latest()), signer, now)


def _judge(
    old: int,
    proof: Sequence[bytes],
    note: str,
    new: Checkpoint,
    seen: Latest,
    signer: Signer,
    now: int,
) -> Answer:
    if old > new.size:
        return Answer(status=400, body=b"the old size is larger than the new one\n")
    if old != seen.size or (old == new.size and seen.root != new.root):
        size = f"{seen.size}\n".encode()
        return Answer(status=409, body=size, content_type="text/x.tlog.size")
    if not verify_consistency(old, seen.root, new.size, new.root, proof):
        return Answer(status=422, body=b"the consistency proof does not hold\n")
    line = signer.cosign(note, now).removeprefix(note)
    remember = Latest(new.size, new.root)
    return Answer(status=200, body=line.encode(), origin=new.origin, latest=remember)


def _parse(body: bytes) -> tuple[int, list[bytes], str]:
    if len(body) > _REQUEST_OCTETS:
        raise ValueError("the request is too long")
    head, gap, note = body.decode().partition("\n\n")
    lines = head.split("\n")
    size = lines[0].removeprefix("old ")
    if (
        not gap
        or size == lines[0]
        or not size.isascii()
        or str(int(size)) != size
        or size[0] == "-"
    ):
        raise ValueError("the request does not begin with the old size")
    if len(lines) - 1 > _LINES:
        raise ValueError("the proof is too long")
    return int(size), [b64decode(line, validate=True) for line in lines[1:]], note


def request_of(tiles: Tiles, note: str, old: int) -> bytes:
    """Return the request that asks a witness, which has signed size ``old`` last, to sign a checkpoint.

    Raises:
        LogError: A tile is missing or damaged.
        ValueError: The checkpoint is older than ``old``.
    """
    size = Checkpoint.parse(split(note)[0]).size
    proof = consistency_proof(old, size, View(tiles, size).complete)
    lines = [f"old {old}", *(b64encode(part).decode() for part in proof)]
    return ("\n".join(lines) + "\n\n" + note).encode()


def join(note: str, lines: str, witness: Verifier) -> str:
    """Return the note with the witness's valid lines from its answer; others are left out.

    Raises:
        NoteError: None of the lines is a valid signature of the witness.
    """
    text, _ = split(note)
    kept = []
    for line in lines.splitlines(keepends=True)[:16]:
        try:
            open_note(f"{text}\n{line}", [witness])
        except NoteError:
            continue
        kept.append(line)
    if not kept:
        raise NoteError(f"{witness.name!r} has not signed the checkpoint")
    return note + "".join(kept)
