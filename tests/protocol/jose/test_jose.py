"""The strict parser and the closed lists: what is accepted, and each thing that is refused."""

import json

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol import jose
from hub.protocol.jose.strict import plain_json

RSA_KEY = jose.PrivateKey(kid="rsa", key=rsa.generate_private_key(65537, 2048))
EC_KEY = jose.PrivateKey(kid="ec", key=ec.generate_private_key(ec.SECP256R1()))
ED_KEY = jose.PrivateKey(kid="ed", key=ed25519.Ed25519PrivateKey.generate())
CLAIMS = {"iss": "a", "aud": "b", "exp": 1.5}


def public(key, **changes):
    loaded = jose.load_key(jose.public_jwk(key, **changes))
    assert isinstance(loaded, jose.PublicKey), loaded
    return loaded


def compact(header, payload, signature=b"x"):
    parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, payload)]
    return ".".join(jose.b64url(part) for part in (*parts, signature))


def refused(token, check, **kwargs):
    fault = jose.parse(token, **kwargs)
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == check
    return fault


@pytest.mark.parametrize(("key", "alg"), [(RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")])
def test_what_is_signed_verifies_under_its_algorithm_only(key, alg):
    parsed = jose.parse(jose.sign(CLAIMS, key, alg=alg, typ="JWT", header={"x": 1}))
    assert isinstance(parsed, jose.Parsed)
    assert parsed.claims == CLAIMS
    assert parsed.header == {"alg": alg, "kid": key.kid, "typ": "JWT", "x": 1}
    loaded = public(key, alg=alg)
    assert jose.verify(parsed, loaded, jose.GENERAL_ALGS) is None
    others = tuple(a for a in jose.GENERAL_ALGS if a != alg)
    fault = jose.verify(parsed, loaded, others)
    assert fault is not None
    assert fault.check == "jose.alg"


def test_a_changed_payload_does_not_verify():
    head, _, tail = jose.sign(CLAIMS, RSA_KEY).split(".")
    parsed = jose.parse(f"{head}.{jose.b64url(b'{}')}.{tail}")
    assert isinstance(parsed, jose.Parsed)
    fault = jose.verify(parsed, public(RSA_KEY), jose.UAE_ALGS)
    assert fault is not None
    assert fault.check == "jose.signature"


def test_an_encryption_key_verifies_no_signature():
    parsed = jose.parse(jose.sign(CLAIMS, RSA_KEY))
    assert isinstance(parsed, jose.Parsed)
    fault = jose.verify(parsed, public(RSA_KEY, use="enc", alg=""), jose.UAE_ALGS)
    assert fault is not None
    assert fault.check == "jose.key"


def test_a_key_of_another_type_does_not_fit():
    parsed = jose.parse(compact({"alg": "PS256"}, CLAIMS))
    assert isinstance(parsed, jose.Parsed)
    fault = jose.verify(parsed, public(EC_KEY, alg=""), jose.GENERAL_ALGS)
    assert fault is not None
    assert fault.check == "jose.key"


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "PS384", "ps256"])
def test_foreign_algorithms_are_refused(alg):
    parsed = jose.parse(compact({"alg": alg}, CLAIMS))
    assert isinstance(parsed, jose.Parsed)
    fault = jose.verify(parsed, public(RSA_KEY, alg=""), jose.GENERAL_ALGS)
    assert fault is not None
    assert fault.check == "jose.alg"


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c.d", "..", "a..c", "aa.bb."])
def test_wrong_number_of_parts_is_refused(token):
    refused(token, "jose.parts")


@pytest.mark.parametrize("twist", ["{}=", "{}==", "{} ", "{}\n", "{}A", "+{}", "é{}"])
def test_other_spellings_of_a_part_are_refused(twist):
    head, payload, tail = compact({"alg": "PS256"}, CLAIMS, b"xyz").split(".")
    refused(f"{head}.{payload}.{twist.format(tail)}", "jose.base64")


def test_stray_low_bits_are_refused():
    refused(compact({"alg": "PS256"}, {}, b"x")[:-1] + "B", "jose.base64")


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b'{"alg":"PS256","alg":"none"}', {}),
        ({"alg": "PS256"}, b'{"iss":"a","iss":"b"}'),
        ({"alg": "PS256"}, b'{"a":[{"x":1,"\\u0078":2}]}'),
    ],
)
def test_duplicate_members_are_refused(header, payload):
    refused(compact(header, payload), "jose.duplicate_member")


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"\xff{}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":18446744073709551616}',
        b'{"a":[-9223372036854775809]}',
        b'{"a":"\\ud800"}',
        b"{}{}",
        b"[" * 5000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'{"n":' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_is_not_json_is_refused(payload):
    refused(compact({"alg": "PS256"}, payload), "jose.json")


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"1", b"null"])
def test_a_payload_that_is_no_object_is_refused(payload):
    refused(compact({"alg": "PS256"}, payload), "jose.type")


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_embedded_keys_are_refused(name):
    refused(compact({"alg": "PS256", name: "x"}, {}), "jose.embedded_key")


def test_a_proof_of_possession_needs_its_key_in_the_header():
    refused(compact({"alg": "PS256"}, {}), "jose.embedded_key", dpop=True)
    refused(compact({"alg": "PS256", "jwk": {}, "jku": ""}, {}), "jose.embedded_key", dpop=True)
    assert isinstance(jose.parse(compact({"alg": "PS256", "jwk": {}}, {}), dpop=True), jose.Parsed)


@pytest.mark.parametrize("header", [{"crit": []}, {"crit": ["exp"]}, {"b64": True}])
def test_header_extensions_are_refused(header):
    refused(compact({"alg": "PS256", **header}, {}), "jose.crit")


@pytest.mark.parametrize("header", [{}, {"alg": ""}])
def test_a_missing_algorithm_is_refused(header):
    refused(compact(header, {}), "jose.alg")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "1"},
        {"nbf": True},
        {"iat": -1},
        {"exp": 1e300},
        {"iss": 1},
        {"sub": None},
        {"jti": []},
        {"aud": {}},
        {"aud": ["a", 1]},
    ],
)
def test_registered_claims_of_wrong_type_are_refused(claims):
    refused(compact({"alg": "PS256"}, claims), "jose.type")


@pytest.mark.parametrize(
    "header", [{"alg": 1}, {"alg": "PS256", "kid": 1}, {"alg": "a", "typ": []}]
)
def test_header_members_of_wrong_type_are_refused(header):
    refused(compact(header, {}), "jose.type")


def test_size_is_bounded_before_anything_is_decoded():
    refused("a" * 101, "jose.size", limit=100)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_raises(token):
    assert isinstance(jose.parse(token), jose.JoseFault | jose.Parsed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_strict_json_agrees_with_json_where_there_is_one_meaning(value):
    assert jose.decode_json(json.dumps(value).encode("utf-8", "strict")) == value


@given(
    st.recursive(
        st.sampled_from(
            ["1", "-0", "0.50", "1e2", "18446744073709551616", '""', r'"\u0041"', "NaN"]
        ),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda them: f"[{','.join(them)}]")
            | st.lists(st.tuples(st.sampled_from("ab"), inner), max_size=3).map(
                lambda them: "{" + ",".join(f'"{name}":{value}' for name, value in them) + "}"
            )
        ),
        max_leaves=6,
    )
)
def test_plain_json_is_what_the_strict_decoder_makes_of_it_or_left_to_that(text):
    strictly = jose.decode_json(text.encode())
    assert plain_json(text.encode()) in (None, strictly)
    again = None if isinstance(strictly, jose.JoseFault) else orjson.dumps(strictly)
    assert again is None or plain_json(again) == strictly


def test_a_plain_payload_is_taken_as_it_is_and_one_with_two_members_of_a_name_refused():
    head = jose.b64url(b'{"alg":"ES256"}')
    good, twice = (jose.b64url(text) for text in (b'{"iss":"a"}', b'{"iss":"a","iss":"b"}'))
    assert jose.parse(f"{head}.{good}.AA").claims == {"iss": "a"}
    assert jose.parse(f"{head}.{twice}.AA").check == "jose.duplicate_member"


def test_what_is_long_or_deep_is_not_plain():
    assert plain_json(b'"%b"' % (b"x" * 4000)) is not None
    assert plain_json(b'"%b"' % (b"x" * 4096)) is None
    assert plain_json(b"[" * 65 + b"]" * 65) is None


@given(st.text(alphabet='AQgw-_+/="\\ \n\x00\xff', max_size=8) | st.binary(max_size=8))
def test_base64url_is_what_is_written_for_some_octets_and_nothing_else(text):
    octets = jose.decode_b64url(text)
    spelt = text if isinstance(text, str) else text.decode("latin-1")
    assert octets is None or jose.b64url(octets) == spelt


@given(st.binary(max_size=64))
def test_base64url_has_one_spelling(octets):
    text = jose.b64url(octets)
    assert jose.decode_b64url(text) == octets
    for other in (text + "=", " " + text, text.replace("-", "+") if "-" in text else text + "\n"):
        assert jose.decode_b64url(other) is None


def test_encryption_and_decryption_agree():
    key = public(RSA_KEY, use="enc", alg="RSA-OAEP-256")
    token = jose.encrypt(b"hello", key, cty="JWT")
    assert jose.decrypt(token, RSA_KEY) == b"hello"
    other = jose.PrivateKey(kid="o", key=rsa.generate_private_key(65537, 2048))
    fault = jose.decrypt(token, other)
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == "jose.decryption"


def test_encrypting_to_a_signing_key_is_a_bug():
    with pytest.raises(ValueError, match="encryption key"):
        jose.encrypt(b"x", public(RSA_KEY))


def test_a_cut_tag_is_refused():
    token = jose.encrypt(b"hello", public(RSA_KEY, use="enc", alg=""))
    head, tail = token.rsplit(".", 1)
    octets = jose.decode_b64url(tail)
    fault = jose.decrypt(f"{head}.{jose.b64url(octets[:12])}", RSA_KEY)
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == "jose.decryption"


def test_compression_is_refused():
    head = jose.b64url(b'{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF"}')
    fault = jose.decrypt(f"{head}.AA.AA.AA.AA", RSA_KEY)
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == "jose.alg"


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct"},
        {"n": "AQAB"},
        {"e": "Aw"},
        {"e": "AQAA"},
        {"n": 1},
        {"use": "other"},
        {"kid": 1},
        {"d": "AQ"},
        {"key_ops": "verify"},
        {"key_ops": ["encrypt"]},
    ],
)
def test_unfit_keys_are_refused(change):
    fault = jose.load_key({**jose.public_jwk(RSA_KEY), **change})
    assert isinstance(fault, jose.JoseFault)
    assert fault.check == "jose.key"


@pytest.mark.parametrize(
    ("bits", "less", "exponent", "good"),
    [
        (2048, 0, 65537, True),
        (2048, 1, 65537, False),
        (3072, 0, (1 << 255) + 1, True),
        (3080, 0, (1 << 255) + 1, False),
        (3080, 0, (1 << 63) + 1, True),
        (8192, 0, (1 << 63) + 1, True),
    ],
)
def test_an_rsa_key_that_is_taken_can_be_used(bits, less, exponent, good):
    """What cannot encrypt must not look like an encryption key; whose key it is does not matter here."""
    modulus = (1 << bits) - 1 - less
    octets = [
        number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (modulus, exponent)
    ]
    n, e = map(jose.b64url, octets)
    key = jose.load_key({"kty": "RSA", "n": n, "e": e, "use": "enc"})
    assert isinstance(key, jose.PublicKey) is good
    if good:
        assert jose.encrypt(b"x", key).count(".") == 4


def test_a_small_rsa_key_is_refused_in_every_form():
    small = rsa.generate_private_key(65537, 1024)
    key = jose.PrivateKey(kid="s", key=small)
    fault = jose.load_key(jose.public_jwk(key))
    assert isinstance(fault, jose.JoseFault)
    assert "1024" in fault.why
    pem = small.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert isinstance(jose.load_private_key(pem), jose.JoseFault)


def test_a_key_set_leaves_out_what_is_foreign_or_ambiguous():
    good, twin = jose.public_jwk(RSA_KEY), {**jose.public_jwk(EC_KEY, alg="ES256"), "kid": "twin"}
    other = {**jose.public_jwk(ED_KEY, alg="EdDSA"), "kid": "twin"}
    document = {"keys": [good, good, twin, other, {"kty": "oct", "k": "AA"}, 5]}
    keys = jose.load_key_set(json.dumps(document).encode())
    assert [key.kid for key in keys] == ["rsa"]


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b'{"keys":"x"}']
)
def test_a_malformed_key_set_is_refused(document):
    assert isinstance(jose.load_key_set(document), jose.JoseFault)


def test_an_oversized_key_set_is_refused():
    assert jose.load_key_set(b" " * 11, limit=10) == jose.JoseFault(
        "jose.size", "key set larger than 10 octets"
    )


def test_a_private_key_file_is_named_by_its_thumbprint_and_stays_out_of_its_repr():
    pem = RSA_KEY.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    key = jose.load_private_key(pem, b"secret")
    assert isinstance(key, jose.PrivateKey)
    assert key.kid == jose.thumbprint(jose.public_jwk(RSA_KEY))
    assert repr(key) == f"PrivateKey(kid={key.kid!r})"
    assert isinstance(jose.load_private_key(pem, b"wrong"), jose.JoseFault)
    assert isinstance(jose.load_private_key(b"no key"), jose.JoseFault)


@pytest.mark.parametrize(("key", "alg"), [(RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")])
def test_a_key_signs_with_its_own_algorithm_where_none_is_named(key, alg):
    parsed = jose.parse(jose.sign({}, key))
    assert parsed.header["alg"] == alg
    assert jose.verify(parsed, public(key, alg=alg), (alg,)) is None


def test_signing_with_a_key_that_does_not_fit_is_a_bug():
    with pytest.raises(ValueError, match="does not fit"):
        jose.sign({}, EC_KEY, alg="PS256")


@pytest.mark.parametrize("deep", [63, 64, 65, 200])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"[":', "}"), ('[{"\\\\\\"{":', "}]")])
def test_json_nests_64_levels_and_no_deeper(deep, left, right):
    times = deep // 2 if left.startswith("[{") else deep
    text = left * times + '"[{\\"["' + right * times
    found = jose.decode_json(text.encode())
    if times * (2 if left.startswith("[{") else 1) <= 64:
        assert found == json.loads(text)
    else:
        assert isinstance(found, jose.JoseFault)
        assert "deeper than 64" in found.why


def test_wide_json_is_not_deep():
    text = json.dumps([{"a": ["[[", {}]}] * 200)
    assert jose.decode_json(text.encode()) == json.loads(text)


@given(st.binary(max_size=9))
def test_base64url_is_read_back_and_has_no_other_spelling(octets):
    text = jose.b64url(octets)
    assert jose.decode_b64url(text) == octets
    for spelt in (f"{text}=", f"{text}==", f"{text} ", f"{text}+", f"\n{text}"):
        assert jose.decode_b64url(spelt) is None
    last = text[-1:]
    others = [
        c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" if c != last
    ]
    if octets:
        assert octets not in [jose.decode_b64url(text[:-1] + other) for other in others]
