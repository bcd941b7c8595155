"""The shell around the checks: it looks up what they need, claims what is single use, and commits what they decide.

Theory. Checks are pure; this is where waiting happens. A request runs: ``identify`` (form, certificate, assertion, key,
proof; then ``claim`` of the identifiers), ``load`` by the endpoint, the REQUEST phase, ``commit`` of changes with one
event. A Conflict means that somebody else was faster: load again, decide again, at most ``TRIES`` times. Every
refusal is committed as an event as well, before it is answered.
"""

from collections.abc import Mapping, Sequence
from re import compile as pattern
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import trio

from hub.authz.facts import (
    CLIENT,
    TOKEN,
    AuthorizationDetailsCheck,
    Column,
    Facts,
    Rules,
    refuse,
)
from hub.authz.steps import Phase, run
from hub.authz.strangers import Strangers, network_of
from hub.config import Settings
from hub.model.caller import Caller
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, Source, hub_fault
from hub.model.http import Headers, Request, Response
from hub.observe import Observer
from hub.protocol.dpop import Proof, ProofFault, check_proof
from hub.protocol.jose import JoseFault, Parsed, PrivateKey, PublicKey, parse
from hub.protocol.oauth import FormFault, error_body, parse_form
from hub.state.allowance import Consumption
from hub.state.keeper import Change, Conflict, Keeper, Once, Take
from hub.state.secrets import Secrets
from hub.trust.view import TrustView

TRIES: Final = 5
_UUID: Final = pattern(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FORM_TYPE: Final = b"application/x-www-form-urlencoded"
_NO_STORE: Final = (b"cache-control", b"no-cache, no-store")
_DPOP_SPACE: Final = "dpop"
_PROOF_COLUMNS: Final = TOKEN | {Column.PAR}


class Shell:
    """Hold what the endpoints share."""

    def __init__(
        self,
        *,
        settings: Settings,
        rules: Rules,
        keeper: Keeper,
        trust: TrustView,
        signing_keys: Sequence[PrivateKey],
        details_check: AuthorizationDetailsCheck,
        clock: Clock,
        dice: Dice,
        observer: Observer,
    ) -> None:
        """Take what the endpoints need; the first of ``signing_keys`` signs, all are published."""
        self.settings = settings
        self.rules = rules
        self.keeper = keeper
        self.trust = trust
        self.signing_keys = signing_keys
        self.details_check = details_check
        self.clock = clock
        self.dice = dice
        self.observer = observer
        self.strangers = Strangers()
        self.secrets = Secrets(keeper=keeper, clock=clock, dice=dice)
        self.consumption = Consumption(
            keeper,
            ZoneInfo(settings.tenant.time_zone),
            anchored=settings.switches.month_periods == "anchored",
        )

    async def identify(self, request: Request, column: Column) -> Facts:
        """Collect what the IDENTIFY phase looks at."""
        now = self.clock.now()
        judged = self.trust.judge(request.peer, now)
        form, form_fault = read_form(request)
        facts = Facts(
            column=column,
            rules=self.rules,
            now=now,
            form=form,
            form_fault=form_fault,
            judged=judged,
            details_check=self.details_check,
        )
        if form_fault is not None or isinstance(judged, Fault):
            return facts
        assertion = parse(form.get("client_assertion", ""), limit=self.rules.assertion_octets)
        proof = await self._proof(request, now) if column in _PROOF_COLUMNS else None
        key = await self.key_of(judged, assertion)
        return msgspec.structs.replace(facts, assertion=assertion, assertion_key=key, proof=proof)

    async def _proof(self, request: Request, now: int) -> Proof | ProofFault | None:
        headers = request.header_values(b"dpop")
        if not headers:
            return None
        nonces = await self.secrets.nonces() if self.settings.switches.dpop_nonce else ()
        return check_proof(
            headers,
            method=request.method,
            url=self.rules.issuer + request.path,
            now=now,
            nonces=nonces,
            algs=self.rules.dpop_algs,
        )

    async def nonce_header(self, request: Request) -> Headers:
        """Return the ``DPoP-Nonce`` header for an answer to a caller that uses DPoP, where nonces are switched on."""
        if not self.settings.switches.dpop_nonce or request.header(b"dpop") is None:
            return ()
        return ((b"dpop-nonce", (await self.secrets.nonces())[0].encode()),)

    async def key_of(self, caller: Caller, token: Parsed | JoseFault) -> PublicKey | None:
        """Return the client's signing key of a token's ``kid``; an unknown one is worth one refresh."""
        if isinstance(token, JoseFault) or token.header["alg"] not in self.rules.algs:
            return None
        kid = token.header.get("kid")
        if not kid or len(kid) > 256:
            return None
        key = self.trust.key(caller.client_id, kid, "sig")
        if key is None:
            await self.trust.refresh_keys(caller.client_id)
            key = self.trust.key(caller.client_id, kid, "sig")
        return key

    async def admit(self, facts: Facts) -> Fault | None:
        """Run the IDENTIFY phase, then claim the assertion's ``jti`` and the proof; at most one of many wins."""
        fault = run(facts, Phase.IDENTIFY)
        if fault is not None:
            return fault
        claims = _single_use(facts)
        limits = self.settings.limits
        pace = Take(
            bucket=f"authz:{facts.caller.client_id}",
            rate=limits.client_requests_per_s,
            burst=limits.client_requests,
        )
        granted = await self.keeper.claim((*claims, pace))
        if isinstance(granted, Fault):
            return _unavailable(granted)
        if not granted[-1].granted:
            return _too_many(granted[-1].retry_after)
        refused = [
            claim for claim, one in zip(claims, granted[:-1], strict=True) if not one.granted
        ]
        if not refused:
            return None
        if refused[0].space != _DPOP_SPACE:
            public = "client_assertion jti: expected a new value, got one already used"
            return refuse("invalid_client", "client_assertion.replay", public, status=401)
        public = "DPoP jti: expected a new value, got one already used"
        return refuse("invalid_dpop_proof", "dpop.replay", public)

    async def commit(self, changes: Sequence[Change], event: Event) -> Fault | Conflict | None:
        """Commit changes with their one event; None when durable."""
        done = await self.keeper.commit(changes, (event,))
        if isinstance(done, Fault):
            return _unavailable(done)
        return done if isinstance(done, Conflict) else None

    async def refuse(
        self,
        request: Request,
        facts: Facts,
        fault: Fault,
        event: Event,
        *,
        changes: Sequence[Change] = (),
    ) -> Response:
        """Commit a refusal as an event, then answer it as an OAuth error."""
        body = error_body(fault, self.error_uri(fault.check))
        event = msgspec.structs.replace(
            event,
            kind=Kind.CALL,
            verdict=Verdict.REFUSED if fault.source is Source.CALLER else Verdict.FAILED,
            check=fault.check,
            code=fault.code,
            status=fault.status,
            octets_out=len(body),
            hub_us=elapsed_us(request),
        )
        address = request.peer.address
        count = 0
        if not request.peer.present:
            count = self.strangers.count(address, fault.check, self.clock.now())
            if not count:
                return msgspec.structs.replace(answer(fault.status, body, event), event=None)
            event = msgspec.structs.replace(
                event, kind=Kind.REFUSED, subject=network_of(address), count=count
            )
        done = await self.commit(changes, event)
        if isinstance(done, Fault):
            return self.plain(request, event, done)
        headers = list(await self.nonce_header(request))
        if fault.status == 401 and request.header(b"authorization") is not None:
            headers.append((b"www-authenticate", b'Basic realm="private_key_jwt is expected"'))
        if fault.retry_after or fault.status == 503:
            headers.append((b"retry-after", str(fault.retry_after or 1).encode()))
        return answer(fault.status, body, event, tuple(headers))

    def plain(self, request: Request, event: Event, fault: Fault) -> Response:
        """Answer a fault of our own whose event could not be kept either."""
        self.observer.note("authz.not_recorded", check=fault.check, route=event.route)
        retry = (b"retry-after", str(fault.retry_after or 1).encode())
        event = msgspec.structs.replace(event, status=fault.status, code=fault.code)
        response = answer(fault.status, error_body(fault), event, (retry,))
        return msgspec.structs.replace(response, event=None)

    def error_uri(self, check: str) -> str:
        """Return the address of the explanation of a check."""
        return f"{self.rules.issuer}/errors/{check}"

    def event(self, request: Request, facts: Facts, route: str) -> Event:
        """Make the one event of a request, to be completed by its outcome; what was ignored is noted in it."""
        return Event(
            kind=Kind.CALL,
            time_ms=self.clock.now_ms(),
            interaction_id=self.interaction_id(request),
            face=request.face,
            client_id=facts.caller.client_id,
            organisation_id=facts.caller.organisation_id or request.peer.organisation_id,
            x5t_s256=request.peer.x5t_s256,
            route=route,
            check=_ignored(request, facts),
            octets_in=len(request.body),
        )

    def interaction_id(self, request: Request) -> str:
        """Return the caller's ``x-fapi-interaction-id`` if it is a UUID, else a new one."""
        given = request.header(b"x-fapi-interaction-id") or b""
        return given.decode() if _UUID.fullmatch(given) else self.dice.uuid()


def _ignored(request: Request, facts: Facts) -> str:
    """Name the header that means nothing beside a client assertion, if it came (decisions 1)."""
    beside = facts.column in CLIENT and "client_assertion" in facts.form
    return "client.header_ignored" if beside and request.header(b"authorization") else ""


def _single_use(facts: Facts) -> tuple[Once, ...]:
    claims: list[Once] = []
    if not facts.by_certificate:
        space, jti = f"assertion:{facts.caller.client_id}", facts.assertion_claims["jti"]
        until = int(facts.assertion_claims["exp"]) + facts.rules.ahead_s + 1
        claims.append(Once(space=space, value=jti, until=until))
    if isinstance(facts.proof, Proof):
        value, until = facts.proof.replay_value, facts.proof.replay_until
        claims.append(Once(space=_DPOP_SPACE, value=value, until=until))
    return tuple(claims)


def _too_many(retry_after: int) -> Fault:
    public = "client: expected fewer requests per second"
    fault = refuse("temporarily_unavailable", "client.rate", public, status=429)
    return msgspec.structs.replace(fault, retry_after=max(1, retry_after))


def _unavailable(fault: Fault) -> Fault:
    public = "the authorization server is temporarily unavailable"
    mapped = hub_fault(503, "temporarily_unavailable", public, check=fault.check)
    return msgspec.structs.replace(mapped, retry_after=fault.retry_after or 1)


def read_form(request: Request) -> tuple[Mapping[str, str], FormFault | None]:
    """Read the form of a request; anything but a form is a fault."""
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _FORM_TYPE and request.body:
        return {}, FormFault("expected application/x-www-form-urlencoded")
    form = parse_form(request.body)
    return ({}, form) if isinstance(form, FormFault) else (form, None)


def elapsed_us(request: Request) -> int:
    """Return the microseconds since a request arrived."""
    if not request.received_ns:
        return 0
    return max(0, int(trio.current_time() * 1e6) - request.received_ns // 1000)


def answer(
    status: int, body: bytes, event: Event, extra: Headers = (), *, content_type: bytes = b""
) -> Response:
    """Make an answer that no cache keeps and that names its interaction."""
    headers: list[tuple[bytes, bytes]] = [_NO_STORE]
    if body:
        headers.append((b"content-type", content_type or b"application/json"))
    headers.append((b"x-fapi-interaction-id", event.interaction_id.encode()))
    return Response(status=status, headers=(*headers, *extra), body=body, event=event)


def done(
    event: Event, request: Request, status: int, body: bytes = b"", **changes: object
) -> Event:
    """Complete the event of a request that was allowed."""
    return msgspec.structs.replace(
        event,
        verdict=Verdict.ALLOWED,
        status=status,
        octets_out=len(body),
        hub_us=elapsed_us(request),
        **changes,
    )
