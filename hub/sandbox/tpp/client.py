"""The TPP at work: each step of its journeys as one call that returns a value or a refusal."""

from typing import Any, Final, final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hub.sandbox.tpp.exchange import Answer, Ask, Refused, Wire, refused
from hub.sandbox.tpp.identity import Identity
from hub.sandbox.tpp.oauth import (
    Discovery,
    Pushed,
    Tokens,
    new_secrets,
    read_discovery,
    read_par,
    read_tokens,
    request_client_credentials,
    request_discovery,
    request_par,
    request_refresh,
    request_token,
)

CUSTOMER_ADDRESS: Final = "192.0.2.17"
CUSTOMER_AGENT: Final = "Mozilla/5.0 (sample TPP)"


@final
class Tpp:
    """Make a TPP's calls over its own wire."""

    def __init__(self, identity: Identity, wire: Wire) -> None:
        """Take who it is and what carries its calls."""
        self.identity = identity
        self.wire = wire

    async def discover(self, issuer: str) -> Discovery | Refused:
        """Read the authorization server's metadata."""
        return read_discovery(await self.wire.carry(request_discovery(issuer)), issuer)

    async def register(self, endpoint: str) -> Refused | None:
        """Register at the Hub: mTLS alone says who we are (trust-framework.md section 7)."""
        answer = await self.wire.carry(Ask(method="POST", url=endpoint, json={}))
        return None if answer.status == 204 else refused(answer)

    async def push(
        self, discovery: Discovery, detail: dict[str, Any], scope: str, redirect_uri: str = ""
    ) -> Pushed | Refused:
        """Push one authorization request."""
        secrets = new_secrets(self.identity)
        ask = request_par(
            self.identity,
            discovery,
            detail=detail,
            scope=scope,
            secrets=secrets,
            redirect_uri=redirect_uri,
        )
        return read_par(await self.wire.carry(ask), secrets)

    async def redeem(
        self, discovery: Discovery, code: str, pushed: Pushed, redirect_uri: str = ""
    ) -> Tokens | Refused:
        """Turn an authorization code into tokens."""
        ask = request_token(
            self.identity, discovery, code=code, pushed=pushed, redirect_uri=redirect_uri
        )
        return read_tokens(await self.wire.carry(ask))

    async def refresh(self, discovery: Discovery, refresh_token: str) -> Tokens | Refused:
        """Get a new access token under the same consent."""
        return read_tokens(
            await self.wire.carry(request_refresh(self.identity, discovery, refresh_token))
        )

    async def client_credentials(self, discovery: Discovery, scope: str) -> Tokens | Refused:
        """Get a token of the TPP's own, for consents and payments reads."""
        return read_tokens(
            await self.wire.carry(request_client_credentials(self.identity, discovery, scope))
        )

    async def get(self, url: str, access_token: str, query: dict[str, str] | None = None) -> Answer:
        """Read a resource with the headers of an attended call; returns the answer whatever its status."""
        headers = {
            "authorization": f"Bearer {access_token}",
            "accept": "application/json",
            "x-fapi-interaction-id": self.identity.dice.uuid(),
            "x-fapi-customer-ip-address": CUSTOMER_ADDRESS,
            "x-customer-user-agent": CUSTOMER_AGENT,
        }
        return await self.wire.carry(Ask(method="GET", url=url, headers=headers, query=query or {}))

    async def check_id_token(
        self, discovery: Discovery, token: str, nonce: str
    ) -> dict[str, Any] | Refused:
        """Verify an id_token with the published keys and return its claims.

        Source: OpenID Connect Core section 3.1.3.7; PS256 only (hub-behaviour 4.1).
        """
        answer = await self.wire.carry(Ask(method="GET", url=discovery.jwks_uri))
        if answer.status != 200:
            return refused(answer)
        try:
            keys = KeySet.import_key_set(answer.json())
            claims = msgspec.json.decode(
                jws.deserialize_compact(token, keys, algorithms=["PS256"]).payload,
                type=dict[str, Any],
            )
        except (JoseError, ValueError, msgspec.DecodeError) as error:
            return Refused(status=0, code="id_token", text=str(error))
        expected = {"iss": discovery.issuer, "aud": self.identity.client_id, "nonce": nonce}
        wrong = [name for name, value in expected.items() if claims.get(name) != value]
        if wrong or not claims.get("sub") or claims.get("exp", 0) <= self.identity.clock.now():
            return Refused(
                status=0, code="id_token", text=f"wrong {', '.join(wrong) or 'exp, sub'}"
            )
        return claims
