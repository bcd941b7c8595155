"""Authlib as a TPP on trio: its own OAuth client over mutual TLS; what it lacks (PAR, JAR) by joserfc."""

import json
import ssl
import time
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import httpx
from authlib.common.security import generate_token
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey

with warnings.catch_warnings():
    # It would like a successor of httpx that nobody else uses yet.
    warnings.simplefilter("ignore")
    from authlib.integrations.httpx_client import AsyncOAuth2Client

DETAIL = "urn:openfinanceuae:account-access-consent:v2.1"


class Assertion(PrivateKeyJWT):
    """Authenticate with a fresh assertion of a minute each time; the stock one lives for an hour."""

    def __init__(self, issuer: str, key: RSAKey, kid: str) -> None:
        super().__init__(token_endpoint=issuer, alg="PS256")
        self.key, self.kid = key, kid

    def sign(self, auth, token_endpoint):
        now = int(time.time())
        return private_key_jwt_sign(
            self.key,
            auth.client_id,
            self.token_endpoint,
            alg="PS256",
            header={"kid": self.kid},
            claims={"nbf": now, "exp": now + 60},
        )


class AuthlibClient:
    """One TPP of a sandbox's manifest."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "sandbox.json").read_text())
        self.tpp = self.manifest["tpps"][0]
        pem = (folder / self.tpp["signing_key"]).read_text()
        self.key = RSAKey.import_key(pem)
        context = ssl.create_default_context(cafile=str(folder / self.manifest["ca_bundle"]))
        context.load_cert_chain(
            folder / self.tpp["transport_cert"], folder / self.tpp["transport_key"]
        )
        issuer, kid = self.manifest["hub"]["issuer"], self.tpp["signing_kid"]
        self.auth = Assertion(issuer, self.key, kid)
        now = int(time.time())
        self.stock = PrivateKeyJWT(
            token_endpoint=issuer,
            alg="PS256",
            headers={"kid": kid},
            claims={"iat": now, "exp": now + 60},
        )
        self.redirect_uri = self.tpp["redirect_uris"][0]
        self.client = AsyncOAuth2Client(
            self.tpp["client_id"],
            pem,
            token_endpoint_auth_method=self.auth,
            revocation_endpoint_auth_method=self.auth,
            redirect_uri=self.redirect_uri,
            verify=context,
            trust_env=False,
            timeout=20,
        )

    async def __aenter__(self):
        discovery = self.manifest["hub"]["discovery"]
        self.metadata = (await self.client.request("GET", discovery, withhold_token=True)).json()
        return self

    async def __aexit__(self, *_error):
        await self.client.aclose()

    def request_object(self) -> str:
        now = int(time.time())
        self.state, self.nonce, self.verifier = (
            generate_token(),
            generate_token(),
            generate_token(48),
        )
        until = datetime.now(UTC) + timedelta(days=30)
        consent = {
            "ConsentId": str(uuid.uuid4()),
            "ExpirationDateTime": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Permissions": ["ReadAccountsBasic", "ReadBalances"],
            "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        }
        claims = {
            "iss": self.tpp["client_id"],
            "client_id": self.tpp["client_id"],
            "aud": self.metadata["issuer"],
            "nbf": now,
            "exp": now + 300,
            "response_type": "code",
            "scope": "openid accounts",
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": create_s256_code_challenge(self.verifier),
            "code_challenge_method": "S256",
            "authorization_details": [{"type": DETAIL, "consent": consent}],
        }
        header = {"alg": "PS256", "kid": self.tpp["signing_kid"], "typ": "oauth-authz-req+jwt"}
        return jwt.encode(header, claims, self.key, algorithms=["PS256"])

    async def _push(self, auth) -> httpx.Response:
        return await self.client.request(
            "POST",
            self.metadata["pushed_authorization_request_endpoint"],
            data={"request": self.request_object(), "client_id": self.tpp["client_id"]},
            auth=self.client.client_auth(auth),
            withhold_token=True,
        )

    async def push(self) -> str:
        """Push a request; return where the customer goes."""
        answer = await self._push(self.auth)
        assert answer.status_code == 201, answer.text
        query = {"client_id": self.tpp["client_id"], "request_uri": answer.json()["request_uri"]}
        return f"{self.metadata['authorization_endpoint']}?{urlencode(query)}"

    async def push_with_stock_assertion(self) -> httpx.Response:
        """Push with the stock assertion, which reuses its ``jti`` where claims are given."""
        return await self._push(self.stock)

    async def redeem(self, query: str) -> dict:
        came = {name: values[0] for name, values in parse_qs(query).items()}
        assert (came["iss"], came["state"]) == (self.metadata["issuer"], self.state)
        return await self.client.fetch_token(
            self.metadata["token_endpoint"],
            grant_type="authorization_code",
            code=came["code"],
            code_verifier=self.verifier,
            redirect_uri=self.redirect_uri,
        )

    async def accounts(self) -> dict:
        """Read the accounts with the client's own token."""
        base = f"{self.manifest['hub']['resource_base']}/open-finance/account-information/v2.1"
        answer = await self.client.get(f"{base}/accounts")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refresh(self, refresh_token: str) -> dict:
        endpoint = self.metadata["token_endpoint"]
        return await self.client.fetch_token(
            endpoint, grant_type="refresh_token", refresh_token=refresh_token
        )

    async def introspect(self, token: str) -> dict:
        endpoint = self.metadata["introspection_endpoint"]
        return (await self.client.introspect_token(endpoint, token=token)).json()

    async def revoke(self, token: str) -> None:
        endpoint = self.metadata["revocation_endpoint"]
        answer = await self.client.revoke_token(endpoint, token=token)
        assert answer.status_code == 200, answer.text
