"""Only the bank passes: its own client certificates, not revoked, and its JWT Auth token where the tenant demands one.

The guard stands in front of every handler of the LFI face, Headless Heimdall's too. A refusal of a peer with a
certificate is one event; refusals of peers without any are counted per address and minute, and one event stands for
them, so that nobody can fill the disk. Answers carry our own token where JWT Auth is on.

Source: decisions.md section 2 (JWT Auth); hub-behaviour 9; errors.md 8.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hub.config import Settings
from hub.lfi.shell import error_body, failed, interaction_of, refused
from hub.model.caller import Peer
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault
from hub.model.http import Handler, Request, Response, json_response
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol import jose
from hub.state.keeper import Conflict, Keeper
from hub.trust.view import TrustView
from hub.upstream.bearer import Bearer

_SKEW_S: Final = 10
_LIFE_S: Final = 300
_SCHEME: Final = re.compile(r"(?:Bearer|Ozone-Connect-JWT-Auth|Basic) +(\S+)\Z", re.IGNORECASE)
_COUNTED_MOST: Final = 4096


def peer_fault(peer: Peer, organisation_id: str, client_ids: Sequence[str]) -> Fault | None:
    """Decide whether a peer is one of the bank's own clients.

    Faults: 401 without a certificate, 403 for a foreign organisation or client.
    """
    if not peer.present:
        return _refusal(401, "a client certificate of the bank is required", "lfi.no_certificate")
    if peer.organisation_id != organisation_id:
        return _refusal(403, "this certificate is not the bank's", "lfi.organisation")
    if peer.client_id not in client_ids:
        return _refusal(403, "this client of the bank is not known here", "lfi.client")
    return None


def token_fault(claims: Any, peer: Peer, audience: str, now: int) -> Fault | None:
    """Decide whether the claims of a verified JWT Auth token fit the connection and the time.

    Faults: 401 ``JWS.InvalidClaim``.
    """
    wanted = {"iss": peer.organisation_name, "sub": peer.organisation_id}
    for name, value in wanted.items():
        if claims.get(name) != value:
            return _claim(name, "does not belong to the certificate in use")
    named = claims.get("aud")
    if audience not in (named if isinstance(named, list) else [named]):
        return _claim("aud", f"expected {audience}")
    times = {name: claims.get(name) for name in ("iat", "exp")}
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return _claim(name, "expected a number of seconds")
    issued, expires = float(times["iat"] or 0), float(times["exp"] or 0)
    if expires + _SKEW_S <= now:
        return _claim("exp", "the token has expired")
    not_before = claims.get("nbf", issued)
    if not isinstance(not_before, int | float) or not_before - _SKEW_S > now:
        return _claim("nbf", "the token is not valid yet")
    if issued - _SKEW_S > now or expires - issued > _LIFE_S:
        return _claim("iat", f"expected a token made now for at most {_LIFE_S} s")
    return None


def _refusal(status: int, public: str, check: str, code: str = "JWS.InvalidClaim") -> Fault:
    return caller_fault(status, code, public, check=check)


def _claim(name: str, why: str) -> Fault:
    return _refusal(401, f"{name}: {why}", f"lfi.token_{name}")


class BankGuard:
    """Let the bank pass and nobody else."""

    def __init__(
        self,
        *,
        settings: Settings,
        keeper: Keeper,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        trust: TrustView | None = None,
        answers: Bearer | None = None,
    ) -> None:
        """Take what it needs.

        Args:
            settings: ``lfi`` names the bank's clients, ``bank.jwt_auth_inbound`` switches JWT Auth on.
            keeper: For the events of refusals.
            clock: For events and tokens.
            dice: For interaction ids.
            observer: Counts refusals.
            trust: Vets the bank's certificate and gives its keys; required with JWT Auth.
            answers: Makes our token for answers; None sends none.
        """
        self._settings = settings
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._trust = trust
        self._answers = answers
        self._anonymous: dict[tuple[str, int], int] = {}

    def bank_only(self, handler: Handler) -> Handler:
        """Return the handler with the guard before it."""

        async def guarded(request: Request) -> Response:
            fault = await self._judge(request)
            if fault is not None:
                return await self._refuse(request, fault)
            response = await handler(request)
            return await self._signed(response)

        return guarded

    async def _judge(self, request: Request) -> Fault | None:
        lfi = self._settings.lfi
        fault = peer_fault(request.peer, lfi.organisation_id, lfi.client_ids)
        if fault is None and self._trust is not None:
            fault = self._vetted(request.peer)
        if fault is not None or not self._settings.bank.jwt_auth_inbound:
            return fault
        return await self._judge_token(request)

    def _vetted(self, peer: Peer) -> Fault | None:
        """Ask the Trust Framework's mirror about the bank's certificate and organisation: in memory, no wait."""
        assert self._trust is not None  # noqa: S101 - the caller looked
        fault = self._trust.vet(peer, self._clock.now())
        if fault is None:
            return None
        status = fault.status if fault.status == 503 else 403
        return msgspec.structs.replace(
            _refusal(status, fault.public, fault.check, "GenericError"), private=fault.private
        )

    async def _judge_token(self, request: Request) -> Fault | None:
        field = (request.header(b"authorization") or b"").decode("latin-1")
        found = _SCHEME.match(field)
        if found is None:
            return _refusal(401, "a JWT Auth token is required", "lfi.token", "JWS.Malformed")
        parsed = jose.parse(found[1], limit=self._settings.limits.assertion_octets)
        if isinstance(parsed, jose.JoseFault):
            return _refusal(401, f"JWT Auth: {parsed.why}", "lfi.token", "JWS.Malformed")
        key = await self._key(request.peer.client_id, str(parsed.header.get("kid", "")))
        if key is None:
            return _refusal(401, "JWT Auth: kid is not known", "lfi.token_kid", "JWS.InvalidHeader")
        wrong = jose.verify(parsed, key, jose.UAE_ALGS)
        if wrong is not None:
            return _refusal(
                401, f"JWT Auth: {wrong.why}", "lfi.token_signature", "JWS.InvalidSignature"
            )
        audience = self._settings.tenant.provider_id
        return token_fault(parsed.claims, request.peer, audience, self._clock.now())

    async def _key(self, client_id: str, kid: str) -> jose.PublicKey | None:
        if self._trust is None:
            return None
        key = self._trust.key(client_id, kid, "sig")
        if key is None:
            await self._trust.refresh_keys(client_id)
            key = self._trust.key(client_id, kid, "sig")
        return key

    async def _refuse(self, request: Request, fault: Fault) -> Response:
        self._observer.note("lfi.refused", check=fault.check)
        count = 0
        if not request.peer.present:
            count = self._count(request.peer.address)
            if not count:
                return json_response(fault.status, error_body(fault))
        event = Event(
            kind=Kind.REFUSED if count else Kind.CALL,
            time_ms=self._clock.now_ms(),
            interaction_id=interaction_of(request) or self._dice.uuid(),
            face=Face.LFI,
            client_id=request.peer.client_id,
            organisation_id=request.peer.organisation_id,
            x5t_s256=request.peer.x5t_s256,
            route="lfi.guard",
            subject=request.peer.address if count else "",
            count=count,
        )
        event = msgspec.structs.replace(event, **refused(fault))
        committed = await self._keeper.commit((), (event,))
        if isinstance(committed, Fault):
            return failed(committed)
        assert not isinstance(committed, Conflict)  # noqa: S101 - nothing was expected
        return json_response(fault.status, error_body(fault), event=event)

    def _count(self, address: str) -> int:
        """Count a refusal; return how many an event has to stand for now, 0 for none."""
        minute = self._clock.now() // 60
        known = (address, minute) in self._anonymous
        if not known and len(self._anonymous) >= _COUNTED_MOST:
            self._anonymous.clear()
        self._anonymous[address, minute] = self._anonymous.get((address, minute), 0) + 1
        if known:
            return 0
        earlier = [key for key in self._anonymous if key[0] == address and key[1] < minute]
        return 1 + sum(self._anonymous.pop(key) - 1 for key in earlier)

    async def _signed(self, response: Response) -> Response:
        if self._answers is None:
            return response
        value = await self._answers.value("")
        if isinstance(value, Fault) or not value:
            return response
        headers = (*response.headers, (b"authorization", value))
        return msgspec.structs.replace(response, headers=headers)
