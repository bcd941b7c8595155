"""Discovery, our own key set and the explanations: derived from the same tables as the checks, public, cacheable.

Source: OpenID Connect Discovery 3; RFC 8414; RFC 9126 section 5; RFC 9396 section 10; RFC 8705 sections 3.3 and 5;
RFC 9449 section 5.1; RFC 9207 section 3.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from hub.authz.explanations import explain
from hub.authz.facts import CLIENT, Column, Rules
from hub.authz.tables import DETAIL_TYPES, SCOPES
from hub.authz.token import GRANT_TYPES
from hub.config import Settings
from hub.model.http import Request, Response
from hub.protocol.jose import JWE_ALG, JWE_ENC, PrivateKey, PublicKey, alg_of, public_jwk

PATHS: Final = {
    Column.PAR: "/par",
    Column.CODE: "/token",
    Column.REVOKE: "/token/revoke",
    Column.INTROSPECT: "/introspection",
}
USERINFO: Final = "/userinfo"
JWKS: Final = "/jwks"
AUTHORIZE: Final = "/authorize"
_MEMBER_OF: Final = {
    Column.PAR: "pushed_authorization_request_endpoint",
    Column.CODE: "token_endpoint",
    Column.REVOKE: "revocation_endpoint",
    Column.INTROSPECT: "introspection_endpoint",
}
_AGE: Final = (b"cache-control", b"public, max-age=900")


def discovery(
    settings: Settings, rules: Rules, signing_keys: Sequence[PrivateKey]
) -> dict[str, Any]:
    """Return the metadata document; both well-known addresses serve the same."""
    issuer, switches = rules.issuer, settings.switches
    endpoints = {member: issuer + PATHS[column] for column, member in _MEMBER_OF.items()}
    endpoints["userinfo_endpoint"] = issuer + USERINFO
    own = switches.own_authorization_endpoint
    algs = list(rules.algs)
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZE
        if own
        else settings.bank.authorization_endpoint,
        **endpoints,
        "jwks_uri": key_set_address(settings),
        "mtls_endpoint_aliases": endpoints,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "jwt", "query.jwt"] if rules.jarm else ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "scopes_supported": list(SCOPES),
        "subject_types_supported": ["pairwise"],
        "code_challenge_methods_supported": ["S256"],
        "require_pushed_authorization_requests": True,
        "require_signed_request_object": True,
        "request_parameter_supported": True,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": True,
        "authorization_response_iss_parameter_supported": True,
        "tls_client_certificate_bound_access_tokens": True,
        "authorization_details_types_supported": list(DETAIL_TYPES),
        "id_token_signing_alg_values_supported": sorted({alg_of(key) for key in signing_keys}),
        "request_object_signing_alg_values_supported": algs,
        "dpop_signing_alg_values_supported": list(rules.dpop_algs),
    }
    methods = ["private_key_jwt", *(["tls_client_auth"] if rules.tls_client_auth else [])]
    for column in (Column.CODE, Column.REVOKE, Column.INTROSPECT):
        if column in CLIENT:
            member = _MEMBER_OF[column]
            document[f"{member}_auth_methods_supported"] = methods
            document[f"{member}_auth_signing_alg_values_supported"] = algs
    ours = document["id_token_signing_alg_values_supported"]
    if rules.jarm:
        document["authorization_signing_alg_values_supported"] = ours
    if switches.signed_introspection:
        document["introspection_signing_alg_values_supported"] = ours
    if switches.encrypted_id_tokens:
        document["id_token_encryption_alg_values_supported"] = [JWE_ALG]
        document["id_token_encryption_enc_values_supported"] = [JWE_ENC]
    return document


def key_set(keys: Sequence[PrivateKey | PublicKey]) -> dict[str, Any]:
    """Return our public signing keys as a JWK set, in an order that does not say which of them signs."""
    ordered = sorted(keys, key=lambda key: key.kid)
    return {"keys": [public_jwk(key, use="sig", alg=alg_of(key)) for key in ordered]}


class Metadata:
    """Answer the public documents, made once."""

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        signing_keys: Sequence[PrivateKey],
        retired_keys: Sequence[PublicKey] = (),
    ) -> None:
        """Make the documents."""
        self._discovery = _document(discovery(settings, rules, signing_keys))
        self._keys = _document(key_set((*signing_keys, *retired_keys)))
        self._bank = settings.bank.authorization_endpoint

    async def discovery(self, _request: Request) -> Response:
        """Answer the metadata document; public, no event."""
        return self._discovery

    async def keys(self, _request: Request) -> Response:
        """Answer the key set; public, no event."""
        return self._keys

    async def explanation(self, request: Request) -> Response:
        """Answer ``GET /errors/{check}`` with the explanation of a check; public, no event."""
        text = explain(request.path.rpartition("/")[2])
        headers = ((b"content-type", b"text/plain; charset=utf-8"), _AGE)
        return Response(status=200 if text else 404, headers=headers, body=(text or "").encode())

    async def authorize(self, request: Request) -> Response:
        """Send a browser on to the bank's own page, parameters untouched (302); public, no event."""
        query = f"?{request.query}" if request.query else ""
        target = (self._bank + query).encode("ascii", "ignore")
        return Response(
            status=302,
            headers=((b"location", target), (b"cache-control", b"no-store"), _REFERRER),
        )


_REFERRER: Final = (b"referrer-policy", b"no-referrer")


def _document(content: dict[str, Any]) -> Response:
    headers = ((b"content-type", b"application/json"), _AGE)
    return Response(status=200, headers=headers, body=orjson.dumps(content))


def key_set_address(settings: Settings) -> str:
    """Return where our key set is announced to be.

    In the UAE profile it is the bank's set in the Trust Framework's key store, which also holds the bank's encryption
    key (Enc1) that TPPs need; ``/jwks`` serves our own copy of the signing keys in either profile.

    Source: hub-behaviour 2.3; RFC 8414 section 2.
    """
    if settings.tenant.profile == "uae":
        return f"{settings.trust.keystore}/{settings.tenant.organisation_id}/application.jwks"
    return settings.tenant.issuer + JWKS
