"""``POST /par``: a signed authorization request becomes a ``request_uri`` and a consent that awaits its customer.

Source: RFC 9126 section 2; RFC 9101; RFC 9396; FAPI 2.0 Message Signing 5.3.1.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import orjson

from hub.authz.consents import staged
from hub.authz.detail_checks import is_consent_id
from hub.authz.facts import Column, Facts
from hub.authz.shell import TRIES, Shell, answer, done
from hub.authz.steps import Phase, run
from hub.model.consent import Consent, spellings
from hub.model.event import Event, Kind
from hub.model.fault import Fault, hub_fault
from hub.model.http import Request, Response
from hub.model.payment_file import file_note, file_of
from hub.model.records import Pushed, Seen, digest_of
from hub.protocol.jose import Parsed, b64url, parse
from hub.protocol.oauth import REQUEST_URI_PREFIX
from hub.state.group import group_named
from hub.state.keeper import Change, Conflict, Drop, Put

ROUTE: Final = "par"
ConsentValidation = Callable[[Consent], Awaitable[Consent | Fault | None]]
"""Ask the bank whether it would accept a consent, before anything is stored; None means as it is, a consent with additions."""


class PushedRequests:
    """Answer the PAR endpoint."""

    def __init__(self, shell: Shell, validate: ConsentValidation | None) -> None:
        """Take the shell, and the bank's validation where the tenant has it."""
        self._shell = shell
        self._validate = validate

    async def push(self, request: Request) -> Response:
        """Answer one pushed authorization request.

        Cancellation: the request may have been stored; its ``request_uri`` is then unknown to anybody and expires.
        """
        shell = self._shell
        facts = await shell.identify(request, Column.PAR)
        event = shell.event(request, facts, ROUTE)
        fault = await shell.admit(facts)
        if fault is not None:
            return await shell.refuse(request, facts, fault, event)
        for _ in range(TRIES):
            facts, seen_version = await self._load(facts)
            fault = run(facts, Phase.REQUEST)
            if fault is not None:
                return await shell.refuse(request, facts, fault, _about(event, facts))
            response = await self._store(request, facts, event, seen_version)
            if isinstance(response, Response):
                return response
        fault = hub_fault(503, "temporarily_unavailable", "try again", check="par.contended")
        return await shell.refuse(request, facts, fault, event)

    async def _load(self, facts: Facts) -> tuple[Facts, int]:
        shell, caller = self._shell, facts.caller
        token = parse(facts.form.get("request", ""), limit=facts.rules.request_object_octets)
        facts = msgspec.structs.replace(
            facts,
            request=token,
            request_key=await shell.key_of(caller, token),
            can_encrypt_to=shell.trust.encryption_key(caller.client_id) is not None,
        )
        seen = await self._seen(facts)
        taken = await self._consent(facts.asked.get("ConsentId"))
        base = await self._consent(facts.asked.get("BaseConsentId"))
        used = seen is not None and seen[0].until > facts.now
        facts = msgspec.structs.replace(facts, taken=taken, base=base, request_seen=used)
        return facts, 0 if seen is None else seen[1]

    async def _seen(self, facts: Facts) -> tuple[Seen, int] | None:
        record = _burnt(facts)
        return None if record is None else await self._shell.keeper.lookup(Seen, record.key)

    async def _consent(self, consent_id: object) -> Consent | None:
        for name in spellings(consent_id):
            found = await self._shell.keeper.lookup(Consent, name)
            if found is not None:
                return found[0]
        return None

    async def _store(
        self, request: Request, facts: Facts, event: Event, seen_version: int
    ) -> Response | Conflict:
        """Ask the bank if it wants to be asked, then store everything at once; a Conflict means decide again."""
        shell = self._shell
        request_uri = REQUEST_URI_PREFIX + b64url(shell.dice.token(32))
        group = str(facts.asked.get("BaseConsentId") or "")
        consent = staged(
            facts,
            request,
            group_id=await group_named(shell.keeper, group) if group else "",
            request_uri=request_uri,
            url=shell.rules.issuer + request.path,
            now_ms=shell.clock.now_ms(),
            interaction_id=event.interaction_id,
        )
        asked = await self._validate(consent) if self._validate is not None else None
        if isinstance(asked, Fault):
            return await shell.refuse(request, facts, asked, _about(event, facts))
        # The bank may have taken its time: who asks for what has changed since a moment must not miss it.
        consent = msgspec.structs.replace(asked or consent, updated_ms=shell.clock.now_ms())
        lifetime = shell.settings.limits.request_uri_s
        changes: list[Change] = [
            *(Drop("consent", name, expect=0) for name in spellings(consent.id)[1:]),
            Put(consent, expect=0),
            Put(_pushed(facts, request, request_uri, facts.now + lifetime), expect=0),
        ]
        if file_of(consent) is not None:
            changes.append(Put(file_note(consent, taken=False)))
        burnt = _burnt(facts)
        if burnt is not None:
            changes.append(Put(burnt, expect=seen_version))
        body = orjson.dumps({"request_uri": request_uri, "expires_in": lifetime})
        event = done(
            _about(event, facts),
            request,
            201,
            body,
            kind=Kind.CONSENT,
            subject=consent.id,
            change=f">{consent.status}",
        )
        stored = await shell.commit(changes, event)
        if isinstance(stored, Conflict):
            return stored
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(201, body, event, await shell.nonce_header(request))


def _about(event: Event, facts: Facts) -> Event:
    """Name the consent in the event where it is an id: any other text might be anything, and the log is for ever."""
    consent_id = facts.asked.get("ConsentId")
    known = is_consent_id(consent_id)
    return msgspec.structs.replace(event, consent_id=str(consent_id)) if known else event


def _burnt(facts: Facts) -> Seen | None:
    """Return what remembers the request object's ``jti``, if it has one, for as long as it could be replayed."""
    jti = facts.claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= 256:
        return None
    until = facts.now + 2 * facts.rules.request_object_s + facts.rules.ahead_s
    return Seen(space=f"request:{facts.caller.client_id}", value=jti, until=until)


def _pushed(facts: Facts, request: Request, request_uri: str, expires: int) -> Pushed:
    claims = dict(facts.claims)
    claims.pop("authorization_details", None)
    return Pushed(
        digest=digest_of(request_uri),
        client_id=facts.caller.client_id,
        consent_id=str(facts.asked["ConsentId"]),
        parameters=claims,
        request_object=facts.request.raw if isinstance(facts.request, Parsed) else "",
        expires=expires,
        x5t_s256=request.peer.x5t_s256,
        dpop_jkt=facts.jkt or str(facts.claims.get("dpop_jkt", "")),
    )
