"""A fuzzer for the JOSE and form parsers: mutants of good inputs, at the level of octets, parts and JSON members.

    python -m tests.fuzz.parsers --seconds 60 [--seed N] [--evidence]

An input may be accepted or refused as a value; anything else (an exception, a forgery, a text with two meanings, an
input that takes long) is a finding: it is printed with its seed, and the exit status is 1.
"""

import argparse
import base64
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hub.authz.facts import UNKNOWN_CALLER, Column, Facts, Rules
from hub.authz.steps import MATRIX, Phase
from hub.model.fault import caller_fault
from hub.protocol import fapi, jose
from hub.protocol.dpop import Proof, ProofFault, check_proof, normal_url
from hub.protocol.oauth import (
    FormFault,
    error_body,
    is_challenge,
    parse_form,
    parse_pairs,
    parse_scope,
    printable,
    show,
)

VECTORS = Path(__file__).parents[1] / "vectors"
LONG_S = 0.25
"""No input of a few kilobytes may keep a worker busy for longer (CPU time)."""
DEPTH = 64
"""JSON may nest as deep as this."""

ALGS = ("PS256", "ES256", "EdDSA")
KEYS = {
    "PS256": jose.PrivateKey(kid="r", key=rsa.generate_private_key(65537, 2048)),
    "ES256": jose.PrivateKey(kid="e", key=ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": jose.PrivateKey(kid="d", key=ed25519.Ed25519PrivateKey.generate()),
}
PUBLIC = {alg: jose.load_key(jose.public_jwk(key, alg="")) for alg, key in KEYS.items()}
ENC = jose.load_key(jose.public_jwk(KEYS["PS256"], use="enc", alg=""))
NOW = 1_795_000_000
URL = "https://as.example/token"
PROOF = {"jti": "j", "htm": "POST", "htu": URL, "iat": NOW}
PROOF_KEY = {
    name: value
    for name, value in jose.public_jwk(KEYS["ES256"]).items()
    if name not in {"kid", "use", "alg"}
}
REQUEST = {
    "iss": "a", "client_id": "a", "aud": ["b"], "nbf": NOW, "exp": NOW + 300, "response_type": "code", "response_mode": "jwt",
    "redirect_uri": URL, "scope": "openid payments accounts", "state": "s", "nonce": "n", "max_age": 0, "prompt": "login",
    "code_challenge": "A" * 43, "code_challenge_method": "S256", "claims": {}, "login_hint": "x", "dpop_jkt": "A" * 43, "jti": "j",
    "authorization_details": [{"type": "urn:openfinanceuae:service-initiation-consent:v2.1", "consent": {"Permissions": ["ReadBalances"]}}],
}  # fmt: skip
HEADER = jose.b64url(b'{"alg":"PS256"}')
RULES = Rules(issuer="b", algs=ALGS, general=True, jarm=True)
CALLER = msgspec.structs.replace(
    UNKNOWN_CALLER, client_id="a", roles=("BSIP",), redirect_uris=(URL,)
)
SCHEMA = caller_fault(400, "x", "the schema is asked", check="schema")
PAR_ROWS = [
    row
    for row in MATRIX
    if row.phase is Phase.REQUEST
    and Column.PAR in row.columns
    and row.name not in {"request.algorithm", "request.key", "request.signature"}
]
FORMS = (
    "grant_type=authorization_code&code=abc&redirect_uri=https%3A%2F%2Ftpp.example%2Fcb%3Fa%3Db&code_verifier=v",
    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c",
    "scope=openid+accounts&state=%C3%A4%20b&nonce=&request_uri=urn:x&client_id=1",
)
ODD = (
    b"\x00", b"%", b"%2", b"%zz", b"&&", b"=", b"+", b"%00", b"%ff", b"\xff", b"..", b".", b"=" * 3, b"\r\n", b" ",
    b'"', b"\\", b"{}", b"[]", b"null", b"1e999", b"NaN", b"-0", b"9" * 400, b"[" * 70, b'{"a":' * 70, b"\\ud800", b"\xc0\x80",
    b"\xed\xa0\x80", "٣".encode(), b"A" * 5000, b"_", b"-", b"/",
)  # fmt: skip
VALUES = (
    None,
    True,
    0,
    -1,
    1e308,
    1 << 70,
    "",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": {"a": []}},
    "none",
    "\x00",
    ["a", 1],
    NOW,
    0.5,
    ["jwt"],
    URL + "\n",
    " " + URL,
    URL.replace("/token", ":0/token"),
    URL.replace("s.e", "\u017f.e"),
    NOW + 0.5,
)
NAMES = ("alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5c", "x5u", "iss", "sub", "aud", "exp", "nbf", "iat", "jti",
         "htm", "htu", "ath", "nonce", "kty", "crv", "n", "e", "x", "y", "use", "key_ops", "d", "keys", "zip", "enc", "cty",
         "response_mode", "request", "type", "consent")  # fmt: skip


@dataclass
class Findings:
    """What was tried and what went wrong."""

    tried: Counter = field(default_factory=Counter)
    accepted: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, target: str, seed: int, text: bytes, why: str) -> None:
        """Remember a finding, the first twenty in full."""
        if len(self.wrong) < 20:
            self.wrong.append(f"{target}: {why}; seed {seed}; input {text[:2000]!r}")


def tokens() -> list[str]:
    """Make the good tokens that mutants are made of."""
    claims = {"iss": "a", "sub": "a", "aud": "b", "iat": NOW, "exp": NOW + 60, "jti": "j"}
    made = [jose.sign(claims, key, alg=alg, typ="JWT") for alg, key in KEYS.items()]
    proof = {"jti": "j", "htm": "POST", "htu": URL, "iat": NOW}
    for alg in ALGS:
        public = {
            k: v for k, v in jose.public_jwk(KEYS[alg]).items() if k not in {"kid", "use", "alg"}
        }
        made.append(jose.sign(proof, KEYS[alg], alg=alg, typ="dpop+jwt", header={"jwk": public}))
    made.append(jose.encrypt(b"secret", ENC, cty="JWT"))
    examples = json.loads((VECTORS / "rfc_examples.json").read_text())["rfc9449"]
    made += [examples[name]["jwt"] for name in ("token_request_proof", "resource_request_proof")]
    return made


def key_sets() -> list[bytes]:
    """Make the good key sets."""
    ours = {"keys": [jose.public_jwk(key) for key in KEYS.values()]}
    cases = json.loads((VECTORS / "wycheproof_json_web_key_test.json").read_text())
    public = [group.get("public") for group in cases["testGroups"]]
    return [json.dumps(one).encode() for one in (ours, *public) if one]


class Mutator:
    """Change an input at random, but the same for the same seed."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def octets(self, text: bytes) -> bytes:
        """Change, cut, repeat or insert octets."""
        dice, at = self.dice, self.dice.randrange(len(text) + 1)
        match dice.randrange(6):
            case 0:
                return text[:at] + dice.choice(ODD) + text[at:]
            case 1:
                return text[:at] + bytes([dice.randrange(256)]) + text[at + 1 :]
            case 2:
                end = min(len(text), at + dice.randrange(1, 40))
                return text[:at] + text[end:]
            case 3:
                end = min(len(text), at + dice.randrange(1, 40))
                return text[:end] + text[at:]
            case 4:
                return text[:at]
            case _:
                return text[at:] + text[:at]

    def value(self, value, depth=0):
        """Change one place of a JSON value."""
        dice = self.dice
        if isinstance(value, dict) and depth < 6:
            changed = dict(value)
            name = dice.choice([*changed, dice.choice(NAMES)])
            match dice.randrange(4):
                case 0:
                    changed.pop(name, None)
                case 1:
                    changed[dice.choice(NAMES)] = dice.choice(VALUES)
                case _:
                    changed[name] = self.value(changed.get(name), depth + 1)
            return changed
        if isinstance(value, list) and value and depth < 6:
            changed = list(value)
            at = dice.randrange(len(changed))
            changed[at] = self.value(changed[at], depth + 1)
            return changed * dice.choice((1, 1, 1, 2))
        return dice.choice(VALUES)

    def json_text(self, text: bytes) -> bytes:
        """Change a JSON text: its value, or a member there twice, or its octets."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.octets(text)
        match self.dice.randrange(4):
            case 0:
                return self.octets(text)
            case 1 if text.startswith(b"{"):
                name = json.dumps(self.dice.choice(NAMES))
                return b"{" + f"{name}: {json.dumps(self.dice.choice(VALUES))},".encode() + text[1:]
            case _:
                return json.dumps(self.value(value)).encode()

    def token(self, text: str) -> bytes:
        """Change a compact token: a part's octets, a JSON inside, or the whole text."""
        parts = text.encode().split(b".")
        at = self.dice.randrange(len(parts))
        match self.dice.randrange(4):
            case 0:
                return self.octets(text.encode())
            case 1:
                parts[at] = self.octets(parts[at])
            case _:
                inside = base64.urlsafe_b64decode(parts[at] + b"=" * (-len(parts[at]) % 4))
                parts[at] = jose.b64url(self.json_text(inside)).encode()
        return b".".join(parts)


def check_token(text: bytes, originals: set[bytes]) -> str | None:
    """Parse and verify a mutant; return what is wrong, if anything."""
    parsed = jose.parse(text)
    if isinstance(parsed, jose.JoseFault):
        return "" if parsed.why.isprintable() else "a reason that cannot be printed"
    again = b".".join(
        jose.b64url(octets).encode()
        for octets in (base64.urlsafe_b64decode(part + b"==") for part in text.split(b"."))
    )
    if again != text:
        return "a second spelling was accepted"
    if dict(parsed.claims) != json.loads(base64.urlsafe_b64decode(text.split(b".")[1] + b"==")):
        return "the claims have a second meaning"
    if wrong := check_rules(parsed):
        return wrong
    msgspec.msgpack.encode(dict(parsed.claims))  # raises where they cannot be stored
    for alg in ALGS:
        if jose.verify(parsed, PUBLIC[alg], ALGS) is None and text not in originals:
            return "a forged signature was accepted"
    return None


def check_rules(parsed: jose.Parsed) -> str | None:
    """Apply the rules on types, audiences and windows to whatever was well formed; what passes must lie in its window."""
    header, claims = parsed.header, parsed.claims
    told = [
        fapi.wrong_type(header, fapi.ASSERTION_TYPES),
        fapi.wrong_audience(claims.get("aud"), "b", array=True),
        fapi.wrong_assertion_window(claims, NOW, lifetime=300, ahead=10),
        fapi.wrong_request_window(claims, NOW, lifetime=300, ahead=10),
    ]
    if not all(one is None or (one and one.isprintable()) for one in told):
        return f"a reason that cannot be printed: {told!r}"
    if told[2] is None and not NOW < claims["exp"] <= NOW + 320:
        return "an assertion outside of its window was accepted"
    if told[3] is None and not (NOW - 300 <= claims["nbf"] < claims["exp"] <= NOW + 310):
        return "a request object outside of its window was accepted"
    return None


def depth_of(value) -> int:
    """Return how deep a JSON value nests."""
    deep, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        deep += 1
        level = [
            child for one in level for child in (one.values() if isinstance(one, dict) else one)
        ]
    return deep


def check_json(text: bytes, _originals: set[bytes]) -> str | None:
    """Read a mutant as JSON; another decoder, and the depth counted afterwards, must agree."""
    found = jose.decode_json(text)
    try:
        theirs = json.loads(text)
    except (ValueError, RecursionError):
        return "" if isinstance(found, jose.JoseFault) else "accepted what is no JSON"
    if isinstance(found, jose.JoseFault):
        deep = "deeper" in found.why
        return "called too deep, wrongly" if deep and depth_of(theirs) <= DEPTH else ""
    if depth_of(theirs) > DEPTH:
        return "nested too deep"
    return None if found == theirs else "another decoder reads it otherwise"


def check_dpop(text: bytes, originals: set[bytes]) -> str | None:
    """Check a mutant as a DPoP proof."""
    found = check_proof([text], method="POST", url=URL, now=NOW, algs=ALGS)
    if isinstance(found, ProofFault):
        return ""
    signed = text.rpartition(b".")[0]
    known = {one.rpartition(b".")[0] for one in originals}
    return None if isinstance(found, Proof) and signed in known else "a forged proof was accepted"


def check_claims_of_proof(text: bytes, _originals: set[bytes]) -> str | None:
    """Check a proof whose key has signed mutated claims; what passes must be lawful to a second reading."""
    signed = jose.sign(text, KEYS["ES256"], alg="ES256", typ="dpop+jwt", header={"jwk": PROOF_KEY})
    found = check_proof([signed.encode()], method="POST", url=URL, now=NOW, algs=ALGS)
    if isinstance(found, ProofFault):
        return "" if found.why.isprintable() else "a reason that cannot be printed"
    claims = json.loads(text)
    htu = claims["htu"].partition("?")[0].partition("#")[0]
    lawful = re.fullmatch(r"(?ai:https://as\.example(:443)?)/token", htu)
    moment = type(claims["iat"]) in {int, float} and NOW - 60 <= claims["iat"] <= NOW + 30
    ends = claims["iat"] + 60 <= found.replay_until <= NOW + 121
    good = lawful and moment and ends and claims["htm"] == "POST" and claims["jti"]
    return None if good else "a proof of something else was accepted"


def check_request(text: bytes, _originals: set[bytes]) -> str | None:
    """Judge mutated claims of a request object up to the schema; the signature is another target's business."""
    parsed = jose.parse(f"{HEADER}.{jose.b64url(text)}.AA")
    if isinstance(parsed, jose.JoseFault):
        return ""
    facts = Facts(column=Column.PAR, rules=RULES, now=NOW, judged=CALLER, request=parsed,
                  form={"request": "a"}, details_check=lambda *_: SCHEMA)  # fmt: skip
    row, fault = next((row, fault) for row in PAR_ROWS if (fault := row.check(facts)))
    if not fault.public.isprintable():
        return "a reason that cannot be printed"
    return None if row.name == "detail.schema" else ""


def check_jwe(text: bytes, originals: set[bytes]) -> str | None:
    """Open a mutant of a JWE."""
    found = jose.decrypt(text.decode("latin-1"), KEYS["PS256"])
    if isinstance(found, jose.JoseFault):
        return ""
    return None if text in originals else "a forged JWE was opened"


def check_key_set(text: bytes, _originals: set[bytes]) -> str | None:
    """Load a mutant of a key set."""
    found = jose.load_key_set(text)
    if isinstance(found, jose.JoseFault):
        return ""
    for key in found:
        if key.thumbprint != jose.thumbprint(jose.public_jwk(key, alg="")):
            return "a key that is not what its thumbprint says"
    return None


def check_form(text: bytes, _originals: set[bytes]) -> str | None:
    """Read a mutant of a form, and everything that is made of its values."""
    pairs, form = parse_pairs(text), parse_form(text)
    if isinstance(pairs, FormFault) or isinstance(form, FormFault):
        return ""
    theirs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")
    if list(pairs) != theirs:
        return f"another parser reads it otherwise: {theirs!r}"
    for value in form.values():
        parse_scope(value)
        is_challenge(value)
        normal_url(value)
        if not show(value).isprintable() or not printable(value).isprintable():
            return "a description that cannot be printed"
    return None


def check_error(text: bytes, _originals: set[bytes]) -> str | None:
    """Say a mutant in an error."""
    public = f"x: got {show(text.decode('latin-1'))}"
    said = json.loads(error_body(caller_fault(400, "invalid_request", public, check="c")))
    description = said["error_description"]
    allowed = description.isascii() and description.isprintable()
    return None if allowed and not set(description) & set('"\\') else "an unlawful description"


def targets():
    """Return each target: its name, its check, its good inputs, and how they are changed."""
    good = tokens()
    jwes = [one for one in good if one.count(".") == 4]
    nests = [b"[" * n + b'{"a": "[{"}' + b"]" * n for n in (1, 20, 62, 63, 64, 80)]
    nests += [b'{"\\"[":[' * n + b"1" + b"]}" * n for n in (1, 31, 32, 33)]
    return (
        ("token", check_token, good, Mutator.token),
        ("DPoP proof", check_dpop, good, Mutator.token),
        ("JWE", check_jwe, jwes, Mutator.token),
        ("JSON", check_json, [*nests, *key_sets()[:3]], Mutator.json_text),
        ("key set", check_key_set, key_sets(), Mutator.json_text),
        ("proof's claims", check_claims_of_proof, [json.dumps(PROOF).encode()], Mutator.json_text),
        ("request's claims", check_request, [json.dumps(REQUEST).encode()], Mutator.json_text),
        ("form", check_form, [one.encode() for one in FORMS], Mutator.octets),
        ("error", check_error, [one.encode() for one in FORMS], Mutator.octets),
    )


def attempt(found: Findings, seed: int, table) -> None:
    """Try one mutant, made of one seed."""
    dice = random.Random(seed)
    name, check, good, change = dice.choice(table)
    mutator = Mutator(dice)
    text = change(mutator, dice.choice(good))
    for _ in range(dice.choice((0, 0, 1, 3))):
        text = mutator.octets(text)
    originals = {one if isinstance(one, bytes) else one.encode() for one in good}
    found.tried[name] += 1
    began = time.thread_time()
    try:
        why = check(text, originals)
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        why = f"raised {error!r}"
    took = time.thread_time() - began
    if took > LONG_S:
        why = why or f"took {took:.2f} s"
    if why is None:
        found.accepted[name] += 1
    elif why:
        found.add(name, seed, text, why)


def run(seconds: float, seed: int) -> Findings:
    """Fuzz for some seconds; each attempt has a seed of its own, counted up from ``seed``."""
    found, table = Findings(), targets()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(200):
            attempt(found, seed, table)
            seed += 1
    return found


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--evidence", action="store_true", help="append to bench/evidence.jsonl")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 40)
    found = run(options.seconds, seed)
    for line in found.wrong:
        print(line, file=sys.stderr)
    total = sum(found.tried.values())
    print(f"{total} inputs from seed {seed}: {dict(found.tried)}; accepted {dict(found.accepted)}")
    print("nothing found" if not found.wrong else f"{len(found.wrong)} findings")
    if options.evidence:
        from bench.evidence import append

        counts = {"inputs": total, "seconds": options.seconds}
        append("fuzz_parsers", counts, [seed], {"findings": len(found.wrong)})
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
