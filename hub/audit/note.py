"""Signed notes and checkpoints: the tree's head as a text that anybody can check.

A key's public form (``vkey``) is ``name+hex(id)+base64(type || public key)``; the id is the beginning of a hash over
name, type and key, so that one name may have several keys. The log signs with type 1 (plain Ed25519), a witness
cosigns with type 4 (Ed25519 over a timestamp and the text).

Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ED25519: Final = 1
COSIGNATURE: Final = 4
_DASH: Final = "\N{EM DASH} "
_NOTE_OCTETS: Final = 1_000_000


class NoteError(ValueError):
    """Say why a note, a key or a checkpoint is not what it should be."""


class Checkpoint(msgspec.Struct, frozen=True):
    """Hold the head of a log: whose it is, how many leaves it has, and its root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text that is signed. Source: tlog-checkpoint, "Note text"."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note; extension lines are passed over.

        Raises:
            NoteError: It is not a checkpoint.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise NoteError("a checkpoint has at least three lines, none of them empty")
        root = _base64(lines[2])
        if not lines[1].isascii() or not lines[1].isdigit() or str(int(lines[1])) != lines[1]:
            raise NoteError(f"the size of a checkpoint is not a number: {lines[1][:40]!r}")
        if len(root) != 32:
            raise NoteError("the root of a checkpoint is not 32 octets long")
        return cls(lines[0], int(lines[1]), root)


class Verifier(msgspec.Struct, frozen=True):
    """Hold a public key that may stand under notes."""

    name: str
    type: int
    key: bytes

    @property
    def id(self) -> bytes:
        """Return the key's id, four octets."""
        packed = self.name.encode() + b"\n" + bytes([self.type]) + self.key
        return sha256(packed).digest()[:4]

    def vkey(self) -> str:
        """Return the key's public form."""
        key = b64encode(bytes([self.type]) + self.key).decode()
        return f"{self.name}+{self.id.hex()}+{key}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a key's public form.

        Raises:
            NoteError: It is not one of ours: malformed, a wrong id, an unknown type.
        """
        parts = vkey.strip().split("+", 2)
        packed = _base64(parts[2]) if len(parts) == 3 else b""
        if len(packed) != 33 or packed[0] not in {ED25519, COSIGNATURE}:
            raise NoteError("a verifier key is name+id+base64 of an Ed25519 key")
        self = cls(check_name(parts[0]), packed[0], packed[1:])
        if self.id.hex() != parts[1]:
            raise NoteError(f"the id of the verifier key of {parts[0]!r} does not fit it")
        return self

    def verify(self, text: str, signature: bytes) -> bool:
        """Tell whether a signature (without the key's id) stands for a text."""
        message = text.encode()
        if self.type == COSIGNATURE:
            if len(signature) != 72:
                return False
            message, signature = _cosigned(int.from_bytes(signature[:8]), text), signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer:
    """Hold a private key that signs notes under a name."""

    def __init__(self, name: str, key: Ed25519PrivateKey, kind: int = ED25519) -> None:
        """Sign as ``name``; ``kind`` is ``ED25519`` for a log, ``COSIGNATURE`` for a witness."""
        self._key = key
        self.verifier = Verifier(check_name(name), kind, key.public_key().public_bytes_raw())

    @classmethod
    def load(cls, name: str, pem: bytes, kind: int = ED25519) -> Self:
        """Take the key from an unencrypted PKCS #8 PEM.

        Raises:
            NoteError: It is not an Ed25519 key.
        """
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise NoteError("the log's key is not an unencrypted PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise NoteError("the log's key is not an Ed25519 key")
        return cls(name, key, kind)

    def sign(self, text: str) -> str:
        """Return the signed note of a text that ends in a newline."""
        return f"{text}\n{self._line(self._key.sign(text.encode()))}"

    def cosign(self, note: str, now: int) -> str:
        """Return the note with a witness's line added; ``now`` in seconds. Source: tlog-cosignature."""
        text, _ = split(note)
        return note + self._line(now.to_bytes(8) + self._key.sign(_cosigned(now, text)))

    def _line(self, signature: bytes) -> str:
        packed = b64encode(self.verifier.id + signature).decode()
        return f"{_DASH}{self.verifier.name} {packed}\n"


def check_name(name: str) -> str:
    """Return a key's name or origin if it can be one.

    Raises:
        NoteError: It is empty, or holds spaces, plus signs or control characters.
    """
    if not name or "+" in name or not name.isprintable() or any(map(str.isspace, name)):
        raise NoteError(f"{name!r} cannot be the name of a key")
    return name


def split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Cut a note into its text and its signatures: key name, and id with signature.

    Raises:
        NoteError: It is not a signed note.
    """
    text, empty, tail = note.rpartition("\n\n")
    if not empty or not tail.endswith("\n") or len(note) > _NOTE_OCTETS:
        raise NoteError("a signed note is a text, an empty line and signature lines")
    if any(ord(char) < 32 and char != "\n" for char in note):
        raise NoteError("a signed note holds no control characters")
    return text + "\n", [_signature(line) for line in tail[:-1].split("\n")]


def _signature(line: str) -> tuple[str, bytes]:
    name, space, packed = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise NoteError("a signature line of a note is a dash, a name and a signature")
    signature = _base64(packed)
    if len(signature) < 5:
        raise NoteError("a signature of a note is too short")
    return check_name(name), signature


def open_note(note: str, trusted: Sequence[Verifier]) -> tuple[str, list[Verifier]]:
    """Return the text of a note and which trusted keys have signed it; unknown signatures are passed over.

    Raises:
        NoteError: No trusted key has signed it, or a signature of one does not hold.
    """
    text, signatures = split(note)
    by_id = {(key.name, key.id): key for key in trusted}
    signed = []
    for name, signature in signatures:
        key = by_id.get((name, signature[:4]))
        if key is None:
            continue
        if not key.verify(text, signature[4:]):
            raise NoteError(f"the signature of {name!r} does not hold")
        signed.append(key)
    if not signed:
        names = ", ".join(sorted({name for name, _ in signatures}))
        known = ", ".join(sorted({key.name for key in trusted}))
        raise NoteError(
            f"no trusted key has signed the note (signed as {names}; trusted is {known})"
        )
    return text, signed


def _cosigned(now: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {now}\n{text}".encode()


def _base64(text: str) -> bytes:
    try:
        octets = b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError("not base64") from error
    if b64encode(octets).decode() != text:
        raise NoteError("not the one base64 form of its octets")
    return octets
