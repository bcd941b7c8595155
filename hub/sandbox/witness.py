"""The sandbox's witness of the audit logs, and the keys of both: what a central bank would run for real.

It speaks C2SP tlog-witness: ``POST /add-checkpoint``. What it signed last is written down, durably, before it answers.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit.note import COSIGNATURE, Signer
from hub.audit.open import origin_of
from hub.audit.witness import Latest, decide
from hub.model.clock import Clock
from hub.sandbox.places import Places
from hub.sandbox.site import SiteRequest, SiteResponse

NAME: Final = "witness.sandbox.example"
_REMEMBERED: Final = "latest.json"


def witness_key(places: Places) -> Signer:
    """Return what the witness signs with."""
    pem = key_file(places.keys / "witness" / "witness.key").read_bytes()
    return Signer.load(NAME, pem, COSIGNATURE)


def witness_key_of(folder: Path) -> Path:
    """Return the file with the witness's public key, in a sandbox's folder."""
    return folder / "keys" / "witness" / "witness.pub"


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def key_file(path: Path) -> Path:
    """Return a file with an Ed25519 private key, made at its first use, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        with open(path, "xb", opener=_private) as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@final
class SandboxWitness:
    """Cosign the checkpoints of the sandbox's tenants, each only as a continuation of the one before."""

    def __init__(self, places: Places, logs: Mapping[str, Path], clock: Clock) -> None:
        """Know these logs (issuer and file of the key); take up what was remembered."""
        self._signer = witness_key(places)
        self._clock = clock
        self._logs = {
            origin_of(issuer): [Signer.load(origin_of(issuer), path.read_bytes()).verifier]
            for issuer, path in logs.items()
        }
        witness_key_of(places.folder).write_text(self._signer.verifier.vkey() + "\n")
        self._file = places.keys / "witness" / _REMEMBERED
        self._latest: dict[str, Latest] = {}
        if self._file.exists():
            self._latest = msgspec.json.decode(self._file.read_bytes(), type=dict[str, Latest])
        self._one_at_a_time = trio.Lock()

    async def handler(self, request: SiteRequest) -> SiteResponse:
        """Answer ``POST /add-checkpoint``. Cancellation: may have remembered what it did not sign."""
        if (request.method, request.path) != ("POST", "/add-checkpoint"):
            return SiteResponse(status=404)
        async with self._one_at_a_time:
            answer = decide(
                request.body,
                logs=self._logs,
                latest=self._latest,
                signer=self._signer,
                now=self._clock.now(),
            )
            if answer.latest is not None:
                await trio.to_thread.run_sync(self._remember, answer.origin, answer.latest)
        headers = (("content-type", answer.content_type),)
        return SiteResponse(status=answer.status, headers=headers, body=answer.body)

    def _remember(self, origin: str, latest: Latest) -> None:
        found = {**self._latest, origin: latest}
        part = self._file.with_suffix(".part")
        with part.open("wb") as file:
            file.write(msgspec.json.encode(found))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file)
        self._latest = found
