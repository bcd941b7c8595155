"""The JOSE corpus (reliability, group E) through every place that takes a signed message, each refused as its place says.

Places: request object, client assertion, DPoP proof, access token, and the signed body of a resource request. No refusal
costs more than 5 ms of CPU or 64 KiB of memory beyond the message itself, causes more than one look for a new key, or goes
without its event.
"""

import time
import tracemalloc
from dataclasses import dataclass

import orjson
import pytest

from hub.model.http import Admission
from hub.protocol import jose
from hub.protocol.oauth import token_hash
from tests.authz.corpus import P384, raw, vectors, weak
from tests.authz.desk import ALICE, HUB_KEY, ISSUER, KEYS, Desk
from tests.gateway.test_consents import SIGNED, patch, started
from tests.gateway.world import BASE, CLIENT, KEY, NOW

MOST_S = 0.005
"""Of the thread's CPU, the least of some tries: what a collection of garbage in between costs is not the refusal's."""
TRIES = 5
MOST_COPIED = 65_536
"""Octets in use at once for a refusal, beyond those of the message."""

CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


def times(desk):
    now = desk.clock.now()
    return {"iat": now, "nbf": now, "exp": now + 60}


class RequestObject:
    """A request object at PAR."""

    errors = frozenset({"invalid_request_object"})
    good_status = frozenset({201})
    harmless = frozenset({"typ None", "jti None"})

    def good(self, desk):
        header = {"alg": "PS256", "kid": "alice-1", "typ": "oauth-authz-req+jwt"}
        return header, {**desk.claims(), **times(desk), "jti": "r"}, KEYS[ALICE].key

    async def send(self, desk, token):
        return await desk.par(form={"request": token})


class Assertion:
    """A client assertion at the token endpoint."""

    errors = frozenset({"invalid_client"})
    good_status = frozenset({200})
    harmless = frozenset()

    def good(self, desk):
        header = {"alg": "PS256", "kid": "alice-1", "typ": "JWT"}
        claims = {"iss": ALICE, "sub": ALICE, "aud": ISSUER, "jti": desk.unique(), **times(desk)}
        return header, claims, KEYS[ALICE].key

    async def send(self, desk, token):
        return await desk.token(**CREDENTIALS, client_assertion=token)


class Proof:
    """A DPoP proof at the token endpoint."""

    errors = frozenset({"invalid_dpop_proof"})
    good_status = frozenset({200})
    harmless = frozenset({"space at the end", "newline at the end", "tab at the end"})

    def good(self, desk):
        public = {k: v for k, v in jose.public_jwk(KEYS[ALICE]).items() if k in {"kty", "n", "e"}}
        header = {"alg": "PS256", "typ": "dpop+jwt", "jwk": public}
        claims = {"jti": desk.unique(), "htm": "POST", "htu": ISSUER + "/token", **times(desk)}
        return header, claims, KEYS[ALICE].key

    async def send(self, desk, token):
        sent = ((b"dpop", token.encode("utf-8")),)
        return await desk.token(**CREDENTIALS, headers=sent)


class AccessToken:
    """An access token at the userinfo endpoint."""

    errors = frozenset({"invalid_token"})
    good_status = frozenset({401})
    harmless = frozenset()

    def good(self, desk):
        header = {"alg": "PS256", "kid": HUB_KEY.kid, "typ": "at+jwt"}
        claims = {"iss": ISSUER, "aud": "https://rs1.hub.example", "sub": ALICE, **times(desk)}
        return header, {**claims, "jti": "t", "client_id": ALICE, "scope": "openid"}, HUB_KEY.key

    async def send(self, desk, token):
        sent = ((b"authorization", b"Bearer " + token.encode("utf-8")),)
        return await desk.tpp["GET", "/userinfo"](desk.request("GET", "/userinfo", headers=sent))


@dataclass
class Answer:
    """What the edge itself answers, for messages that it does not let in."""

    status: int
    body: bytes = b""


class Metered:
    """Call handlers as the edge does, within its bounds, and measure what they cost."""

    def __init__(self, desk, *, copies=False):
        self.cpu_s, self.copied, self.at_the_edge = 0.0, 0, 0
        self._copies, self._limits = copies, desk.settings.limits
        admissions = desk.authz.tpp_admissions()
        for route, handler in desk.tpp.items():
            desk.tpp[route] = self._around(handler, admissions.get(route, Admission()))

    def _around(self, handler, admission):
        async def answered(request):
            head = sum(len(name) + len(value) for name, value in request.headers)
            if head > self._limits.header_octets or len(request.body) > admission.limit:
                self.at_the_edge += 1
                return Answer(431 if head > self._limits.header_octets else 413)
            return await self._measured(handler, request)

        return answered

    async def _measured(self, handler, request):
        if self._copies:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
        began = time.thread_time()
        answer = await handler(request)
        self.cpu_s = time.thread_time() - began
        if self._copies:
            self.copied = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
        return answer


PLACES = [RequestObject(), Assertion(), Proof(), AccessToken()]


def is_harmless(place, name):
    """Tell whether a defect is none here: absent claims that the place does not ask for, key ids where no key is looked up."""
    if name in place.harmless:
        return True
    if isinstance(place, Proof):
        return name.startswith("kid ") and not name.startswith(
            ("kid 5", "kid None", "kid []", "kid {")
        )
    return False


@pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
async def test_every_vector_is_refused_as_its_place_says(place):
    desk = Desk()
    meter = Metered(desk)
    wrong, slow, count = [], [], 0
    header, claims, key = place.good(desk)
    for name, token in vectors(header, claims, key):
        if is_harmless(place, name):
            continue
        count += 1
        looks, events, early = desk.trust.refreshed, len(await desk.events()), meter.at_the_edge
        answer = await place.send(desk, token)
        if meter.at_the_edge > early:
            assert len(token) > desk.settings.limits.header_octets
            continue
        sent = len(await desk.events()) == events + 1 and desk.trust.refreshed <= looks + 1
        for _ in range(TRIES):
            if meter.cpu_s <= MOST_S:
                break
            await place.send(desk, token)
        else:
            slow.append((name, meter.cpu_s))
        body = orjson.loads(answer.body) if answer.body else {}
        if answer.status not in {400, 401} or body.get("error") not in place.errors:
            wrong.append((name, answer.status, body.get("error")))
        if not sent:
            wrong.append((name, "looks or events"))
    # Nothing of them was used up: the good message, with the very same jti, is still good.
    answer = await place.send(desk, raw(header, claims, key))
    assert answer.status in place.good_status, answer.body
    desk.close()
    assert wrong == []
    assert slow == []
    assert count >= 120


@pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
async def test_no_vector_is_copied_often_before_it_is_refused(place):
    desk = Desk()
    meter = Metered(desk, copies=True)
    header, claims, key = place.good(desk)
    await place.send(desk, raw(header, claims, key))
    copied = {}
    for name, token in vectors(header, claims, key):
        early = meter.at_the_edge
        await place.send(desk, token)
        if meter.at_the_edge == early:
            copied[name] = meter.copied - len(token)
    desk.close()
    assert {name: octets for name, octets in copied.items() if octets > MOST_COPIED} == {}
    assert len(copied) >= 120


async def timed(world, body):
    """Send a signed body; return the answer and the CPU seconds that it cost."""
    began = time.thread_time()
    response = await patch(world, body, SIGNED)
    return response, time.thread_time() - began


async def test_every_vector_is_refused_as_a_signed_body():
    wrong, count = [], 0
    header = {"alg": "PS256", "kid": KEY.kid, "typ": "JWT"}
    claims = {"iss": CLIENT, "aud": BASE, "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "p",
              "message": {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}}  # fmt: skip
    world = await started()
    public = jose.PublicKey(kid=KEY.kid, use="sig", key=KEY.key.public_key())
    world.trust.keys[KEY.kid] = public
    for name, token in vectors(header, claims, KEY.key):
        if name in HARMLESS_IN_BODIES:
            continue
        count += 1
        body, events = token.encode(), len(await world.events())
        response, cpu_s = await timed(world, body)
        if response.status not in {400, 413}:
            wrong.append((name, response.status, response.body[:80]))
        if len(await world.events()) != events + 1:
            wrong.append((name, "events"))
        tried = 1
        while cpu_s > MOST_S and tried < TRIES:
            tried, (_, cpu_s) = tried + 1, await timed(world, body)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await patch(world, body, SIGNED)
        copied = tracemalloc.get_traced_memory()[1] - before - len(body)
        tracemalloc.stop()
        if cpu_s > MOST_S or copied > MOST_COPIED:
            wrong.append((name, cpu_s, copied))
    assert wrong == []
    assert count >= 120


HARMLESS_IN_BODIES = frozenset(
    {"typ 'JOSE'", "space at the end", "newline at the end", "tab at the end"}
)
"""RFC 7515 lets a JWS be called JOSE; white space around a body is no part of the message in it."""


@pytest.mark.parametrize(
    ("name", "alg", "key"),
    [
        ("RSA of 1024 bits", "PS256", weak(1024, 65537)),
        ("exponent 3", "PS256", weak(2048, 3)),
        ("P-384", "ES384", P384),
        ("P-384 as ES256", "ES256", P384),
    ],
)
async def test_a_proof_by_a_weak_or_foreign_key_is_refused(desk, name, alg, key):
    numbers = key.public_key().public_numbers()
    if alg == "PS256":
        public = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    else:
        public = {"kty": "EC", "crv": "P-384", "x": number(numbers.x), "y": number(numbers.y)}
    now = desk.clock.now()
    claims = {
        "jti": "j",
        "htm": "POST",
        "htu": ISSUER + "/token",
        "iat": now,
        "ath": token_hash("x"),
    }
    proof = raw({"alg": alg, "typ": "dpop+jwt", "jwk": public}, claims, key, alg)
    answer = await desk.token(**CREDENTIALS, headers=((b"dpop", proof.encode()),))
    assert orjson.loads(answer.body)["error"] == "invalid_dpop_proof", name


def number(value):
    return jose.b64url(value.to_bytes((value.bit_length() + 7) // 8))


async def test_a_replay_in_another_spelling_is_a_replay(desk):
    """The memory of what was used is keyed by what is said, never by how it is spelt."""
    header = {"alg": "PS256", "kid": "alice-1"}
    claims = {"iss": ALICE, "sub": ALICE, "aud": ISSUER, "jti": "same", **times(desk)}
    first = raw(header, claims, KEYS[ALICE].key)
    again = raw(header, dict(reversed(claims.items())), KEYS[ALICE].key)
    assert first != again
    assert (await desk.token(**CREDENTIALS, client_assertion=first)).status == 200
    answer = await desk.token(**CREDENTIALS, client_assertion=again)
    assert answer.event.check == "client_assertion.replay"
