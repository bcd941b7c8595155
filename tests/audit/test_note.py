"""Signed notes, checkpoints and verifier keys."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit.note import (
    COSIGNATURE,
    Checkpoint,
    NoteError,
    Signer,
    Verifier,
    check_name,
    open_note,
    split,
)

TEXT = Checkpoint("hub.example/log", 12, b"\x01" * 32).text()


def signer_of(seed: int, name: str = "hub.example/log", kind: int = 1) -> Signer:
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), kind)


def pem_of(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_checkpoint_of_the_specification_is_read():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == text


def test_a_known_verifier_key_has_the_known_id():
    """The key of Go's checksum database, published with its module proxy."""
    vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert Verifier.parse(vkey).vkey() == vkey


def test_a_signed_note_opens_with_its_key_only():
    note = signer_of(1).sign(TEXT)
    text, signed = open_note(note, [signer_of(1).verifier, signer_of(2).verifier])
    assert (text, signed) == (TEXT, [signer_of(1).verifier])
    with pytest.raises(NoteError, match="no trusted key"):
        open_note(note, [signer_of(2).verifier])
    with pytest.raises(NoteError, match="does not hold"):
        open_note(note.replace("\n12\n", "\n13\n"), [signer_of(1).verifier])


def test_a_witness_signs_the_time_and_the_text():
    witness = signer_of(3, "witness.example/w", COSIGNATURE)
    note = witness.cosign(signer_of(1).sign(TEXT), 1_800_000_000)
    _, signed = open_note(note, [signer_of(1).verifier, witness.verifier])
    assert signed == [signer_of(1).verifier, witness.verifier]
    later = witness.cosign(signer_of(1).sign(TEXT), 1_800_000_001)
    assert later != note
    spoiled = signer_of(1).sign(TEXT) + note.splitlines(keepends=True)[-1].replace("w ", "w A", 1)
    with pytest.raises(NoteError):
        open_note(spoiled, [witness.verifier])


def test_an_unknown_signature_is_passed_over():
    stranger = signer_of(9, "stranger.example")
    note = signer_of(1).sign(TEXT) + stranger.sign(TEXT).rpartition("\n\n")[2]
    assert open_note(note, [signer_of(1).verifier])[1] == [signer_of(1).verifier]


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        TEXT + "\n",
        TEXT + "\n\u2014 a\n",
        TEXT + "\n- a AAAAAAAAAAA=\n",
        TEXT + "\n\u2014 a AAAA\n",
        TEXT + "\n\u2014 a AAAAAAAAAAB=\n",
        TEXT + "\n\u2014 a+b AAAAAAAAAAA=\n",
        TEXT + "\n\u2014 a AAAAAAAAAAA=",
        TEXT + "\r\n\n\u2014 a AAAAAAAAAAA=\n",
    ],
)
def test_what_is_not_a_signed_note_is_refused(note):
    with pytest.raises(NoteError):
        split(note)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        "o\n01\n" + "A" * 43 + "=\n",
        "o\n-1\n" + "A" * 43 + "=\n",
        "o\n1\nAAAA\n",
        "\n1\n" + "A" * 43 + "=\n",
        "o\n1\n" + "A" * 43 + "=",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text):
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u00a0b"])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(NoteError):
        check_name(name)


@pytest.mark.parametrize("vkey", ["", "a+b", "a+00000000+AAAA", "a+00000000+" + "A" * 44])
def test_a_verifier_key_that_cannot_be_is_refused(vkey):
    with pytest.raises(NoteError):
        Verifier.parse(vkey)


def test_the_key_comes_from_a_pem_of_ed25519_only():
    key = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    assert Signer.load("hub.example/log", pem_of(key)).verifier == signer_of(1).verifier
    with pytest.raises(NoteError, match="Ed25519"):
        Signer.load("hub.example/log", pem_of(generate_private_key(65537, 2048)))
    with pytest.raises(NoteError, match="PEM"):
        Signer.load("hub.example/log", b"nothing")
