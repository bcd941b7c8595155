"""Headless Heimdall: the bank fetches a pushed request, and says once how its customer decided.

Theory. ``GET /auth`` may be repeated while nothing is finished; each opens an interaction of its own, and the consent
names the newest. Of many at once the consent names one: the others do not compete for it, or most would fail. The first
``doConfirm`` or ``doFail`` of any of them finishes the pushed request under its version, so that of many at once one
wins and the others get the 400. The bank has patched the consent before; what it says here changes no consent.

Source: Headless Heimdall (hub APIs 2); RFC 6749 section 4.1.2; RFC 9207; JARM 2.3; decisions 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from hub.authz.authorization_response import REDIRECT_ERRORS, location
from hub.authz.facts import UNKNOWN_CALLER, Column, Facts, refuse
from hub.authz.id_token import claims_of
from hub.authz.sealed_claims import seal
from hub.authz.shell import TRIES, Shell, answer, done, elapsed_us, read_form
from hub.authz.steps import Phase, run
from hub.model.caller import Caller
from hub.model.consent import TERMINAL, Consent, Status, status_at
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, Source, bank_fault, hub_fault
from hub.model.http import Request, Response
from hub.model.records import Code, Grant, Interaction, Pushed, digest_of
from hub.protocol.jose import b64url
from hub.protocol.oauth import FormFault, parse_pairs
from hub.state.keeper import Change, Conflict, Put

_MEANINGFUL: Final = frozenset({"client_id", "request_uri"})


class _Versions(msgspec.Struct, frozen=True, kw_only=True):
    pushed: int = 0
    interaction: int = 0
    consent: int = 0


class Heimdall:
    """Answer the bank's side of the authorization."""

    def __init__(self, shell: Shell) -> None:
        """Take the shell."""
        self._shell = shell

    async def auth(self, request: Request) -> Response:
        """Answer ``GET /auth`` with the interaction, a redirect, or an error page's facts.

        Cancellation: an interaction may have been opened that nobody uses.
        """
        facts = self._facts(request, Column.AUTHORIZE, *_front_channel(request.query))
        facts = self._with_client(facts)
        event = self._event(request, facts, "heimdall.auth")
        refusal = self._bank(request)
        former: str | None = None
        for _ in range(TRIES):
            facts, versions = await self._load_pushed(facts)
            fault = refusal or run(facts, Phase.REQUEST)
            if fault is not None:
                return await self._fail(request, facts, fault, event)
            if former is None and facts.consent is not None:
                former = facts.consent.interaction_id
            response = await self._open(request, facts, versions, event, former)
            if isinstance(response, Response):
                return response
        return await self._contended(request, facts, event)

    async def confirm(self, request: Request) -> Response:
        """Answer ``POST /auth/{interactionId}/doConfirm`` with a redirect that carries a code.

        Cancellation: the interaction may be finished; the code is then lost and the TPP starts again.
        """
        return await self._finish(request, "heimdall.doConfirm", confirmed=True)

    async def fail(self, request: Request) -> Response:
        """Answer ``POST /auth/{interactionId}/doFail`` with a redirect that carries the bank's error.

        Cancellation: the interaction may be finished.
        """
        return await self._finish(request, "heimdall.doFail", confirmed=False)

    async def _finish(self, request: Request, route: str, *, confirmed: bool) -> Response:
        form, form_fault = read_form(request)
        facts = self._facts(request, Column.FINISH, form, form_fault)
        event = self._event(request, facts, route)
        refusal = self._bank(request) or _unreadable(form_fault)
        for _ in range(TRIES):
            facts, versions = await self._load_interaction(request, facts)
            fault = refusal or run(facts, Phase.REQUEST)
            if fault is not None:
                return await self._fail(request, facts, fault, event)
            response = await self._settle(request, facts, versions, event, confirmed=confirmed)
            if isinstance(response, Response):
                return response
        return await self._contended(request, facts, event)

    def _facts(
        self,
        request: Request,
        column: Column,
        form: Mapping[str, str],
        form_fault: FormFault | None,
    ) -> Facts:
        return Facts(
            column=column,
            rules=self._shell.rules,
            now=self._shell.clock.now(),
            form=form,
            form_fault=form_fault,
            judged=UNKNOWN_CALLER,
        )

    def _with_client(self, facts: Facts) -> Facts:
        client_id, trust = facts.form.get("client_id", ""), self._shell.trust
        judged: Caller | Fault | None = trust.caller(client_id) if client_id else None
        if client_id and judged is None:
            why = trust.explain(client_id)
            judged = why if why is not None and why.source is Source.HUB else None
        return msgspec.structs.replace(facts, judged=judged or UNKNOWN_CALLER)

    def _event(self, request: Request, facts: Facts, route: str) -> Event:
        event = self._shell.event(request, facts, route)
        return msgspec.structs.replace(event, organisation_id=request.peer.organisation_id)

    def _bank(self, request: Request) -> Fault | None:
        """Refuse a caller whose certificate is not the bank's."""
        lfi, peer = self._shell.settings.lfi, request.peer
        if peer.organisation_id == lfi.organisation_id and peer.client_id in lfi.client_ids:
            return None
        public = "certificate: expected the bank's, subject OU and CN as configured"
        return refuse("invalid_client", "heimdall.certificate", public, status=401)

    async def _load_pushed(self, facts: Facts) -> tuple[Facts, _Versions]:
        request_uri = facts.form.get("request_uri", "")
        pushed = await self._shell.keeper.lookup(Pushed, digest_of(request_uri))
        if pushed is None:
            return facts, _Versions()
        consent = await self._shell.keeper.lookup(Consent, pushed[0].consent_id)
        facts = msgspec.structs.replace(
            facts, pushed=pushed[0], consent=consent[0] if consent else None
        )
        return facts, _Versions(pushed=pushed[1], consent=consent[1] if consent else 0)

    async def _load_interaction(self, request: Request, facts: Facts) -> tuple[Facts, _Versions]:
        keeper = self._shell.keeper
        found = await keeper.lookup(Interaction, request.path.split("/")[2])
        if found is None:
            return facts, _Versions()
        pushed = await keeper.lookup(Pushed, found[0].pushed_digest)
        consent = await keeper.lookup(Consent, found[0].consent_id)
        facts = msgspec.structs.replace(
            facts,
            now=self._shell.clock.now(),
            interaction=found[0],
            pushed=pushed[0] if pushed else None,
            consent=consent[0] if consent else None,
            judged=self._shell.trust.caller(found[0].client_id) or UNKNOWN_CALLER,
        )
        return facts, _Versions(
            pushed=pushed[1] if pushed else 0,
            interaction=found[1],
            consent=consent[1] if consent else 0,
        )

    async def _open(
        self,
        request: Request,
        facts: Facts,
        versions: _Versions,
        event: Event,
        former: str | None,
    ) -> Response | Conflict:
        """Open an interaction; name it in the consent unless another one took the place of ``former`` meanwhile."""
        shell, pushed, consent = self._shell, facts.pushed, facts.consent
        if pushed is None or consent is None:
            raise RuntimeError("a check let an unknown request pass")
        ends = [facts.now + shell.settings.limits.interaction_s, consent.expires]
        if consent.authorization_expires:
            ends.append(consent.authorization_expires)
        interaction = Interaction(
            id=shell.dice.uuid(),
            pushed_digest=pushed.digest,
            client_id=pushed.client_id,
            consent_id=pushed.consent_id,
            expires=min(ends),
        )
        changes: list[Change] = [Put(interaction, expect=0)]
        if consent.interaction_id == former:
            named = msgspec.structs.replace(consent, interaction_id=interaction.id)
            changes.append(Put(named, expect=versions.consent))
        body = orjson.dumps(
            {
                "interaction": _interaction_body(interaction, pushed, consent, facts.now),
                "tpp": facts.caller.tpp_block(),
            }
        )
        event = done(
            event,
            request,
            200,
            body,
            consent_id=consent.id,
            subject=interaction.id,
            change="opened",
        )
        stored = await shell.commit(changes, event)
        if isinstance(stored, Conflict):
            return stored
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(200, body, event)

    async def _settle(
        self,
        request: Request,
        facts: Facts,
        versions: _Versions,
        event: Event,
        *,
        confirmed: bool,
    ) -> Response | Conflict:
        """Finish the interaction: with a code, with the bank's error, or with ours for a bank's mistake."""
        shell, pushed, interaction = self._shell, facts.pushed, facts.interaction
        if pushed is None or interaction is None:
            raise RuntimeError("a check let an unknown interaction pass")
        changes: list[Change] = [
            Put(msgspec.structs.replace(pushed, finished=True), expect=versions.pushed),
            Put(msgspec.structs.replace(interaction, finished=True), expect=versions.interaction),
        ]
        parameters: tuple[tuple[str, str], ...]
        mistake = _mistake(facts) if confirmed else None
        if mistake is not None:
            parameters = (("error", mistake.code), ("error_description", mistake.public))
        elif confirmed:
            code = b64url(shell.dice.token(32))
            parameters = (("code", code),)
            changes.extend(_code(facts, pushed, code, shell.dice.uuid(), shell))
        else:
            parameters = _bank_error(facts.form)
        target = location(shell, pushed, parameters, facts.now)
        event = _settled(event, request, facts, mistake, parameters, confirmed=confirmed)
        stored = await shell.commit(changes, event)
        if isinstance(stored, Conflict):
            return stored
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(303, b"", event, ((b"location", target.encode()),))

    async def _fail(self, request: Request, facts: Facts, fault: Fault, event: Event) -> Response:
        """Answer a refusal: 303 to the TPP where it may be told, else 400 for the bank's error page."""
        shell = self._shell
        consent_id = facts.pushed.consent_id if facts.pushed is not None else ""
        event = msgspec.structs.replace(
            event, client_id=facts.caller.client_id, consent_id=consent_id
        )
        if not fault.redirect or facts.pushed is None:
            return await shell.refuse(request, facts, fault, event)
        parameters = (("error", fault.code), ("error_description", fault.public))
        target = location(shell, facts.pushed, parameters, facts.now)
        event = msgspec.structs.replace(
            event,
            verdict=Verdict.REFUSED,
            check=fault.check,
            code=fault.code,
            status=303,
            hub_us=elapsed_us(request),
        )
        stored = await shell.commit((), event)
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(303, b"", event, ((b"location", target.encode()),))

    async def _contended(self, request: Request, facts: Facts, event: Event) -> Response:
        fault = hub_fault(503, "temporarily_unavailable", "try again", check="heimdall.contended")
        return await self._shell.refuse(request, facts, fault, event)


def _front_channel(query: str) -> tuple[dict[str, str], FormFault | None]:
    """Read the two parameters that count; whatever else the browser brought is ignored."""
    pairs = parse_pairs(query)
    if isinstance(pairs, FormFault):
        return {}, pairs
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in _MEANINGFUL and value:
            if name in form:
                return {}, FormFault(f"{name} occurs more than once", name)
            form[name] = value
    return form, None


def _unreadable(form_fault: FormFault | None) -> Fault | None:
    if form_fault is None:
        return None
    return refuse("invalid_request", "finish.readable", f"body: {form_fault.why}")


def _interaction_body(
    interaction: Interaction, pushed: Pushed, consent: Consent, now: int
) -> dict[str, Any]:
    asked = pushed.parameters
    params: dict[str, Any] = {
        "client_id": pushed.client_id,
        "response_type": "code",
        "scope": asked.get("scope", ""),
        "scopes": str(asked.get("scope", "")).split(),
        "request": pushed.request_object,
        "claims": asked.get("claims", {}),
    }
    if "login_hint" in asked:
        params["login_hint"] = asked["login_hint"]
    return {
        "interactionId": interaction.id,
        "params": params,
        "claims": asked.get("claims", {}),
        "status": str(status_at(consent, now)),
        "consentId": consent.id,
        "consentIdsList": [consent.id],
    }


def _mistake(facts: Facts) -> Fault | None:
    """Tell what the bank did wrong when it confirms: a consent that is over, or one it did not authorize."""
    consent = facts.consent
    status = status_at(consent, facts.now) if consent is not None else Status.REJECTED
    if consent is None or status in TERMINAL:
        public = f"the consent is {status}"
        return bank_fault(303, "access_denied", public, check="finish.consent_over")
    single = consent.body.get("Data", {}).get("IsSingleAuthorization") is True
    if status is Status.AWAITING and single:
        public = "the bank confirmed a consent that it has not authorized"
        return bank_fault(303, "server_error", public, check="finish.consent_unauthorized")
    return None


def _code(facts: Facts, pushed: Pushed, code: str, grant_id: str, shell: Shell) -> Sequence[Change]:
    asked = pushed.parameters
    record = Code(
        digest=digest_of(code),
        client_id=pushed.client_id,
        consent_id=pushed.consent_id,
        grant_id=grant_id,
        redirect_uri=str(asked["redirect_uri"]),
        code_challenge=str(asked["code_challenge"]),
        scope=str(asked["scope"]),
        nonce=str(asked.get("nonce", "")),
        auth_time=facts.now,
        dpop_jkt=pushed.dpop_jkt,
        sealed=seal(claims_of(facts.form), code),
        expires=facts.now + shell.settings.limits.code_s,
    )
    grant = Grant(
        id=grant_id,
        client_id=pushed.client_id,
        consent_id=pushed.consent_id,
        created=facts.now,
        expires=facts.consent.expires if facts.consent is not None else 0,
    )
    return (Put(record, expect=0), Put(grant, expect=0))


def _bank_error(form: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    error = form.get("error", "access_denied")
    known = error if error in REDIRECT_ERRORS else "invalid_request"
    return (("error", known), ("error_description", form.get("error_description", "")))


def _settled(
    event: Event,
    request: Request,
    facts: Facts,
    mistake: Fault | None,
    parameters: Sequence[tuple[str, str]],
    *,
    confirmed: bool,
) -> Event:
    """Complete the event of a finished interaction."""
    granted = confirmed and mistake is None
    return msgspec.structs.replace(
        done(event, request, 303),
        kind=Kind.TOKEN if granted else Kind.CALL,
        verdict=Verdict.ALLOWED if mistake is None else Verdict.FAILED,
        check=mistake.check if mistake is not None else "",
        code="" if granted else parameters[0][1],
        client_id=facts.pushed.client_id if facts.pushed is not None else "",
        consent_id=facts.pushed.consent_id if facts.pushed is not None else "",
        subject=facts.interaction.id if facts.interaction is not None else "",
        change="confirmed" if confirmed else "failed",
    )
