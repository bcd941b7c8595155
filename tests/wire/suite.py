"""What a certification suite does to an authorization server: two clients, a browser, and every message made by hand.

Nothing here is the Hub's own code: messages are signed by joserfc and sent by httpx, so that a mistake in ours is not made twice.
A suite has a variant: how tokens are bound (``dpop`` beside the certificate that is always there) and how answers come
back (``jarm`` or plain).
"""

import base64
import functools
import hashlib
import json
import secrets
import ssl
import uuid
import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeySet, RSAKey

from hub.sandbox.clock import SharedClock
from tests.outside.client import FirstForm

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DETAIL_TYPE = "urn:openfinanceuae:account-access-consent:v2.1"
ACCOUNTS = "/open-finance/account-information/v2.1/accounts"


def b64url(octets: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


CONTEXTS: dict[tuple, ssl.SSLContext] = {}
"""TLS contexts by folder and client, shared by all tests: making one costs more than most requests."""


@functools.cache
def rsa_key(path) -> RSAKey:
    """Return a private key of a sandbox."""
    return RSAKey.import_key(path.read_bytes())


def without_none(values):
    """Return the entries that are not None: None in a change leaves a member out."""
    return {name: value for name, value in values.items() if value is not None}


def sign(claims, key, *, alg="PS256", **header) -> str:
    """Return a compact JWS; alg ``none`` has an empty signature."""
    if alg == "none":
        parts = ({"alg": alg, **header}, claims)
        return ".".join(b64url(json.dumps(part).encode()) for part in parts) + "."
    return jwt.encode(without_none({"alg": alg, **header}), claims, key, algorithms=[alg])


@dataclass
class Client:
    """One TPP: its keys and its connection."""

    client_id: str
    redirect_uri: str
    key: RSAKey
    kid: str
    http: httpx.AsyncClient
    dpop_key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))


@dataclass
class Asked:
    """A request on its way: what its client must remember, and where it stands."""

    client: Client
    claims: dict
    verifier: str
    request_uri: str = ""
    expires_in: int = 0


@dataclass
class Outcome:
    """Where a browser ended: with the client's callback, or on a page."""

    callback: dict | None
    text: str
    status: int


class Suite:
    """Drive one sandbox."""

    def __init__(self, world, *, dpop=False, jarm=False) -> None:
        self.world = world
        self.manifest = world.manifest
        self.dpop, self.jarm = dpop, jarm
        self.person = self.manifest.customers[0]
        self.issuer = self.manifest.hub.issuer
        self.discovery = self.manifest.hub.discovery

    def tls(self, section=None) -> ssl.SSLContext:
        """Return a context that trusts the sandbox, with the certificate of a TPP or without any."""
        folder = self.world.folder
        context = ssl.create_default_context(cafile=str(folder / self.manifest.ca_bundle))
        if section is not None:
            context.load_cert_chain(folder / section.transport_cert, folder / section.transport_key)
        return context

    async def open(self, stack: AsyncExitStack) -> None:
        """Open every connection and read the metadata."""
        self.clock = SharedClock.open(self.world.folder / "run/clock")
        stack.callback(self.clock.close)

        async def connection(section=None):
            key = (self.world.folder, section.client_id if section is not None else "")
            context = CONTEXTS.get(key) or self.tls(section)
            CONTEXTS[key] = context
            made = httpx.AsyncClient(verify=context, trust_env=False, timeout=20)
            return await stack.enter_async_context(made)

        self.anonymous = await connection()
        self.clients = [
            Client(
                client_id=section.client_id,
                redirect_uri=section.redirect_uris[0],
                key=rsa_key(self.world.folder / section.signing_key),
                kid=section.signing_kid,
                http=await connection(section),
            )
            for section in self.manifest.tpps
        ]
        self.first, self.second = self.clients
        self.metadata = (await self.anonymous.get(self.discovery)).json()
        self.keys = KeySet.import_key_set(
            (await self.anonymous.get(self.metadata["jwks_uri"])).json()
        )

    @property
    def par(self) -> str:
        """Return the PAR endpoint."""
        return self.metadata["pushed_authorization_request_endpoint"]

    @property
    def token_endpoint(self) -> str:
        """Return the token endpoint."""
        return self.metadata["token_endpoint"]

    @property
    def accounts(self) -> str:
        """Return the resource."""
        return self.manifest.hub.resource_base + ACCOUNTS

    # Messages

    def assertion(self, client, *, alg="PS256", kid="", typ=None, key=None, **changes) -> str:
        """Make a client assertion."""
        now = self.clock.now()
        claims = {
            "iss": client.client_id,
            "sub": client.client_id,
            "aud": self.issuer,
            "iat": now,
            "exp": now + 60,
            "jti": str(uuid.uuid4()),
        }
        merged = without_none(claims | changes)
        return sign(merged, key or client.key, alg=alg, kid=kid or client.kid, typ=typ)

    def authentication(self, client, changes=None) -> dict:
        """Return the parameters by which a client authenticates; ``changes`` go into the assertion."""
        made = self.assertion(client, **(changes or {}))
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": made}

    def asked(self, client=None, **changes) -> Asked:
        """Make an authorization request that nobody has pushed yet."""
        client, verifier, now = client or self.first, secrets.token_urlsafe(32), self.clock.now()
        consent = {
            "ConsentId": str(uuid.uuid4()),
            "ExpirationDateTime": datetime.fromtimestamp(now + 86_400, UTC).isoformat(),
            "Permissions": ["ReadAccountsBasic", "ReadBalances"],
            "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        }
        claims = {
            "iss": client.client_id,
            "client_id": client.client_id,
            "aud": self.issuer,
            "nbf": now,
            "exp": now + 300,
            "response_type": "code",
            "response_mode": "jwt" if self.jarm else None,
            "redirect_uri": client.redirect_uri,
            "scope": "openid accounts",
            "state": str(uuid.uuid4()),
            "nonce": str(uuid.uuid4()),
            "code_challenge": b64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "authorization_details": [{"type": DETAIL_TYPE, "consent": consent}],
        }
        return Asked(client, without_none(claims | changes), verifier)

    def request_object(self, asked, *, alg="PS256", key=None, **header) -> str:
        """Sign a request."""
        header = {"kid": asked.client.kid, "typ": "oauth-authz-req+jwt"} | header
        return sign(asked.claims, key or asked.client.key, alg=alg, **header)

    def proof(self, client, method, url, *, token="", key=None, alg="ES256", **changes) -> str:
        """Make a DPoP proof; ``header_...`` changes the header, anything else the claims."""
        key = key or client.dpop_key
        header = {"typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
        for name in [name for name in changes if name.startswith("header_")]:
            header[name.removeprefix("header_")] = changes.pop(name)
        claims = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": self.clock.now(),
            "ath": b64url(hashlib.sha256(token.encode()).digest()) if token else None,
        }
        return raw_jws({"alg": alg, **without_none(header)}, without_none(claims | changes), key)

    def jkt(self, key) -> str:
        """Return the thumbprint of a key."""
        return key.thumbprint()

    def _headers(self, client, method, url, token="", given=None) -> dict:
        if given is not None:
            return given
        return {"dpop": self.proof(client, method, url, token=token)} if self.dpop else {}

    # Exchanges

    async def push(
        self, asked, *, form=None, assertion=None, headers=None, **signing
    ) -> httpx.Response:
        """Push a request as the suite does: ``request`` and the client's authentication, no ``client_id``."""
        full = {
            "request": self.request_object(asked, **signing),
            **self.authentication(asked.client, assertion),
        }
        headers = self._headers(asked.client, "POST", self.par, given=headers)
        data = without_none(full | (form or {}))
        return await asked.client.http.post(self.par, data=data, headers=headers)

    async def pushed(self, client=None, *, headers=None, signing=None, **changes) -> Asked:
        """Push a request that must be taken (201, no cache, a request_uri with enough entropy)."""
        asked = self.asked(client, **changes)
        answer = await self.push(asked, headers=headers, **(signing or {}))
        assert answer.status_code == 201, answer.text
        assert "no-store" in answer.headers["cache-control"]
        body = answer.json()
        assert len(body["request_uri"].rpartition(":")[2]) >= 22
        assert 5 <= body["expires_in"] < 600
        return replace(asked, request_uri=body["request_uri"], expires_in=body["expires_in"])

    def front(self, asked, **extra) -> str:
        """Return the authorization URL; ``extra`` goes in front-channel parameters beside the usual repetition."""
        query = {
            "client_id": asked.client.client_id,
            "request_uri": asked.request_uri,
            "response_type": "code",
            "scope": asked.claims["scope"],
            "redirect_uri": asked.claims["redirect_uri"],
        }
        return f"{self.metadata['authorization_endpoint']}?{urlencode(without_none(query | extra))}"

    async def visit(self, url, decision="approve") -> Outcome:
        """Be the customer's browser from a URL on; stop at the callback, at the end, or (no decision) at the login."""
        callbacks = tuple(client.redirect_uri for client in self.clients)
        context = CONTEXTS[self.world.folder, ""]
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=20) as browser:
            answer = await browser.get(url)
            for _ in range(10):
                if answer.has_redirect_location:
                    url = urljoin(url, answer.headers["location"])
                    if url.startswith(callbacks):
                        return Outcome(self._callback(url), "", answer.status_code)
                    answer = await browser.get(url)
                    continue
                fields, form = self._fields(answer.text, decision)
                if fields is None or not decision:
                    return Outcome(None, answer.text, answer.status_code)
                url = urljoin(url, form.action or "")
                answer = await browser.request(form.method.upper(), url, data=fields)
        raise AssertionError("the bank's pages do not end")

    def _fields(self, text, decision):
        form = FirstForm()
        form.feed(text)
        fields = dict(form.hidden)
        if "username" in form.values:
            return fields | {
                "username": self.person.username,
                "password": self.person.password,
            }, form
        if "decision" in form.values:
            chosen = form.values.get("account", []) if decision == "approve" else []
            return fields | {"account": chosen, "decision": decision}, form
        return None, form

    def _callback(self, url) -> dict:
        found = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        if "response" not in found:
            return found
        verified = jws.deserialize_compact(found.pop("response"), self.keys, algorithms=["PS256"])
        assert not set(found) & {"code", "state", "iss", "error"}
        claims = json.loads(verified.payload)
        assert claims["aud"] in {client.client_id for client in self.clients}
        now = self.clock.now()
        assert now < claims.pop("exp") <= now + 600
        return {name: value for name, value in claims.items() if name != "aud"}

    async def code(self, asked, **extra) -> str:
        """Let the customer approve; return the code, after the checks every client makes."""
        outcome = await self.visit(self.front(asked, **extra))
        assert outcome.callback is not None, outcome.text
        came = dict(outcome.callback)
        code = came.pop("code")
        assert len(code) >= 22
        expected = {"iss": self.issuer} | (
            {"state": asked.claims["state"]} if "state" in asked.claims else {}
        )
        assert came == expected
        return code

    async def post_token(
        self, client, *, assertion=None, headers=None, via=None, **form
    ) -> httpx.Response:
        """Send a token request of a client, over ``via`` where that is another connection than its own."""
        data = without_none({**self.authentication(client, assertion), **form})
        headers = self._headers(client, "POST", self.token_endpoint, given=headers)
        return await (via or client.http).post(self.token_endpoint, data=data, headers=headers)

    async def redeem(self, asked, code, *, client=None, **changes) -> httpx.Response:
        """Redeem a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asked.claims["redirect_uri"],
            "code_verifier": asked.verifier,
        }
        return await self.post_token(client or asked.client, **(form | changes))

    async def refresh(self, client, refresh_token, **changes) -> httpx.Response:
        """Refresh."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self.post_token(client, **(form | changes))

    async def tokens(self, asked, **extra) -> dict:
        """Take a pushed request all the way to tokens."""
        answer = await self.redeem(asked, await self.code(asked, **extra))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["token_type"] == ("DPoP" if self.dpop else "Bearer")
        assert body["authorization_details"][0]["type"] == DETAIL_TYPE
        assert body["expires_in"] <= 600
        assert len(body["access_token"]) >= 22
        return body

    def id_token(self, asked, body) -> dict:
        """Verify an id_token as a client does; return its claims."""
        claims = json.loads(
            jws.deserialize_compact(body["id_token"], self.keys, algorithms=["PS256"]).payload
        )
        now = self.clock.now()
        assert claims["iss"] == self.issuer
        assert claims["aud"] == asked.client.client_id
        assert claims["exp"] > now >= claims["iat"] - 10
        assert claims.get("nonce") == asked.claims.get("nonce")
        return claims

    async def get(self, url, client, token, *, scheme="", headers=None, **more) -> httpx.Response:
        """Call a protected resource with a token."""
        scheme = scheme or ("DPoP" if self.dpop else "Bearer")
        full = {"authorization": f"{scheme} {token}"} | self._headers(
            client, "GET", url, token, headers
        )
        return await client.http.get(url, headers=full, **more)


def raw_jws(header, claims, key, signature=None) -> str:
    """Return a compact JWS over exactly this header, whatever a careful library would say to it."""
    text = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    if signature is None:
        alg = (
            header.get("alg")
            if header.get("alg") in {"ES256", "RS256", "PS256", "EdDSA"}
            else "ES256"
        )
        with warnings.catch_warnings():
            # joserfc would rather have the name Ed25519 (RFC 9864); FAPI 2.0 says EdDSA.
            warnings.simplefilter("ignore", SecurityWarning)
            made = jws.JWSRegistry(algorithms=[alg]).get_alg(alg).sign(text.encode(), key)
        signature = b64url(made)
    return f"{text}.{signature}"


def refused(answer, *errors, status=(400,)) -> dict:
    """Expect an error as the suite does: status, JSON, one of the errors, a printable description."""
    assert answer.status_code in status, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body["error"] in errors, body
    assert body["error_description"].isprintable()
    assert not set(body["error_description"]) & set('"\\')
    return body


def unauthenticated(answer) -> dict:
    """Expect a failed client authentication."""
    return refused(answer, "invalid_client", status=(400, 401))


@asynccontextmanager
async def opened(world, **variant):
    """Open a suite against a sandbox."""
    suite = Suite(world, **variant)
    async with AsyncExitStack() as stack:
        await suite.open(stack)
        yield suite
