"""What a TPP signs and seals by hand: made by the commands, taken by the Hub's own checks and by another library."""

import orjson
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwe, jwt
from joserfc.jwk import KeySet, RSAKey

from hub.cli import main

PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Make a signing key, an encryption key and their set in a folder."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name, use in (("sig", "sig"), ("enc", "enc")):
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / f"{name}.pem").write_bytes(private.private_bytes(*PEM))
        made[name] = RSAKey.import_key(private.private_bytes(*PEM), {"kid": name, "use": use})
    rows = [key.as_dict(private=False) for key in made.values()]
    (folder / "jwks.json").write_bytes(orjson.dumps({"keys": rows}))
    (folder / "body.json").write_text('{"Data":{"x":1}}')
    return folder, made


def command(*arguments, text=None):
    ran = CliRunner().invoke(main, ["tpp", *map(str, arguments)], input=text)
    return ran.exit_code, ran.output.strip()


def signing(folder):
    return ("--key", folder / "sig.pem", "--kid", "sig")


def claims_of(token, made):
    return jwt.decode(token, KeySet([made["sig"]]), algorithms=["PS256"]).claims


def test_a_body_is_signed_as_claims_or_as_a_message(keys):
    folder, made = keys
    code, plain = command("sign", folder / "body.json", *signing(folder))
    assert (code, claims_of(plain, made)) == (0, {"Data": {"x": 1}})
    how = ("--client-id", "c-1", "--audience", "https://hub.example")
    code, wrapped = command("sign", "-", *signing(folder), *how, text='{"Data":{}}')
    claims = claims_of(wrapped, made)
    assert (claims["iss"], claims["aud"], claims["message"]) == (
        "c-1",
        "https://hub.example",
        {"Data": {}},
    )
    assert 0 < claims["exp"] - claims["nbf"] <= 600


def test_an_assertion_and_a_request_object_hold_what_the_hub_wants(keys):
    folder, made = keys
    who = ("--client-id", "c-1", "--audience", "https://hub.example", *signing(folder))
    claims = claims_of(command("assertion", *who)[1], made)
    assert claims["iss"] == claims["sub"] == "c-1"
    assert claims["exp"] - claims["iat"] <= 300
    token = command("request-object", "-", *who, text='{"scope":"openid accounts"}')[1]
    claims = claims_of(token, made)
    assert (claims["client_id"], claims["response_type"], claims["scope"]) == (
        "c-1",
        "code",
        "openid accounts",
    )
    assert claims["jti"]
    assert claims["exp"] - claims["nbf"] <= 600


def test_what_is_sealed_opens_with_the_receivers_key(keys):
    folder, made = keys
    code, token = command("encrypt", "-", "--jwks", folder / "jwks.json", text="a.b.c")
    opened = jwe.decrypt_compact(token, made["enc"], algorithms=["RSA-OAEP-256", "A256GCM"])
    assert (code, opened.plaintext) == (0, b"a.b.c")
    assert command("decode", "-", text=token)[1].startswith('{"header":{"alg":"RSA-OAEP-256"')
    wrong = ("--jwks", folder / "jwks.json", "--kid", "sig")
    assert command("encrypt", "-", *wrong, text="a")[0] == 1


def test_a_token_is_taken_apart_and_verified(keys):
    folder, _ = keys
    _, token = command("sign", folder / "body.json", *signing(folder))
    code, told = command("decode", "-", "--jwks", folder / "jwks.json", text=token)
    assert (code, told.splitlines()[-1]) == (0, "the signature is good")
    head, _, tail = token.rpartition(".")
    changed = f"{head}.{'A' if tail[0] != 'A' else 'B'}{tail[1:]}"
    code, told = command("decode", "-", "--jwks", folder / "jwks.json", text=changed)
    assert (code, told.splitlines()[-1]) == (1, "the signature is NOT of a key in the set")


def test_what_cannot_be_signed_is_said_without_the_key(keys, tmp_path):
    folder, _ = keys
    curve = tmp_path / "ec.pem"
    curve.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM))
    for how in (
        ("sign", "-", "--key", curve, "--kid", "k"),
        ("sign", "-", "--key", folder / "body.json", "--kid", "k"),
    ):
        code, told = command(*how, text="{}")
        assert code == 1
        assert "PRIVATE" not in told
    assert command("sign", "-", *signing(folder), text="[1]")[0] == 1
    assert command("sign", "-", *signing(folder), text="nonsense")[0] == 1
    assert command("decode", "-", text="nonsense")[0] == 1
