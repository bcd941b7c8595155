"""Tokens that exist: introspection, revocation and userinfo.

A token that is unknown, expired, revoked, of another client, or whose consent is over is simply not active.

Source: RFC 7009; RFC 7662; RFC 9701; RFC 8705 section 3.2; RFC 9396 section 9.2; RFC 9449 section 6.2; OIDC Core 5.3.
"""

import hmac
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from hub.authz.consents import granted
from hub.authz.facts import Column, Facts, refuse
from hub.authz.id_token import subject
from hub.authz.shell import Shell, answer, done
from hub.authz.steps import Phase, run
from hub.authz.token import revocation
from hub.model.consent import TERMINAL, Consent, Status, status_at
from hub.model.event import Event, Kind
from hub.model.fault import Fault, Source
from hub.model.http import Request, Response
from hub.model.records import AccessToken, Grant, RefreshToken, digest_of
from hub.protocol.dpop import ProofFault, check_proof
from hub.protocol.jose import sign
from hub.protocol.oauth import show
from hub.state.keeper import Change, Once, Put

_SIGNED_TYPE: Final = b"application/token-introspection+jwt"
_TOKEN_OCTETS: Final = 4096


class ExistingTokens:
    """Answer introspection, revocation and userinfo."""

    def __init__(self, shell: Shell) -> None:
        """Take the shell."""
        self._shell = shell

    async def introspect(self, request: Request) -> Response:
        """Answer what a client may know of a token: of its own only, and only while it is active.

        Cancellation: harmless.
        """
        facts, event, fault = await self._admit(request, Column.INTROSPECT, "introspection")
        if fault is not None:
            return await self._shell.refuse(request, facts, fault, event)
        active = is_active(facts)
        description = await self._description(facts) if active else {"active": False}
        signed = self._wants_signed(request)
        body = self._signed(facts, description) if signed else orjson.dumps(description)
        event = done(event, request, 200, body, change="active" if active else "inactive")
        stored = await self._shell.commit((), event)
        if isinstance(stored, Fault):
            return self._shell.plain(request, event, stored)
        return answer(200, body, event, content_type=_SIGNED_TYPE if signed else b"")

    def _wants_signed(self, request: Request) -> bool:
        accepted = (request.header(b"accept") or b"").lower()
        return self._shell.settings.switches.signed_introspection and _SIGNED_TYPE in accepted

    def _signed(self, facts: Facts, description: dict[str, Any]) -> bytes:
        """Sign an introspection answer for the client that asked (RFC 9701 section 5)."""
        key = self._shell.signing_keys[0]
        claims = {
            "iss": self._shell.rules.issuer,
            "aud": facts.caller.client_id,
            "iat": facts.now,
            "token_introspection": description,
        }
        return sign(claims, key, typ="token-introspection+jwt").encode()

    async def _admit(
        self, request: Request, column: Column, route: str
    ) -> tuple[Facts, Event, Fault | None]:
        shell = self._shell
        facts = await shell.identify(request, column)
        event = shell.event(request, facts, route)
        fault = await shell.admit(facts)
        if fault is not None:
            return facts, event, fault
        facts = await self._load(facts, facts.form.get("token", ""))
        return facts, event, run(facts, Phase.REQUEST)

    async def _load(self, facts: Facts, token: str) -> Facts:
        if not token or len(token) > _TOKEN_OCTETS:
            return facts
        keeper, digest = self._shell.keeper, digest_of(token)
        access = await keeper.lookup(AccessToken, digest)
        refresh = None if access else await keeper.lookup(RefreshToken, digest)
        record = (access or refresh or (None, 0))[0]
        if record is None:
            return facts
        grant = await keeper.lookup(Grant, record.grant_id) if record.grant_id else None
        consent = await keeper.lookup(Consent, record.consent_id) if record.consent_id else None
        return msgspec.structs.replace(
            facts,
            access=access[0] if access else None,
            refresh=refresh[0] if refresh else None,
            grant=grant[0] if grant else None,
            consent=consent[0] if consent else None,
        )

    async def _description(self, facts: Facts) -> dict[str, Any]:
        record = facts.access or facts.refresh
        if record is None:
            return {"active": False}
        described: dict[str, Any] = {
            "active": True,
            "iss": self._shell.rules.issuer,
            "aud": self._shell.settings.tenant.resource_base,
            "client_id": record.client_id,
            "scope": record.scope,
            "iat": record.issued,
            "exp": record.expires,
            "sub": record.client_id,
        }
        if isinstance(record, AccessToken):
            described["token_type"] = "DPoP" if record.jkt else "Bearer"
            described["cnf"] = {"x5t#S256": record.x5t_s256}
            if record.jkt:
                described["cnf"]["jkt"] = record.jkt
        if facts.consent is not None:
            described["sub"] = await subject(self._shell, facts.consent)
            shown = await self._shell.consumption.current(facts.consent, facts.now)
            base = self._shell.settings.tenant.resource_base
            described["authorization_details"] = granted(shown, facts.now, base)
        return described

    async def revoke(self, request: Request) -> Response:
        """Revoke one token of the caller's own; a refresh token takes its whole grant with it.

        Cancellation: the revocation may have happened; it may be repeated.
        """
        facts, event, fault = await self._admit(request, Column.REVOKE, "revoke")
        if fault is not None:
            return await self._shell.refuse(request, facts, fault, event)
        changes = await self._ended(facts)
        record = facts.access or facts.refresh
        event = done(
            event,
            request,
            200,
            kind=Kind.TOKEN,
            consent_id=record.consent_id if record is not None else "",
            change="revoked" if changes else "unknown",
        )
        stored = await self._shell.commit(changes, event)
        if isinstance(stored, Fault):
            return self._shell.plain(request, event, stored)
        return answer(200, b"", event)

    async def _ended(self, facts: Facts) -> Sequence[Change]:
        if facts.access is not None:
            return (Put(msgspec.structs.replace(facts.access, revoked=facts.now)),)
        if facts.refresh is not None and facts.grant is not None:
            return await revocation(self._shell, facts.grant, facts.now)
        return ()

    async def userinfo(self, request: Request) -> Response:
        """Answer who the customer of a user token is: the pairwise subject, nothing else.

        Cancellation: harmless.
        """
        shell = self._shell
        judged = shell.trust.judge(request.peer, shell.clock.now())
        facts = Facts(
            column=Column.INTROSPECT, rules=shell.rules, now=shell.clock.now(), judged=judged
        )
        event = shell.event(request, facts, "userinfo")
        scheme, token = _presented(request)
        facts = await self._load(facts, token)
        fault = await self._refusal(request, facts, scheme, token)
        if fault is not None or facts.consent is None:
            fault = fault or _invalid_token("token: is not for a customer")
            response = await shell.refuse(request, facts, fault, event)
            return _challenged(response, fault, scheme, shell.rules.dpop_algs)
        body = orjson.dumps({"sub": await subject(shell, facts.consent)})
        event = done(event, request, 200, body, consent_id=facts.consent.id)
        stored = await shell.commit((), event)
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(200, body, event)

    async def _refusal(
        self, request: Request, facts: Facts, scheme: str, token: str
    ) -> Fault | None:
        record = facts.access
        if isinstance(facts.judged, Fault):
            return _at_userinfo(facts.judged)
        if record is None or not is_active(facts):
            return _invalid_token("token: is not active")
        if not hmac.compare_digest(record.x5t_s256, request.peer.x5t_s256):
            return _invalid_token("certificate: expected the one the token is bound to")
        if "openid" not in record.scope.split():
            return refuse("insufficient_scope", "userinfo.scope", "scope: openid", status=403)
        if scheme != ("dpop" if record.jkt else "bearer"):
            return _invalid_token(f"scheme: expected that of the token, got {show(scheme)}")
        return await self._proof_refusal(request, record, token) if record.jkt else None

    async def _proof_refusal(
        self, request: Request, record: AccessToken, token: str
    ) -> Fault | None:
        shell = self._shell
        asked = shell.settings.switches.dpop_nonce
        proof = check_proof(
            request.header_values(b"dpop"),
            method=request.method,
            url=shell.rules.issuer + request.path,
            now=shell.clock.now(),
            access_token=token,
            nonces=await shell.secrets.nonces() if asked else (),
            algs=shell.rules.dpop_algs,
        )
        if isinstance(proof, ProofFault):
            return refuse(proof.code, proof.check, proof.why, status=401)
        if proof.jkt != record.jkt:
            return _invalid_token("DPoP: expected the key the token is bound to")
        once = Once(space="dpop", value=proof.replay_value, until=proof.replay_until)
        granted_once = await shell.keeper.claim((once,))
        if isinstance(granted_once, Fault):
            return granted_once
        if not granted_once[0].granted:
            return refuse("invalid_dpop_proof", "dpop.replay", "DPoP jti: was used", status=401)
        return None


def is_active(facts: Facts) -> bool:
    """Tell whether the loaded token lives: own, unexpired, unrevoked, its grant and consent not over."""
    record = facts.access or facts.refresh
    if record is None or record.client_id != facts.caller.client_id:
        return False
    if record.revoked or facts.now >= record.expires:
        return False
    if not record.consent_id:
        return True
    if facts.grant is None or facts.grant.revoked or facts.consent is None:
        return False
    status = status_at(facts.consent, facts.now)
    return status not in TERMINAL and status is not Status.SUSPENDED


def _presented(request: Request) -> tuple[str, str]:
    values = request.header_values(b"authorization")
    if len(values) != 1:
        return "", ""
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    return scheme.lower(), token.lstrip(" ")


def _invalid_token(public: str) -> Fault:
    return refuse("invalid_token", "userinfo.token", public, status=401)


def _at_userinfo(fault: Fault) -> Fault:
    """Say the framework's refusal of a caller as resources do (RFC 6750 section 3.1); what we cannot tell stays 503."""
    refused = fault.source is Source.CALLER
    return msgspec.structs.replace(fault, code="invalid_token") if refused else fault


def _challenged(response: Response, fault: Fault, scheme: str, algs: Sequence[str]) -> Response:
    """Add the challenge of RFC 6750 section 3 or RFC 9449 section 7.1 to a refusal of the caller."""
    if fault.source is not Source.CALLER:
        return response
    kept = tuple(pair for pair in response.headers if pair[0] != b"www-authenticate")
    challenge = f'Bearer error="{fault.code}"' if scheme else "Bearer"
    if scheme == "dpop":
        challenge = f'DPoP error="{fault.code}", algs="{" ".join(algs)}"'
    return msgspec.structs.replace(
        response, headers=(*kept, (b"www-authenticate", challenge.encode()))
    )
