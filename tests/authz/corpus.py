"""What is wrong with a JWS in one way each: the catalogue's JOSE corpus, made from a good message and its key.

Every vector is signed with the right key wherever that is possible, so that only the named defect can be the reason for its
refusal. ``vectors`` is told the good header and claims of a place and yields names with tokens.
"""

import base64
import hashlib
import hmac
import json
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hub.protocol.jose import b64url

ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def signed_by(key, alg, text: bytes) -> bytes:
    """Sign with an algorithm of any kind, lawful here or not."""
    if alg[:2] not in {"PS", "RS", "ES"} or alg[2:] not in HASHES:
        alg = "PS256"
    digest = HASHES[alg[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size) + s.to_bytes(size)
    if alg.startswith("RS"):
        return key.sign(text, padding.PKCS1v15(), digest)
    salt = digest.digest_size
    return key.sign(text, padding.PSS(mgf=padding.MGF1(digest), salt_length=salt), digest)


def raw(header, payload, key, alg="PS256", signature=None) -> str:
    """Make a token of texts or values, whatever they are."""
    head, body = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    )
    text = f"{b64url(head)}.{b64url(body)}"
    made = signed_by(key, alg, text.encode()) if signature is None else signature
    return f"{text}.{b64url(made)}"


def twice(value: dict, name: str, other) -> bytes:
    """Write a member twice, the good value last."""
    good = json.dumps({name: "good"} | value).encode()
    return b"{" + f"{json.dumps(name)}: {json.dumps(other)},".encode() + good[1:]


def algorithms(header, claims, key):
    """Yield foreign algorithms, forged with public keys as secrets where the kind is symmetric."""
    for alg in ("none", "None", "nOnE", "NONE"):
        head = header | {"alg": alg}
        yield f"alg {alg}", raw(head, claims, key, signature=b"")
        yield f"alg {alg} with a signature", raw(head, claims, key)
    for alg in ("RS256", "RS384", "RS512", "PS384", "PS512"):
        yield f"alg {alg}", raw(header | {"alg": alg}, claims, key, alg)
    for alg in (
        "ES256K",
        "ES384",
        "ES512",
        "EdDSA",
        "Ed25519",
        "PS256 ",
        "ps256",
        "",
        "RSA-OAEP-256",
        "dir",
    ):
        yield f"alg {alg!r}", raw(header | {"alg": alg}, claims, key)
    for alg in (1, None, [], {}, True, ["PS256"]):
        yield f"alg {alg!r}", raw(header | {"alg": alg}, claims, key)
    yield "alg missing", raw({k: v for k, v in header.items() if k != "alg"}, claims, key)
    yield "payload of PS256, signature of RS256", raw(header, claims, key, "RS256")
    public = key.public_key()
    numbers = public.public_numbers()
    form = serialization.PublicFormat
    secrets = {
        "PEM": public.public_bytes(serialization.Encoding.PEM, form.SubjectPublicKeyInfo),
        "DER": public.public_bytes(serialization.Encoding.DER, form.SubjectPublicKeyInfo),
        "modulus": numbers.n.to_bytes(256),
        "nothing": b"",
    }
    for name, secret in secrets.items():
        for alg, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            head = header | {"alg": alg}
            text = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(claims).encode())}"
            mac = hmac.digest(secret, text.encode(), digest)
            yield f"{alg} with the {name}", f"{text}.{b64url(mac)}"


def elliptic(header, claims, _key):
    """Yield broken ECDSA: degenerate numbers, DER, and another curve."""
    head = header | {"alg": "ES256"}
    for name, r, s in (("0, 0", 0, 0), ("n, n", ORDER, ORDER), ("1, 0", 1, 0), ("0, 1", 0, 1)):
        signature = r.to_bytes(32) + s.to_bytes(32)
        yield f"ES256 of {name}", raw(head, claims, ELLIPTIC, signature=signature)
    text = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(claims).encode())}"
    der = ELLIPTIC.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    yield "ES256 in DER", f"{text}.{b64url(der)}"
    yield "ES256 by P-384", raw(head, claims, P384, "ES256")


def headers(header, claims, key):
    """Yield header members that must not be there, or not so."""
    for value in ([], ["exp"], ["unknown"], ["b64"], "exp", ["alg"], [1], {}, None, ["exp", "exp"]):
        yield f"crit {value!r}", raw(header | {"crit": value, "exp": 1, "unknown": 1}, claims, key)
    yield "b64 false", raw(header | {"b64": False}, claims, key)
    yield "b64 false and crit", raw(header | {"b64": False, "crit": ["b64"]}, claims, key)
    yield "b64 true", raw(header | {"b64": True}, claims, key)
    for name in ("jku", "x5u"):
        yield name, raw(header | {name: "https://evil.example/keys"}, claims, key)
    yield "x5c", raw(header | {"x5c": ["MIIB"]}, claims, key)
    for kid in (
        "../../dev/null",
        "' OR 1=1--",
        "k" * 3000,
        "\x00",
        "",
        "none",
        5,
        None,
        [],
        {},
        "%00",
    ):
        yield f"kid {str(kid)[:16]!r}", raw(header | {"kid": kid}, claims, key)
    yield "kid missing", raw({k: v for k, v in header.items() if k != "kid"}, claims, key)
    for typ in (
        "JOSE",
        "logout+jwt",
        "secevent+jwt",
        "at+jwt",
        "token-introspection+jwt",
        5,
        None,
        ["JWT"],
    ):
        yield f"typ {typ!r}", raw(header | {"typ": typ}, claims, key)
    for name in ("alg", "kid", "typ"):
        yield f"header {name} twice", raw(twice({"typ": "JWT"} | header, name, "none"), claims, key)


def payloads(header, claims, key):
    """Yield payloads that are no claims, or not these."""
    for text in (b"", b"[]", b'"x"', b"1", b"null", b"{", b"{}}", b"\xff", b'{"a": NaN}', b'{"a": 1e400}',
                 b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}', b'{"a": "\xed\xa0\x80"}', b"[" * 100_000, b'{"a":' * 2000, b"{}\x00"):  # fmt: skip
        yield f"payload {text[:12]!r}", raw(header, text, key)
    nested = raw(header, claims, key)
    yield "a JWT in a JWT", raw(header | {"cty": "JWT"}, nested.encode(), key)
    for name in claims:
        yield f"claim {name} twice", raw(header, twice(claims, name, "other"), key)
    for name in ("exp", "nbf", "iat"):
        for value in ("1", True, None, [], {}, -1, "1e3", 10**400):
            yield f"{name} {str(value)[:8]!r}", raw(header, claims | {name: value}, key)
    for value in (5, None, {}, [5], [None], [[]], True):
        yield f"aud {value!r}", raw(header, claims | {"aud": value}, key)
    for name in ("iss", "jti"):
        for value in (5, None, [], {}, True):
            yield f"{name} {value!r}", raw(header, claims | {name: value}, key)


def spellings(header, claims, key):
    """Yield other spellings of a good token."""
    good = raw(header, claims, key)
    head, body, signature = good.split(".")
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{good}.{signature}"
    yield "six parts", f"{good}.{good}"
    yield "no payload", f"{head}..{signature}"
    yield "no signature", f"{head}.{body}."
    yield "a dot before", f".{good}"
    for name, mark in (
        ("space", " "),
        ("newline", "\n"),
        ("tab", "\t"),
        ("NUL", "\x00"),
        ("umlaut", "ä"),
    ):
        yield f"{name} inside", f"{head}.{body[:5]}{mark}{body[5:]}.{signature}"
        yield f"{name} at the end", f"{good}{mark}"
    for at, part in enumerate((head, body, signature)):
        padded = [head, body, signature]
        padded[at] = part + "="
        yield f"padding of part {at}", ".".join(padded)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = signature[:-1] + last[last.index(signature[-1]) ^ 1]
    yield "trailing bits", f"{head}.{body}.{loose}"
    yield "standard alphabet", f"{head}.{body}.{signature[:-4]}+/+/"
    octets = base64.urlsafe_b64decode(signature + "==")
    yield "a short signature", f"{head}.{body}.{b64url(octets[:-1])}"
    yield "a long signature", f"{head}.{body}.{b64url(octets + b'x')}"
    yield "a turned bit", f"{head}.{body}.{b64url(bytes([octets[0] ^ 1]) + octets[1:])}"
    yield (
        "another payload",
        f"{head}.{b64url(json.dumps(claims | {'more': 1}).encode())}.{signature}",
    )
    flat = {"protected": head, "payload": body, "signature": signature}
    yield "flattened JSON", json.dumps(flat)
    yield "general JSON", json.dumps({"payload": body, "signatures": [flat]})
    yield "ten megabytes", f"{head}.{'A' * 10_000_000}.{signature}"


def encrypted(_header, _claims, _key):
    """Yield JWEs of kinds that cost or leak."""
    for alg, enc, more in (
        ("RSA1_5", "A128CBC-HS256", {}),
        ("dir", "A256GCM", {}),
        ("A128KW", "A256GCM", {}),
        ("PBES2-HS256+A128KW", "A256GCM", {"p2c": 2**31, "p2s": "AAAA"}),
        ("RSA-OAEP-256", "A256GCM", {"zip": "DEF"}),
        ("RSA-OAEP-256", "A256GCM", {}),
    ):
        head = b64url(json.dumps({"alg": alg, "enc": enc, **more}).encode())
        yield (
            f"JWE {alg} {' '.join(more)}".strip(),
            f"{head}.AAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
        )


@cache
def weak(bits: int, exponent: int) -> rsa.RSAPrivateKey:
    """Make an RSA key that nobody should use."""
    return rsa.generate_private_key(exponent, bits)


def vectors(header, claims, key):
    """Yield every vector: name and token."""
    for make in (algorithms, elliptic, headers, payloads, spellings, encrypted):
        yield from make(header, claims, key)
