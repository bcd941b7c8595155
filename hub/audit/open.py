"""Where a tenant's log is: ``audit/`` in its folder, with the public key and the verifier beside the log.

``audit/log/`` holds the checkpoint and the tiles and nothing else, so that it can be copied, or served as it is;
``audit/key``, ``audit/verify.py`` and ``audit/FORMAT.md`` lie beside it for an auditor who needs nothing of ours. ``key``
holds every key that the log was ever signed with, oldest first: an old receipt verifies after any rotation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from hub.audit.log import CHECKPOINT, Log
from hub.audit.note import Checkpoint, NoteError, Signer, Verifier, open_note
from hub.audit.receipt import format_text, verifier_source
from hub.audit.tiles import LogError, Tiles
from hub.audit.verify import Key, Report, verify_log
from hub.model.failpoint import Failpoint, no_failpoint

AUDIT: Final = "audit"
LOG: Final = "log"
KEY: Final = "key"
VERIFIER: Final = "verify.py"
FORMAT: Final = "FORMAT.md"


def origin_of(issuer: str) -> str:
    """Return the log's name: the issuer without its scheme, and ``/log``."""
    return f"{issuer.removeprefix('https://')}/log"


def open_log(
    folder: Path,
    *,
    origin: str,
    pem: bytes,
    retiring: Sequence[bytes] = (),
    failpoint: Failpoint = no_failpoint,
    keep: bool = True,
) -> Log:
    """Open the tenant's log for writing; only the process that has the tenant's state open does this.

    Args:
        folder: The tenant's folder.
        origin: The log's name, see ``origin_of``.
        pem: The log's private key: Ed25519, PKCS #8 PEM, not encrypted.
        retiring: Private keys that it replaces; they sign beside it.
        failpoint: For tests.
        keep: Note a new key among those of the log; without it ``keep_key`` must, once the event of it is durable.

    Raises:
        NoteError: The key or the name cannot be used.
        LogError: The files are damaged, or another key's.
    """
    signer = Signer.load(origin, pem)
    older = [Signer.load(origin, one) for one in retiring]
    log = Log(folder / AUDIT / LOG, signer, retiring=older, failpoint=failpoint)
    beside = Tiles(folder / AUDIT)
    log.new_key = log.vkey not in _known(folder / AUDIT / KEY)
    if keep or not log.new_key:
        keep_key(folder, log)
    _refresh(beside, VERIFIER, verifier_source())
    _refresh(beside, FORMAT, format_text())
    return log


def keep_key(folder: Path, log: Log) -> None:
    """Note the log's keys among those that it was ever signed with.

    Raises:
        LogError: What is there is spoilt.
        OSError: The disk does not take it.
    """
    signing, *older = (one.vkey() for one in log.verifiers)
    keys = dict.fromkeys([*_known(folder / AUDIT / KEY), *older, signing])
    _refresh(Tiles(folder / AUDIT), KEY, "".join(f"{vkey}\n" for vkey in keys).encode())


def _refresh(beside: Tiles, name: str, data: bytes) -> None:
    """Write what is not there yet, or is another: a full disk stops no start that has nothing to write."""
    file = beside.folder / name
    if not file.exists() or file.read_bytes() != data:
        beside.replace(name, data)


def _known(file: Path) -> list[str]:
    """Return the keys that the log was signed with before; none is passed on that is not whole."""
    try:
        known = file.read_text().split() if file.exists() else []
        for vkey in known:
            Verifier.parse(vkey)
    except (NoteError, UnicodeDecodeError) as error:
        raise LogError(f"{file}: {error}") from error
    return known


class ReadLog:
    """A published log as another process sees it: for receipts, exports and verification."""

    def __init__(self, tiles: Tiles, note: str, size: int, vkey: str) -> None:
        """Hold what ``read`` found."""
        self.tiles = tiles
        self.note = note
        self.size = size
        self.vkey = vkey
        """Every key the log was signed with, one per line, oldest first."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the last checkpoint of the tenant's log.

        Raises:
            LogError: There is none, or its signature does not hold.
        """
        audit = folder / AUDIT
        try:
            vkey = (audit / KEY).read_text().strip()
            note = (audit / LOG / CHECKPOINT).read_text()
            text, _ = open_note(note, [Verifier.parse(one) for one in vkey.split()])
            size = Checkpoint.parse(text).size
        except OSError as error:
            raise LogError(f"{audit}: no published log can be read ({error})") from None
        except (NoteError, UnicodeDecodeError) as error:
            raise LogError(f"{audit / LOG / CHECKPOINT}: {error}") from None
        return cls(Tiles(audit / LOG), note, size, vkey)

    def verify(self, *, older: list[tuple[str, bytes]] | None = None) -> Report:
        """Verify the whole log, passing over files newer than its checkpoint.

        Raises:
            RejectedError: What does not hold, and where.
        """
        keys = [Key.parse(one) for one in self.vkey.split()]
        return verify_log(self.tiles.folder, keys, older=older or [], live=True)
