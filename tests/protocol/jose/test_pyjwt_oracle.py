"""PyJWT as the independent oracle: what either of us signs the other verifies, and both refuse the same forgeries."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol import jose

KEYS = {
    "PS256": jose.PrivateKey(kid="rsa", key=rsa.generate_private_key(65537, 2048)),
    "ES256": jose.PrivateKey(kid="ec", key=ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": jose.PrivateKey(kid="ed", key=ed25519.Ed25519PrivateKey.generate()),
}
algs = pytest.mark.parametrize("alg", KEYS)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
payloads = st.dictionaries(
    st.text("abcdefghij_", min_size=2, max_size=8), scalars | st.lists(scalars, max_size=4)
)


def ours(token: str, alg: str):
    """Give the claims if our parser and verifier accept the token, else the name of the check."""
    key = jose.load_key(jose.public_jwk(KEYS[alg], alg=alg))
    assert isinstance(key, jose.PublicKey)
    parsed = jose.parse(token)
    if isinstance(parsed, jose.JoseFault):
        return parsed.check
    fault = jose.verify(parsed, key, jose.GENERAL_ALGS)
    return fault.check if fault else parsed.claims


def theirs(token: str, alg: str):
    try:
        return jwt.decode(token, KEYS[alg].key.public_key(), algorithms=[alg])
    except jwt.InvalidTokenError as error:
        return type(error).__name__


@algs
@given(payload=payloads)
def test_what_we_sign_pyjwt_verifies(alg, payload):
    assert theirs(jose.sign(payload, KEYS[alg], alg=alg, typ="JWT"), alg) == payload


@algs
@given(payload=payloads)
def test_what_pyjwt_signs_we_verify(alg, payload):
    token = jwt.encode(payload, KEYS[alg].key, algorithm=alg, headers={"kid": KEYS[alg].kid})
    assert ours(token, alg) == payload


@algs
@given(data=st.data())
def test_one_flipped_bit_is_refused_by_both(alg, data):
    token = jose.sign({"iss": "a"}, KEYS[alg], alg=alg)
    parts = [bytearray(jose.decode_b64url(part) or b"") for part in token.split(".")]
    part = parts[data.draw(st.integers(0, 2))]
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    forged = ".".join(jose.b64url(bytes(part)) for part in parts)
    assert isinstance(ours(forged, alg), str)
    assert isinstance(theirs(forged, alg), str)
