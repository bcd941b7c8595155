"""The OAuth exchanges of a TPP as pairs: ``request_x`` makes the request, ``read_x`` reads its answer; no IO in either."""

import base64
import hashlib
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from hub.sandbox.tpp.exchange import Answer, Ask, Refused, refused
from hub.sandbox.tpp.identity import ASSERTION_TYPE, Identity

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
RESPONSE_TYPE: Final = "code"


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the TPP uses of the authorization server's metadata (RFC 8414; RFC 8705 section 5)."""

    issuer: str
    authorization_endpoint: str
    pushed_authorization_request_endpoint: str
    token_endpoint: str
    jwks_uri: str
    registration_endpoint: str = ""
    mtls_endpoint_aliases: dict[str, str] = {}

    @property
    def par(self) -> str:
        """Return where requests are pushed over mTLS."""
        name = "pushed_authorization_request_endpoint"
        return self.mtls_endpoint_aliases.get(name, self.pushed_authorization_request_endpoint)

    @property
    def token(self) -> str:
        """Return the token endpoint for mTLS."""
        return self.mtls_endpoint_aliases.get("token_endpoint", self.token_endpoint)


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a pushed request: what the Hub answered, and what the TPP must remember until the callback."""

    request_uri: str
    expires_in: int
    code_verifier: str
    state: str
    nonce: str


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a token answer."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str = ""
    id_token: str = ""
    scope: str = ""
    authorization_details: list[dict[str, Any]] = []


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the per-request secrets of PKCE (RFC 7636) and of the callback."""

    code_verifier: str
    state: str
    nonce: str

    @property
    def code_challenge(self) -> str:
        """Return the S256 challenge."""
        digest = hashlib.sha256(self.code_verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_secrets(identity: Identity) -> Secrets:
    """Draw fresh secrets: a verifier of 43 characters, state and nonce as UUIDs."""
    verifier = base64.urlsafe_b64encode(identity.dice.token(32)).rstrip(b"=").decode()
    return Secrets(code_verifier=verifier, state=identity.dice.uuid(), nonce=identity.dice.uuid())


def request_discovery(issuer: str) -> Ask:
    """Ask for the metadata of an issuer (OpenID Connect Discovery section 4)."""
    return Ask(method="GET", url=issuer + DISCOVERY_PATH)


def read_discovery(answer: Answer, issuer: str) -> Discovery | Refused:
    """Read the metadata; it must name the very issuer it was asked of (RFC 8414 section 3.3)."""
    if answer.status != 200:
        return refused(answer)
    try:
        found = msgspec.json.decode(answer.body, type=Discovery)
    except msgspec.DecodeError as error:
        return Refused(status=answer.status, code="metadata", text=str(error))
    if found.issuer != issuer:
        return Refused(status=answer.status, code="issuer", text=f"metadata names {found.issuer}")
    return found


def request_par(
    identity: Identity,
    discovery: Discovery,
    *,
    detail: dict[str, Any],
    scope: str,
    secrets: Secrets,
    redirect_uri: str = "",
) -> Ask:
    """Push an authorization request with one authorization detail (RFC 9126, RFC 9101, RFC 9396)."""
    request = identity.request_object(
        discovery.issuer,
        {
            "response_type": RESPONSE_TYPE,
            "redirect_uri": redirect_uri or identity.redirect_uri,
            "scope": scope,
            "state": secrets.state,
            "nonce": secrets.nonce,
            "code_challenge": secrets.code_challenge,
            "code_challenge_method": "S256",
            "authorization_details": [detail],
        },
    )
    form = {"client_id": identity.client_id, "request": request}
    return Ask(method="POST", url=discovery.par, form=form | _authentication(identity, discovery))


def read_par(answer: Answer, secrets: Secrets) -> Pushed | Refused:
    """Read the answer of a pushed request: 201 with ``request_uri`` (RFC 9126 section 2.2)."""
    body = answer.json()
    if answer.status != 201 or not isinstance(body, dict) or "request_uri" not in body:
        return refused(answer)
    return Pushed(
        request_uri=str(body["request_uri"]),
        expires_in=int(body["expires_in"]),
        code_verifier=secrets.code_verifier,
        state=secrets.state,
        nonce=secrets.nonce,
    )


def authorization_url(
    identity: Identity, discovery: Discovery, request_uri: str, scope: str
) -> str:
    """Return where the customer's browser is sent: the bank's own page (hub-behaviour 4.5)."""
    query = {
        "client_id": identity.client_id,
        "response_type": RESPONSE_TYPE,
        "scope": scope,
        "request_uri": request_uri,
    }
    return f"{discovery.authorization_endpoint}?{urlencode(query)}"


def request_token(
    identity: Identity, discovery: Discovery, *, code: str, pushed: Pushed, redirect_uri: str = ""
) -> Ask:
    """Redeem an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri or identity.redirect_uri,
        "code_verifier": pushed.code_verifier,
    }
    return _token_ask(identity, discovery, form)


def request_refresh(identity: Identity, discovery: Discovery, refresh_token: str) -> Ask:
    """Ask for a new access token (RFC 6749 section 6)."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return _token_ask(identity, discovery, form)


def request_client_credentials(identity: Identity, discovery: Discovery, scope: str) -> Ask:
    """Ask for a token of the TPP's own (RFC 6749 section 4.4)."""
    form = {"grant_type": "client_credentials", "scope": scope}
    return _token_ask(identity, discovery, form)


def read_tokens(answer: Answer) -> Tokens | Refused:
    """Read the answer of any token request."""
    if answer.status != 200:
        return refused(answer)
    try:
        return msgspec.json.decode(answer.body, type=Tokens)
    except msgspec.DecodeError as error:
        return Refused(status=answer.status, code="token answer", text=str(error))


def _token_ask(identity: Identity, discovery: Discovery, form: dict[str, str]) -> Ask:
    form = {"client_id": identity.client_id, **form, **_authentication(identity, discovery)}
    return Ask(method="POST", url=discovery.token, form=form)


def _authentication(identity: Identity, discovery: Discovery) -> dict[str, str]:
    return {
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": identity.client_assertion(discovery.issuer),
    }
