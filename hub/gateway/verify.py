"""Verify: whose token is this, is it this connection's, and may this TPP act at all.

Theory. An access token is looked up by its SHA-256; it is bound to a certificate (RFC 8705), so the certificate of the
connection must have its thumbprint, and to a DPoP key where it was issued for one (RFC 9449). The Trust Framework's word on
the certificate's owner comes last, and the owner must be the client the token was issued to. Every failure is 401 without
a body: a caller that is not verified learns nothing.

Source: RFC 6750 sections 2.1 and 3; RFC 8705 section 3; RFC 9449 section 7; decisions.md sections 1 and 4.
"""

import hmac
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from hub.gateway.errors import at_resources
from hub.gateway.values import Access, Call
from hub.model.caller import Caller
from hub.model.consent import Consent
from hub.model.fault import Fault, caller_fault
from hub.model.records import AccessToken, Grant, Record, digest_of
from hub.protocol.dpop import ProofFault, check_proof
from hub.protocol.jose import DPOP_ALGS
from hub.state.keeper import Keeper, Once
from hub.state.secrets import Secrets
from hub.trust.view import Risk, TrustView

R = TypeVar("R", bound=Record)
_TOKEN_OCTETS: Final = 4096


class Lookup(Protocol):
    """Read records: the keeper, or a worker's cache in front of it."""

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None."""
        ...


Peek = Callable[[type[Any], str], tuple[Any, int] | None]
"""Return what a cache remembers without waiting, or None; most of a request's questions end here."""


def _nothing(_kind: type[Any], _key: str) -> None:
    return None


def denied(check: str, private: str = "") -> Fault:
    """Make the Fault of a caller that is not verified: 401, no body."""
    return caller_fault(401, "", "", check=check, private=private)


def bearer_of(call: Call) -> tuple[str, str] | Fault:
    """Return the scheme (lower case) and the token of the ``authorization`` header.

    Faults: 401 ``token.missing``, ``token.malformed``.
    """
    values = _values(call, b"authorization")
    if len(values) != 1:
        return denied("token.missing")
    scheme, _, token = values[0].partition(b" ")
    token, scheme = token.strip(), scheme.lower()
    if not token or len(token) > _TOKEN_OCTETS or not token.isascii() or b" " in token:
        return denied("token.malformed")
    if scheme == b"bearer":
        return "bearer", token.decode()
    return ("dpop", token.decode()) if scheme == b"dpop" else denied("token.malformed")


def _values(call: Call, name: bytes) -> Sequence[bytes]:
    """Return all values of a header; they are looked for only where some header came twice."""
    if len(call.fields) != len(call.request.headers):
        return call.request.header_values(name)
    value = call.fields.get(name)
    return () if value is None else (value,)


class Verifier:
    """Find the access that a call has."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        cache: Lookup,
        trust: TrustView,
        resource_base: str,
        algs: Sequence[str] = DPOP_ALGS,
        secrets: Secrets | None = None,
    ) -> None:
        """Take what verification asks.

        Args:
            keeper: For the single use of DPoP proofs.
            cache: For tokens, grants and consents.
            trust: For the certificate's owner.
            resource_base: Our own base URL: what a DPoP proof must name.
            algs: Of DPoP proofs, a closed list.
            secrets: Gives the nonces that proofs must carry; None: none is asked for.
        """
        self._keeper = keeper
        self._cache = cache
        self._peek: Peek = getattr(cache, "peek", _nothing)
        self._trust = trust
        self._resource_base = resource_base
        self._algs = algs
        self._secrets = secrets

    async def verify(self, call: Call, *, again: bool = False) -> Access | Fault:
        """Return the access of a call.

        Args:
            call: The call.
            again: It was verified before, when its DPoP proof was used up by itself.

        Faults: 401 without a body, checks ``token.*``, ``dpop.*``, ``trust.*``; 500 while the framework's word is stale.

        Cancellation: a DPoP proof may have been used up.
        """
        given = bearer_of(call)
        if not isinstance(given, tuple):
            return given
        scheme, secret = given
        name = digest_of(secret)
        found = self._peek(AccessToken, name) or await self._cache.lookup(AccessToken, name)
        if found is None:
            return denied("token.unknown")
        token: AccessToken = found[0]
        fault = _token_fault(token, call)
        if fault is None and token.grant_id:
            name = token.grant_id
            grant = self._peek(Grant, name) or await self._cache.lookup(Grant, name)
            if grant is None or grant[0].revoked:
                fault = denied("token.grant_revoked")
        if fault is not None:
            return fault
        if token.jkt or scheme != "bearer":
            fault = await self._proof(call, token, scheme, secret, again=again)
            if fault is not None:
                return fault
        caller = self._caller(call, token)
        if not isinstance(caller, Caller):
            return caller
        if not token.consent_id:
            return Access(caller=caller, token=token)
        name = token.consent_id
        consent = self._peek(Consent, name) or await self._cache.lookup(Consent, name)
        return _access(caller, token, consent)

    async def _proof(
        self, call: Call, token: AccessToken, scheme: str, secret: str, *, again: bool
    ) -> Fault | None:
        """Check the DPoP proof of a token that is bound to a key; a token that is not must come as Bearer."""
        if not token.jkt or scheme != "dpop":
            return denied("token.scheme")
        nonces = await self._secrets.nonces() if self._secrets is not None else ()
        proof = check_proof(
            call.request.header_values(b"dpop"),
            method=call.request.method,
            url=self._resource_base + call.request.path,
            now=call.now,
            access_token=secret,
            nonces=nonces,
            algs=self._algs,
        )
        if isinstance(proof, ProofFault):
            nonce = nonces[0] if nonces and proof.check == "dpop.nonce" else ""
            return msgspec.structs.replace(denied(proof.check, proof.why), nonce=nonce)
        if not hmac.compare_digest(proof.jkt.encode(), token.jkt.encode()):
            return denied("dpop.binding")
        if again:
            return None
        granted = await self._keeper.claim([Once("dpop", proof.replay_value, proof.replay_until)])
        if isinstance(granted, Fault):
            return at_resources(granted)
        return None if granted[0].granted else denied("dpop.replay")

    def _caller(self, call: Call, token: AccessToken) -> Caller | Fault:
        risk = Risk.PAY if call.route.family == "payment" else Risk.READ
        caller = self._trust.judge(call.request.peer, call.now, risk)
        if not isinstance(caller, Caller):
            return at_resources(caller)
        return caller if caller.client_id == token.client_id else denied("token.client")


def _token_fault(token: AccessToken, call: Call) -> Fault | None:
    """Say what is wrong with a token by itself, and with the connection it came by."""
    if token.expires <= call.now:
        return denied("token.expired")
    if token.revoked:
        return denied("token.revoked")
    bound = token.x5t_s256.encode()
    if not bound or not hmac.compare_digest(bound, call.request.peer.x5t_s256.encode()):
        return denied("token.certificate_binding")
    return None


def _access(
    caller: Caller, token: AccessToken, found: tuple[Consent, int] | None
) -> Access | Fault:
    """Return the access to a consent as it was found; the token must be for it as it stands."""
    if found is None or found[0].client_id != token.client_id:
        return denied("token.consent")
    if token.approved and not hmac.compare_digest(token.approved, found[0].digest):
        return denied("token.approved")
    return Access(caller=caller, token=token, consent=found[0], version=found[1])
