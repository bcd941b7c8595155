"""Wycheproof, the JOSE cookbook and the RFCs' own examples give the expected result."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers

from hub.protocol import jose
from hub.protocol.jose.jws import check_header, verify_octets

VECTORS = Path(__file__).parents[2] / "vectors"
OURS = jose.GENERAL_ALGS


def load(name):
    return json.loads((VECTORS / name).read_text())


def key_from(jwk):
    key = jose.load_key(
        {k: v for k, v in jwk.items() if k not in {"d", "p", "q", "dp", "dq", "qi"}}
    )
    return None if isinstance(key, jose.JoseFault) else key


def number(jwk, name):
    return int.from_bytes(jose.decode_b64url(jwk[name]))


def private_from(jwk):
    numbers = RSAPrivateNumbers(
        p=number(jwk, "p"),
        q=number(jwk, "q"),
        d=number(jwk, "d"),
        dmp1=number(jwk, "dp"),
        dmq1=number(jwk, "dq"),
        iqmp=number(jwk, "qi"),
        public_numbers=RSAPublicNumbers(number(jwk, "e"), number(jwk, "n")),
    )
    return jose.PrivateKey(kid=jwk.get("kid", ""), key=numbers.private_key())


def strictly_accepted(token, key, *, algs=OURS):
    """Say whether the whole path, parse and verify, accepts the token."""
    parsed = jose.parse(token)
    if isinstance(parsed, jose.JoseFault) or key is None:
        return False
    return jose.verify(parsed, key, algs) is None


def signature_accepted(token, key):
    """Say whether header and signature are accepted, whatever the payload is."""
    parts = token.split(".")
    if len(parts) != 3 or key is None or key.use != "sig":
        return False
    header_octets, payload, signature = (jose.decode_b64url(part) for part in parts)
    if header_octets is None or payload is None or signature is None:
        return False
    header = jose.decode_json(header_octets)
    if not isinstance(header, dict) or check_header(header) is not None:
        return False
    if key.alg not in {"", header["alg"]}:
        return False
    signed = token.rpartition(".")[0].encode()
    return verify_octets(header["alg"], key, signature, signed) is None


def is_json_object(token):
    payload = jose.decode_b64url(token.split(".")[1])
    return isinstance(jose.decode_json(payload or b""), dict)


def uses_ours(token, key):
    """Say whether a good token uses an algorithm of ours, and the one its key is for."""
    header = jose.decode_json(jose.decode_b64url(token.split(".")[0]) or b"null")
    alg = header["alg"] if isinstance(header, dict) else ""
    return key is not None and alg in OURS and key.alg in {"", alg}


@pytest.mark.parametrize("name", ["signature", "crypto"])
def test_wycheproof_jws_gives_the_expected_result(name):
    seen = {"valid": 0, "invalid": 0}
    for group in load(f"wycheproof_json_web_{name}_test.json")["testGroups"]:
        jwk = group.get("public") or group.get("private")
        if not group["comment"].startswith("jw") and name == "crypto":
            continue
        if group["comment"].startswith("jwe") or "keys" in jwk:
            continue
        key = key_from(jwk)
        for case in group["tests"]:
            token = case["jws"]
            if not isinstance(token, str):
                token = json.dumps(token)  # JSON serialisation: not ours, refused
            expected = case["result"] == "valid" and token[0] != "{" and uses_ours(token, key)
            assert signature_accepted(token, key) == expected, (group["comment"], case)
            assert strictly_accepted(token, key) == (expected and is_json_object(token)), case
            seen[case["result"]] += 1
    assert min(seen.values()) > 0


def test_wycheproof_key_sets_give_the_expected_result():
    ours = 0
    for group in load("wycheproof_json_web_key_test.json")["testGroups"]:
        jwk = group.get("public") or group.get("private")
        keys = jose.load_key_set(json.dumps(jwk).encode())
        assert not isinstance(keys, jose.JoseFault)
        for case in group["tests"]:
            token = case.get("jws")
            if token is None:
                continue
            accepted = any(signature_accepted(token, key) for key in keys)
            alg = json.loads(jose.decode_b64url(token.split(".")[0]))["alg"]
            expected = case["result"] == "valid" and alg in OURS
            ours += expected
            assert accepted == expected, (group["comment"], case)


def test_wycheproof_jwe_opens_only_our_two_algorithms():
    opened = 0
    for group in load("wycheproof_json_web_encryption_test.json")["testGroups"]:
        jwk = group["private"]
        if jwk["kty"] != "RSA" or "p" not in jwk:
            continue
        key = private_from(jwk)
        for case in group["tests"]:
            result = jose.decrypt(case["jwe"], key)
            header = json.loads(jose.decode_b64url(case["jwe"].split(".")[0]) or b"{}")
            ours = (header.get("alg"), header.get("enc")) == (jose.JWE_ALG, jose.JWE_ENC)
            if case["result"] == "valid" and ours:
                assert result == bytes.fromhex(case["pt"]), case
                opened += 1
            else:
                assert isinstance(result, jose.JoseFault), case
    assert opened > 0


@pytest.mark.parametrize(
    ("name", "alg"),
    [
        ("wycheproof_rsa_pss_2048_sha256_mgf1_32_test.json", "PS256"),
        ("wycheproof_ecdsa_secp256r1_sha256_p1363_test.json", "ES256"),
        ("wycheproof_ed25519_test.json", "EdDSA"),
    ],
)
def test_raw_signatures_give_the_expected_result(name, alg):
    checked = 0
    for group in load(name)["testGroups"]:
        der = bytes.fromhex(group["publicKey" + "Der"])
        key = jose.PublicKey(kid="", use="sig", key=serialization.load_der_public_key(der))
        for case in group["tests"]:
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            accepted = verify_octets(alg, key, signature, message) is None
            assert accepted == (case["result"] == "valid"), case
            checked += 1
    assert checked > 50


def test_cookbook_ps256_signature_verifies():
    vector = load("rfc7520/4_2.rsa-pss_signature.json")
    key = key_from({**vector["input"]["key"], "alg": "PS256"})
    header = json.loads(jose.decode_b64url(vector["output"]["compact"].split(".")[0]))
    assert header["alg"] in {"PS384", "PS256"}
    # The cookbook signs with PS384, which is not ours: refused, though the key is good.
    assert key is not None
    assert not signature_accepted(vector["output"]["compact"], key)


def test_cookbook_ed25519_signature_verifies_and_is_reproduced():
    vector = load("rfc7520/jws.json")
    token = vector["output"]["compact"]
    key = key_from({**vector["input"]["key"], "kid": "bilbo"})
    assert signature_accepted(token, key)
    raw = jose.decode_b64url(vector["input"]["key"]["d"])
    private = Ed25519PrivateKey.from_private_bytes(raw)
    assert jose.b64url(private.sign(token.rpartition(".")[0].encode())) == token.split(".")[2]


def test_cookbook_rsa_oaep_with_sha1_is_not_opened():
    vector = load("rfc7520/5_2.key_encryption_using_rsa-oaep_with_aes-gcm.json")
    fault = jose.decrypt(vector["output"]["compact"], private_from(vector["input"]["key"]))
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == "jose.alg"


def test_cookbook_unencoded_payload_is_refused():
    vector = load("rfc7520/4.2.hmac-sha2_b64_false.json")
    header = json.loads(jose.decode_b64url(vector["signing"]["protected_b64u"]))
    fault = check_header(header)
    assert fault is not None
    assert fault.check == "jose.crit"


@pytest.mark.parametrize("name", ["3_2.ec_private_key.json", "3_4.rsa_private_key.json"])
def test_a_private_key_is_no_public_key(name):
    fault = jose.load_key(load(f"rfc7520/{name}"))
    assert isinstance(fault, jose.JoseFault)
    assert fault.why == "key: private or symmetric members are not allowed"


def test_thumbprints_of_the_rfcs_are_reproduced():
    examples = load("rfc_examples.json")
    rsa = examples["rfc7638_s3_1"]
    assert jose.thumbprint(rsa["jwk"]) == rsa["thumbprint"]
    ec = examples["rfc9449"]
    assert jose.thumbprint(ec["jwk"]) == ec["jkt"]
    okp = examples["rfc8037_appendix_a"]
    assert jose.thumbprint(okp["public_jwk"]) == okp["thumbprint"]


def test_dpop_proof_of_rfc_9449_parses_and_verifies_with_its_own_key():
    example = load("rfc_examples.json")["rfc9449"]
    parsed = jose.parse(example["token_request_proof"]["jwt"], dpop=True)
    assert isinstance(parsed, jose.Parsed)
    key = jose.load_key(parsed.header["jwk"])
    assert isinstance(key, jose.PublicKey)
    assert key.thumbprint == example["jkt"]
    assert jose.verify(parsed, key, jose.DPOP_ALGS) is None
