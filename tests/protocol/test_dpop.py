"""DPoP proofs: the RFC's own examples, each tolerance and each refusal."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hub.protocol import jose
from hub.protocol.dpop import Proof, ProofFault, check_proof, normal_url
from hub.protocol.oauth import token_hash

EXAMPLE = json.loads((Path(__file__).parents[1] / "vectors" / "rfc_examples.json").read_text())[
    "rfc9449"
]
NOW = 1_795_000_000
URL = "https://as1.hub.example/token"
KEY = jose.PrivateKey(kid="k", key=ec.generate_private_key(ec.SECP256R1()))
RSA_KEY = jose.PrivateKey(kid="r", key=rsa.generate_private_key(65537, 2048))


def public(key):
    return {k: v for k, v in jose.public_jwk(key).items() if k not in {"kid", "use", "alg"}}


def proof(key=KEY, alg="ES256", typ="dpop+jwt", header=None, **claims):
    base = {"jti": "j", "htm": "POST", "htu": URL, "iat": NOW}
    merged = {k: v for k, v in (base | claims).items() if v is not None}
    return jose.sign(merged, key, alg=alg, typ=typ, header={"jwk": public(key), **(header or {})})


def check(*proofs, **changes):
    given = {"method": "POST", "url": URL, "now": NOW} | changes
    return check_proof([p.encode() for p in proofs], **given)


def test_the_proofs_of_rfc_9449_pass():
    for name, token in (
        ("token_request_proof", ""),
        ("resource_request_proof", EXAMPLE["access_token"]),
    ):
        given = EXAMPLE[name]
        found = check(
            given["jwt"],
            method=given["htm"],
            url=given["htu"],
            now=given["iat"],
            access_token=token,
        )
        assert isinstance(found, Proof)
        assert found.jkt == EXAMPLE["jkt"]


@pytest.mark.parametrize("htu", [URL + "?a=b", URL + "#f", "HTTPS://AS1.HUB.EXAMPLE:443/token"])
def test_query_fragment_case_and_default_port_do_not_matter(htu):
    assert isinstance(check(proof(htu=htu)), Proof)


@pytest.mark.parametrize(
    "claims", [{"iat": NOW - 60}, {"iat": NOW + 30}, {"iat": NOW - 10.5}, {"ath": "x", "more": 1}]
)
def test_tolerated_claims(claims):
    assert isinstance(check(proof(**claims)), Proof)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dpop.typ", {"typ": ""}),
        ("dpop.typ", {"typ": "JWT"}),
        ("dpop.key", {"header": {"jwk": {}}}),
        ("dpop.key", {"header": {"jwk": {**jose.public_jwk(KEY), "d": "AA"}}}),
        ("dpop.key", {"header": {"jwk": {"kty": "oct", "k": "AA"}}}),
        ("dpop.jose", {"header": {"jwk": 5}}),
        ("dpop.jose", {"header": {"jku": "https://evil.example"}}),
        ("dpop.signature", {"header": {"jwk": public(RSA_KEY)}}),
        ("dpop.jti", {"jti": None}),
        ("dpop.jti", {"jti": "j" * 257}),
        ("dpop.htm", {"htm": None}),
        ("dpop.htm", {"htm": "GET"}),
        ("dpop.htm", {"htm": "post"}),
        ("dpop.htu", {"htu": None}),
        ("dpop.htu", {"htu": "https://as1.hub.example/par"}),
        ("dpop.htu", {"htu": "http://as1.hub.example/token"}),
        ("dpop.htu", {"htu": "https://as2.hub.example/token"}),
        ("dpop.htu", {"htu": "https://as1.hub.example:8443/token"}),
        ("dpop.htu", {"htu": "https://user@as1.hub.example/token"}),
        ("dpop.htu", {"htu": "https://["}),
        ("dpop.htu", {"htu": URL.replace("oken", "ok\nen")}),
        ("dpop.htu", {"htu": "\x00 " + URL}),
        ("dpop.htu", {"htu": URL.replace("example", "example:0")}),
        ("dpop.iat", {"iat": None}),
        ("dpop.iat", {"iat": NOW - 61}),
        ("dpop.iat", {"iat": NOW + 31}),
        ("dpop.iat", {"iat": NOW - 3600}),
        ("dpop.iat", {"iat": NOW + 3600}),
        ("dpop.jose", {"iat": "1"}),
    ],
)
def test_a_bad_proof_is_refused(name, changes):
    found = check(proof(**changes))
    assert isinstance(found, ProofFault)
    assert (found.check, found.code) == (name, "invalid_dpop_proof")


def test_an_algorithm_outside_the_list_is_refused():
    found = check(proof(key=RSA_KEY, alg="PS256"), algs=("ES256",))
    assert isinstance(found, ProofFault)
    assert found.check == "dpop.signature"
    assert isinstance(check(proof(key=RSA_KEY, alg="PS256")), Proof)


def test_exactly_one_header_is_expected():
    one = proof()
    for given in ((), (one, one), (f"{one},{one}",)):
        found = check(*given)
        assert isinstance(found, ProofFault)
        assert found.check == "dpop.single"


@pytest.mark.parametrize("around", ["{} ", " {}", "\t{}", "{}\n", "\x0b{}", "{}\xa0"])
def test_a_proof_has_one_spelling(around):
    """The edge takes away what HTTP allows around a value; what is left there is no part of a proof."""
    found = check(around.format(proof()))
    assert isinstance(found, ProofFault)
    assert found.check == "dpop.jose"


@pytest.mark.parametrize("ours", ["https://bank.example/token", "https://b\xe4nk.example/token"])
def test_a_url_is_ascii_and_what_is_none_is_never_ours(ours):
    """The Kelvin sign is a small k to ``lower``; and two texts that are no URLs are not the same one."""
    for htu in ("https://ban\u212a.example/token", "", "no url"):
        found = check(proof(htu=htu), url=ours)
        assert isinstance(found, ProofFault)
        assert found.check == "dpop.htu"
    assert isinstance(check(proof(htu=ours), url=ours), Proof)


def test_a_changed_signature_is_refused():
    head, body, tail = proof().split(".")
    other = proof(jti="other").split(".")[2]
    assert other != tail
    found = check(f"{head}.{body}.{other}")
    assert isinstance(found, ProofFault)
    assert found.check == "dpop.signature"


def test_the_token_must_be_the_one_presented():
    assert isinstance(check(proof(ath=token_hash("t")), access_token="t"), Proof)
    for ath in (None, token_hash("u"), 5):
        found = check(proof(ath=ath), access_token="t")
        assert isinstance(found, ProofFault)
        assert found.check == "dpop.ath"


def test_a_nonce_is_demanded_where_there_are_nonces():
    assert isinstance(check(proof(nonce="n2"), nonces=("n1", "n2")), Proof)
    for nonce in (None, "n3", 5):
        found = check(proof(nonce=nonce), nonces=("n1", "n2"))
        assert isinstance(found, ProofFault)
        assert found.code == "use_dpop_nonce"


def test_replay_is_remembered_by_key_and_jti_for_as_long_as_the_proof_could_be_used():
    first, again, other = check(proof()), check(proof(htu=URL + "?x")), check(proof(jti="k"))
    assert first.replay_value == again.replay_value != other.replay_value
    assert first.replay_until == NOW + 90


def test_what_is_no_url_has_no_normal_form():
    assert normal_url("nonsense") == normal_url("https://") == normal_url("https://a:b/") == ""
