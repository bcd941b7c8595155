"""Where our keys come from: PEM, encrypted PEM, PKCS#12, and a token (SoftHSM2)."""

import errno
import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pkcs11
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from hub.cli import main
from hub.config import config_folder, load
from hub.node.errors import StartError
from hub.node.keys import load_signing_key
from hub.node.token_key import load_token_key, place_of
from hub.protocol import jose

PASSWORD = b"correct horse"
RSA = rsa.generate_private_key(65537, 2048)
MODULE = next(
    (path for path in Path("/usr/lib").glob("**/libsofthsm2.so")),
    Path("/usr/lib/softhsm/libsofthsm2.so"),
)


def certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sig2")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=365))
        .sign(key, SHA256())
    )


def pem(key, password=None):
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def thumbprint_of(made):
    return jose.b64url(hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).digest())


@pytest.fixture
def password(tmp_path):
    path = tmp_path / "password"
    path.write_bytes(PASSWORD + b"\n")
    return path


@pytest.mark.parametrize(
    "key",
    [RSA, ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["RSA", "P-256", "Ed25519"],
)
def test_a_bare_key_is_named_by_its_rfc_7638_thumbprint(tmp_path, key):
    path = tmp_path / "sig.key"
    path.write_bytes(pem(key))
    found = load_signing_key(path)
    assert found.kid == jose.thumbprint(jose.public_jwk(found))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP224R1()], ids=["P-384", "P-224"])
def test_a_foreign_curve_is_refused_by_its_name(tmp_path, curve):
    path = tmp_path / "sig.key"
    path.write_bytes(pem(ec.generate_private_key(curve)))
    with pytest.raises(StartError, match=f"sig.key: .*P-256, this one has {curve.name}"):
        load_signing_key(path)


def test_an_encrypted_key_needs_its_password(tmp_path, password):
    path = tmp_path / "sig.key"
    path.write_bytes(pem(RSA, PASSWORD))
    assert load_signing_key(path, password).key.private_numbers() == RSA.private_numbers()
    password.write_bytes(b"wrong")
    for given in (None, password):
        with pytest.raises(StartError, match=r"sig\.key: expected a PEM or PKCS#12 private key"):
            load_signing_key(path, given)


def test_a_plain_key_may_stand_beside_a_password(tmp_path, password):
    path = tmp_path / "sig.key"
    path.write_bytes(pem(RSA))
    assert load_signing_key(path, password).kid


def test_pkcs12_brings_key_and_certificate(tmp_path, password):
    made = certificate(RSA)
    path = tmp_path / "sig.p12"
    encryption = serialization.BestAvailableEncryption(PASSWORD)
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"s", RSA, made, None, encryption))
    found = load_signing_key(path, password)
    assert found.kid == thumbprint_of(made)
    assert found.key.private_numbers() == RSA.private_numbers()
    with pytest.raises(StartError) as refused:
        load_signing_key(path)
    assert "sig.p12" in str(refused.value)
    assert PASSWORD.decode() not in str(refused.value)


def test_pkcs12_without_a_key_is_refused(tmp_path):
    path = tmp_path / "sig.pfx"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"s", None, certificate(RSA), None, serialization.NoEncryption()
        )
    )
    with pytest.raises(StartError, match="expected an RSA"):
        load_signing_key(path)


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """Make a token in SoftHSM2 with a good key, a key with a certificate, a small one and one that is not RSA."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    (folder / "pin").write_text("1234\n")
    (folder / "wrong-pin").write_text("9999\n")
    make = ["softhsm2-util", "--init-token", "--free", "--label", "hub"]
    pins = ["--pin", "1234", "--so-pin", "5678"]
    subprocess.run([*make, *pins], check=True, capture_output=True)
    locked = ["softhsm2-util", "--init-token", "--free", "--label", "locked"]
    subprocess.run([*locked, *pins], check=True, capture_output=True)
    opened = pkcs11.lib(str(MODULE)).get_token(token_label="hub")
    with opened.open(user_pin="1234", rw=True) as session:

        def pair(label, kind=pkcs11.KeyType.RSA, size=2048):
            session.generate_keypair(kind, size, label=label, id=label.encode(), store=True)

        pair("sig2")
        pair("certified")
        pair("small", size=1024)
        curve = pkcs11.util.ec.encode_named_curve_parameters("secp256r1")
        domain = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
        )
        domain.generate_keypair(label="elliptic", id=b"elliptic", store=True)
        der = certificate(RSA).public_bytes(serialization.Encoding.DER)
        attribute = pkcs11.Attribute
        session.create_object(
            {
                attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
                attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                attribute.LABEL: "certified",
                attribute.ID: b"certified",
                attribute.SUBJECT: b"\x30\x00",
                attribute.VALUE: der,
                attribute.TOKEN: True,
            }
        )
    yield folder
    del os.environ["SOFTHSM2_CONF"]


def uri(folder, label="sig2", pin="pin", token="hub", module=MODULE):
    return (
        f"pkcs11:token={token};object={label}?module-path={module}&pin-source=file:{folder / pin}"
    )


def test_a_key_in_a_token_signs_what_our_own_code_and_everybody_verifies(token):
    key = load_token_key(uri(token))
    signed = jose.sign({"iss": "hub"}, key)
    public = jose.load_key(jose.public_jwk(key))
    parsed = jose.parse(signed)
    assert jose.verify(parsed, public, ("PS256",)) is None
    assert parsed.header["kid"] == key.kid == jose.thumbprint(jose.public_jwk(key))
    padding = PSS(mgf=MGF1(SHA256()), salt_length=32)
    public.key.verify(parsed.signature, parsed.signing_input, padding, SHA256())
    assert key.key.key_size == 2048


def test_a_certificate_in_the_token_names_the_key(token):
    assert load_token_key(uri(token, "certified")).kid == thumbprint_of(certificate(RSA))


def test_a_key_in_a_token_gives_nothing_else_away(token):
    key = load_token_key(uri(token)).key
    for ask in (
        key.private_numbers,
        lambda: key.decrypt(b"x", PKCS1v15()),
        lambda: key.private_bytes(None, None, None),
    ):
        with pytest.raises(TypeError, match="only signs"):
            ask()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"label": "unknown"}, "NoSuchKey"),
        ({"token": "unknown"}, "NoSuchToken"),
        ({"pin": "wrong-pin", "token": "locked"}, "PinIncorrect"),
        ({"pin": "no-such-file"}, "FileNotFoundError"),
        ({"label": "small"}, "2048 bits"),
        ({"label": "elliptic"}, "expected an RSA key"),
        ({"module": "/nowhere/module.so"}, "nowhere"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line_without_the_pin(token, changes, why):
    with pytest.raises(StartError, match=why) as refused:
        load_token_key(uri(token, **changes))
    assert "1234" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:x",
        "pkcs11:token=a",
        "pkcs11:object=b?module-path=c&pin-source=d",
        "x:token=a",
        "pkcs11:token=a;object=b?module-path=/c&pin-source=/d&pin-value=1234",
    ],
)
def test_an_incomplete_uri_is_refused(text):
    with pytest.raises(StartError, match="RFC 7512"):
        place_of(text)


def test_a_uri_may_be_percent_encoded():
    place = place_of("pkcs11:token=my%20hub;object=a%3Bb?module-path=/m.so&pin-source=file:/p")
    assert (place.token, place.label, place.pin) == ("my hub", "a;b", Path("/p"))


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA"])
def test_a_new_key_is_made_for_its_owner_and_never_written_over_another(tmp_path, alg):
    path = tmp_path / "new.key"
    told = CliRunner().invoke(main, ["keys", "new", str(path), "--alg", alg])
    assert told.exit_code == 0
    key = load_signing_key(path)
    assert told.output == f"{key.kid}\n"
    assert jose.parse(jose.sign({}, key, alg=alg)).header["alg"] == alg
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    again = CliRunner().invoke(main, ["keys", "new", str(path)])
    assert (again.exit_code, path.read_bytes()) == (4, before)
    assert "File exists" in again.stderr


def test_a_configuration_with_a_key_in_a_token_is_checked(token, tmp_path):
    text = (config_folder() / "hub.production.toml").read_text()
    path = tmp_path / "hub.toml"
    for label, why in (("sig2", ""), ("unknown", "NoSuchKey")):
        line = f'signing = []\npkcs11 = ["{uri(token, label)}"]'
        path.write_text(text.replace('signing = ["production/sig2.key"]', line))
        keys = load(path, {}).settings.keys
        assert keys.pkcs11 == (uri(token, label),)
        if why:
            with pytest.raises(StartError, match=why):
                load_token_key(keys.pkcs11[0])
        else:
            assert load_token_key(keys.pkcs11[0]).kid


def test_a_key_that_found_no_room_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(number, *_rest):
        os.close(number)
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "new.pem"
    monkeypatch.setattr("builtins.open", full)
    done = CliRunner().invoke(main, ["keys", "new", "--alg", "ES256", str(path)])
    monkeypatch.undo()
    assert done.exit_code == 4
    assert "No space left on device" in done.output
    assert not path.exists()
    again = CliRunner().invoke(main, ["keys", "new", "--alg", "ES256", str(path)])
    assert again.exit_code == 0
