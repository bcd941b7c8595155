"""The guard of the bank's face: certificate, client, and JWT Auth where it is demanded."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from hub.lfi.guard import peer_fault, token_fault
from hub.lfi.prefix import strip_version
from hub.model.fault import Fault
from hub.protocol.jose import PrivateKey, PublicKey, sign
from hub.trust.decide import refuse
from tests.lfi.desk import BANK, NOBODY, NOW, Desk, consent

KEY = PrivateKey(kid="bank-1", key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
STRANGER = PrivateKey(
    kid="bank-1", key=rsa.generate_private_key(public_exponent=65537, key_size=2048)
)


class Trust:
    def __init__(self, *, late=False):
        self.known = not late
        self.refreshed = 0
        self.against = None

    def vet(self, _peer, _now):
        return self.against

    def key(self, client_id, kid, use):
        if not self.known or (client_id, kid, use) != ("bank-client", "bank-1", "sig"):
            return None
        return PublicKey(kid=kid, use=use, key=KEY.key.public_key())

    async def refresh_keys(self, _client_id):
        self.refreshed += 1
        self.known = True


class Answers:
    async def value(self, _scope):
        return b"Bearer ours"


def claims(**over):
    values = {
        "iss": "Bank",
        "sub": "org-bank",
        "aud": "LFI1",
        "iat": NOW,
        "exp": NOW + 30,
        "jti": "j",
    }
    return {k: v for k, v in (values | over).items() if v is not None}


def token(key=KEY, **over):
    return sign(claims(**over), key, typ="JOSE", header={"cty": "json"}).encode()


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path, trust=Trust(), jwt_auth_inbound=True)
    await made.put(consent())
    yield made
    made.observer.close()


async def read(desk, *headers):
    return await desk.call("GET", "/consents/c1", headers=headers)


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"Ozone-Connect-JWT-Auth", b"Basic"])
async def test_a_token_passes_under_every_published_scheme(desk, scheme):
    assert (await read(desk, (b"authorization", scheme + b" " + token())))[0] == 200


WRONG = [
    (None, "JWS.Malformed"),
    (b"Bearer", "JWS.Malformed"),
    (b"Bearer a.b.c", "JWS.Malformed"),
    (b"Digest " + token(), "JWS.Malformed"),
    (b"Bearer " + token(STRANGER), "JWS.InvalidSignature"),
    (b"Bearer " + token(PrivateKey(kid="other", key=KEY.key)), "JWS.InvalidHeader"),
    (b"Bearer " + token(iss="Other"), "JWS.InvalidClaim"),
    (b"Bearer " + token(sub="org-tpp"), "JWS.InvalidClaim"),
    (b"Bearer " + token(aud="LFI2"), "JWS.InvalidClaim"),
    (b"Bearer " + token(aud=["LFI2"]), "JWS.InvalidClaim"),
    (b"Bearer " + token(exp=NOW - 10, iat=NOW - 40), "JWS.InvalidClaim"),
    (b"Bearer " + token(iat=NOW + 11, exp=NOW + 40), "JWS.InvalidClaim"),
    (b"Bearer " + token(exp=NOW + 86400), "JWS.InvalidClaim"),
    (b"Bearer " + token(exp=None), "JWS.InvalidClaim"),
    (b"Bearer " + token(nbf=NOW + 60), "JWS.InvalidClaim"),
]


@pytest.mark.parametrize(("field", "code"), WRONG)
async def test_a_wrong_token_is_401_and_says_what_is_wrong(desk, field, code):
    headers = [] if field is None else [(b"authorization", field)]
    status, body, response = await read(desk, *headers)
    assert (status, body["errorCode"]) == (401, code)
    assert response.event.verdict == "refused"
    assert field is None or field.decode() not in body["errorMessage"]


async def test_a_key_that_is_not_known_yet_is_looked_for_once(tmp_path):
    trust = Trust(late=True)
    desk = Desk(tmp_path, trust=trust, jwt_auth_inbound=True)
    await desk.put(consent())
    for _ in range(2):
        assert (await read(desk, (b"authorization", b"Bearer " + token())))[0] == 200
    assert trust.refreshed == 1
    desk.observer.close()


async def test_without_jwt_auth_the_header_is_ignored(tmp_path):
    desk = Desk(tmp_path)
    await desk.put(consent())
    assert (await read(desk, (b"authorization", b"Basic nonsense")))[0] == 200
    desk.observer.close()


async def test_answers_carry_our_token_where_it_is_switched_on(tmp_path):
    desk = Desk(tmp_path, answers=Answers())
    await desk.put(consent())
    _, _, response = await read(desk)
    assert (b"authorization", b"Bearer ours") in response.headers
    desk.observer.close()


def test_who_passes_by_certificate():
    allowed = ("org-bank", ("bank-client",))
    assert peer_fault(BANK, *allowed) is None
    assert peer_fault(NOBODY, *allowed).status == 401
    for change in ({"organisation_id": "x"}, {"client_id": "x"}, {"organisation_id": ""}):
        stranger = msgspec.structs.replace(BANK, **change)
        assert peer_fault(stranger, *allowed).status == 403


@given(st.dictionaries(st.sampled_from(sorted(claims())), st.none() | st.booleans() | st.text()))
def test_claims_of_any_kind_never_pass_by_accident(over):
    result = token_fault(claims() | over, BANK, "LFI1", NOW)
    unchanged = all(claims()[name] == value or name == "jti" for name, value in over.items())
    assert isinstance(result, Fault) is not unchanged


@pytest.mark.parametrize(
    ("path", "stripped"),
    [
        ("/v2025.32/consents", "/consents"),
        ("/v2024.4/payment-log/x", "/payment-log/x"),
        ("/consents/v2025.32", "/consents/v2025.32"),
        ("/v2025.32", "/v2025.32"),
        ("/v1/consents", "/v1/consents"),
        ("/v2025.32/v2025.32/consents", "/v2025.32/consents"),
    ],
)
def test_exactly_one_dated_prefix_is_taken_off(path, stripped):
    assert strip_version(path) == stripped


async def test_logs_of_families_that_are_not_served_know_no_entry(desk):
    for log in ("account-opening-log", "fx-quote-log", "insurance-quote-log"):
        status, body, _ = await desk.call(
            "PATCH", f"/{log}/x", {}, headers=[(b"authorization", b"Bearer " + token())]
        )
        assert (status, body["errorCode"]) == (404, "Resource.InvalidFormat")


@pytest.mark.parametrize(
    ("check", "status"),
    [
        ("trust.certificate_revoked", 403),
        ("trust.certificate_expired", 403),
        ("trust.organisation_inactive", 403),
        ("trust.stale", 503),
    ],
)
async def test_a_bank_that_the_framework_speaks_against_is_refused(tmp_path, check, status):
    trust = Trust()
    desk = Desk(tmp_path, trust=trust)
    await desk.put(consent())
    trust.against = refuse(check)
    got, body, _ = await read(desk)
    assert (got, body["errorCode"]) == (status, "GenericError")
    assert (await desk.events())[-1]["check"] == check
    trust.against = None
    assert (await read(desk))[0] == 200
    desk.observer.close()
