"""A desk to test the authorization server at: its keeper in memory, two clients, a bank, given time and dice."""

from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hub.authz.app import Authz
from hub.authz.explanations import explain
from hub.config import Settings, default_limits
from hub.model.caller import NOBODY, Caller, Peer
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent, Status
from hub.model.event import Event, Kind
from hub.model.fault import caller_fault
from hub.model.http import Request
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol import jose
from hub.protocol.oauth import ASSERTION_TYPE, challenge_of
from hub.state.keeper import Put
from hub.state.memory import MemoryKeeper
from hub.trust import decide

NOW = 1_795_000_000
ISSUER = "https://as1.hub.example"
ALICE = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
REDIRECT = "https://tpp.example/cb?dummy1=lorem"
VERIFIER = "v" * 50
BANK_ORG, BANK_APP = "bank-org", "bank-app"
CONSENT_ID = "0b7f6d0e-6d0b-4a50-9a53-0c8a3c1f7a01"
AIS = "urn:openfinanceuae:account-access-consent:v2.1"
PIS = "urn:openfinanceuae:service-initiation-consent:v2.1"


def rsa_key(kid):
    return jose.PrivateKey(kid=kid, key=rsa.generate_private_key(65537, 2048))


KEYS = {ALICE: rsa_key("alice-1"), BOB: rsa_key("bob-1")}
HUB_KEY = rsa_key("hub-1")
DPOP_KEY = jose.PrivateKey(kid="dpop", key=ec.generate_private_key(ec.SECP256R1()))
OTHER_DPOP_KEY = jose.PrivateKey(kid="dpop2", key=ec.generate_private_key(ec.SECP256R1()))


def settings(**changes):
    origin = {"bind": "127.0.0.1", "port": 1}
    file = "/nowhere/file"
    raw = {
        "tenant": {
            "provider_id": "lfi",
            "organisation_id": BANK_ORG,
            "organisation_name": "Bank",
            "issuer": ISSUER,
            "resource_base": "https://rs1.hub.example",
            "environment": "sandbox",
            "profile": "uae",
        },
        "tpp": origin,
        "lfi": {
            "port": 2,
            "certificate": file,
            "key": file,
            "client_ca": file,
            "base": "https://hh.hub.example",
            "organisation_id": BANK_ORG,
            "client_ids": [BANK_APP],
        },
        "ops": {"port": 3},
        "keys": {"signing": [file], "bearer": file},
        "bank": {
            "base_url": "https://bank.example",
            "authorization_endpoint": "https://app.bank.example/open-finance",
            "ca": file,
            "certificate": file,
            "key": file,
        },
        "trust": {
            "participants": "https://d.example",
            "keystore": "https://d.example",
            "api": "https://d.example",
            "token_endpoint": "https://d.example",
            "client_id": "hub",
            "ca": file,
            "certificate": file,
            "key": file,
        },
        "state": {"folder": file},
        "limits": default_limits(),
        "switches": {},
    }
    for section, values in changes.items():
        raw[section] = {**raw[section], **values}
    return msgspec.convert(raw, Settings, dec_hook=lambda kind, value: kind(value))


def caller(client_id, organisation, **changes):
    base = Caller(
        client_id=client_id,
        organisation_id=organisation,
        software_statement_id=client_id,
        tpp_id=organisation,
        tpp_name=organisation,
        roles=("BDSP", "BSIP", "ISP"),
        redirect_uris=(REDIRECT,),
        webhook_uris=("https://tpp.example/hook",),
    )
    return msgspec.structs.replace(base, **changes)


def peer(client_id, certificate="cert"):
    return Peer(x5t_s256=f"{certificate}-{client_id}", client_id=client_id, organisation_id="org")


class Framework:
    """The Trust Framework as the tests want it: two clients, their keys, and a count of refreshes."""

    def __init__(self):
        self.callers = {ALICE: caller(ALICE, "alice-org"), BOB: caller(BOB, "bob-org")}
        self.published = {client: {key.kid: key} for client, key in KEYS.items()}
        self.unpublished = {}
        self.refreshed = 0
        self.encryption = None

    def judge(self, peer, now, risk=None):
        found = self.callers.get(peer.client_id)
        if found is None:
            check = "trust.not_registered" if peer.present else "trust.certificate_missing"
            return caller_fault(401, "invalid_client", "certificate: unknown", check=check)
        return msgspec.structs.replace(found, x5t_s256=peer.x5t_s256)

    def caller(self, client_id):
        return self.callers.get(client_id)

    def explain(self, client_id):
        known = self.callers.get(client_id)
        return None if known else decide.refuse("trust.not_registered")

    def key(self, client_id, kid, use):
        key = self.published.get(client_id, {}).get(kid)
        if key is None or use != "sig":
            return None
        alg = "ES256" if isinstance(key.key, ec.EllipticCurvePrivateKey) else ""
        return jose.load_key({**jose.public_jwk(key, alg=alg), "alg": alg})

    def encryption_key(self, client_id):
        return self.encryption

    async def refresh_keys(self, client_id):
        self.refreshed += 1
        self.published[client_id] |= self.unpublished


class Desk:
    """Drive the authorization server as TPP and as bank."""

    def __init__(
        self,
        *,
        details_check=lambda _type, _element: None,
        validate=None,
        clock=None,
        keeper=None,
        seed="desk",
        signing_keys=(HUB_KEY,),
        **changes,
    ):
        self.clock = clock or FixedClock(NOW)
        self.dice = SeededDice(seed)
        self.keeper = keeper or MemoryKeeper(clock=self.clock)
        self.trust = Framework()
        self.settings = settings(**changes)
        self.observer = Observer(self.clock, log=False)
        self.authz = Authz(
            settings=self.settings,
            keeper=self.keeper,
            trust=self.trust,
            signing_keys=signing_keys,
            details_check=details_check,
            clock=self.clock,
            dice=self.dice,
            observer=self.observer,
            validate=validate,
        )
        self.tpp = self.authz.tpp_routes()
        self.lfi = self.authz.lfi_routes()
        self.count = 0

    def close(self):
        self.observer.close()

    def unique(self):
        self.count += 1
        return f"unique-{self.count}"

    # The TPP's messages

    def assertion(self, client_id=ALICE, *, key=None, header=None, alg="PS256", typ="", **claims):
        now = self.clock.now()
        base = {
            "iss": client_id,
            "sub": client_id,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 60,
            "jti": self.unique(),
        }
        merged = {name: value for name, value in (base | claims).items() if value is not None}
        return jose.sign(merged, key or KEYS[client_id], alg=alg, typ=typ, header=header)

    def consent(self, **changes):
        consent = {
            "ConsentId": CONSENT_ID,
            "Permissions": ["ReadAccountsBasic", "ReadBalances"],
            "ExpirationDateTime": "2026-12-31T20:00:00Z",
            "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        }
        return {name: value for name, value in (consent | changes).items() if value is not None}

    def detail(self, rar_type=AIS, subscription=None, **changes):
        element = {"type": rar_type, "consent": self.consent(**changes)}
        return element | ({"subscription": subscription} if subscription else {})

    def claims(self, client_id=ALICE, /, **changes):
        now = self.clock.now()
        base = {
            "iss": client_id,
            "client_id": client_id,
            "aud": ISSUER,
            "nbf": now,
            "exp": now + 300,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": "openid accounts",
            "state": "the state",
            "nonce": "the-nonce",
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            "authorization_details": [self.detail()],
        }
        return {name: value for name, value in (base | changes).items() if value is not None}

    def proof(self, path, *, key=DPOP_KEY, alg="ES256", typ="dpop+jwt", header=None, **claims):
        jwk = {k: v for k, v in jose.public_jwk(key).items() if k not in {"kid", "use", "alg"}}
        base = {
            "jti": self.unique(),
            "htm": "POST",
            "htu": ISSUER + path,
            "iat": self.clock.now(),
        }
        merged = {name: value for name, value in (base | claims).items() if value is not None}
        return jose.sign(merged, key, alg=alg, typ=typ, header={"jwk": jwk, **(header or {})})

    # Exchanges

    def request(self, method, path, form=None, *, who=ALICE, headers=(), body=None, face=Face.TPP):
        text, query = form_text(form or {}), ""
        if face is Face.LFI and method == "GET":
            text, query = "", text
        given = tuple(headers)
        if text and not any(name == b"content-type" for name, _ in given):
            given += ((b"content-type", b"application/x-www-form-urlencoded"),)
        return Request(
            face=face,
            method=method,
            authority="whatever.example",
            path=path,
            query=query,
            headers=given,
            body=text.encode() if body is None else body,
            peer=NOBODY if who is None else who if isinstance(who, Peer) else peer(who),
        )

    def signed(self, client_id=ALICE, /, **changes):
        form = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(client_id),
        }
        merged = form | changes
        return {name: value for name, value in merged.items() if value is not None}

    async def post(self, path, form, **changes):
        return await self.tpp["POST", path](self.request("POST", path, form, **changes))

    async def par(self, client_id=ALICE, /, *, form=None, headers=(), who=None, **claims):
        token = jose.sign(self.claims(client_id, **claims), KEYS[client_id])
        full = self.signed(client_id, **({"request": token} | (form or {})))
        return await self.post("/par", full, who=who or client_id, headers=headers)

    async def pushed(self, client_id=ALICE, /, **changes):
        response = await self.par(client_id, **changes)
        assert response.status == 201, response.body
        return orjson.loads(response.body)["request_uri"]

    async def bank(self, method, path, form=None, *, who=None):
        bank = who or Peer(x5t_s256="b", client_id=BANK_APP, organisation_id=BANK_ORG)
        template = path
        if path.startswith("/auth/"):
            template = "/auth/{interactionId}/" + path.rpartition("/")[2]
        request = self.request(method, path, form, who=bank, face=Face.LFI)
        return await self.lfi[method, template](request)

    async def auth(self, request_uri, client_id=ALICE, **extra):
        form = {"client_id": client_id, "request_uri": request_uri, **extra}
        return await self.bank("GET", "/auth", form)

    async def interaction(self, request_uri, client_id=ALICE):
        response = await self.auth(request_uri, client_id)
        assert response.status == 200, response.body
        return orjson.loads(response.body)["interaction"]["interactionId"]

    async def patch(self, consent_id=CONSENT_ID, **changes):
        consent, version = await self.keeper.lookup(Consent, consent_id)
        changed = msgspec.structs.replace(consent, **changes)
        event = Event(kind=Kind.CONSENT, time_ms=self.clock.now_ms())
        await self.keeper.commit([Put(changed, expect=version)], [event])

    async def confirm(self, interaction_id, form=None):
        return await self.bank("POST", f"/auth/{interaction_id}/doConfirm", form)

    async def code(self, *, authorize=True, **changes):
        interaction_id = await self.interaction(await self.pushed(**changes))
        if authorize:
            psu = {"userId": "customer-7"}
            await self.patch(status=Status.AUTHORIZED, psu_identifiers=psu)
        response = await self.confirm(interaction_id)
        assert response.status == 303, response.body
        return callback(response)["code"]

    async def token(self, client_id=ALICE, /, *, headers=(), who=None, **form):
        full = self.signed(client_id, **form)
        return await self.post("/token", full, who=who or client_id, headers=headers)

    async def redeem(self, code, client_id=ALICE, /, **changes):
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        return await self.token(client_id, **(form | changes))

    async def tokens(self, **changes):
        response = await self.redeem(await self.code(**changes))
        assert response.status == 200, response.body
        return orjson.loads(response.body)

    async def refresh(self, refresh_token, client_id=ALICE, /, **changes):
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self.token(client_id, **(form | changes))

    async def introspect(self, token, client_id=ALICE):
        form = self.signed(client_id, token=token)
        response = await self.post("/introspection", form, who=client_id)
        return orjson.loads(response.body)

    async def events(self):
        return [orjson.loads(leaf) for leaf in await self.keeper.events(0, 1000)]


def form_text(form):
    return urlencode(form)


def callback(response):
    """Return the parameters a redirect carries, and check that it goes to the registered URI."""
    location = dict(response.headers)[b"location"].decode()
    assert location.startswith(REDIRECT + "&")
    return {k: v for k, v in parse_qsl(urlsplit(location).query) if k != "dummy1"}


def refused(response, error, status=400, check=""):
    """Check an OAuth error, as every refusal must look."""
    body = orjson.loads(response.body)
    assert (response.status, body["error"]) == (status, error), body
    assert body["error_description"].isprintable()
    assert not set(body["error_description"]) & set('"\\')
    assert body["error_uri"] == f"{ISSUER}/errors/{response.event.check}"
    assert dict(response.headers)[b"cache-control"] == b"no-cache, no-store"
    assert response.event.code == error
    assert explain(response.event.check)
    if check:
        assert response.event.check == check
    return body["error_description"]
