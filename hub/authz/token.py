"""``POST /token``: codes, refresh tokens and client credentials become sender-constrained access tokens.

Theory. Redeeming a code marks it used under its version: of many who redeem it at once one wins, and everybody else,
then or later, replays it and thereby revokes what it gave. Refresh tokens are not rotated and live as long as their
consent. Only digests of tokens are stored.

Source: RFC 6749 sections 4.1.3, 4.4 and 6; RFC 8705 section 3; RFC 9449 section 5; FAPI 2.0 5.3.2.1; decisions 1.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from hub.authz.access_token import access_token_of
from hub.authz.consents import granted
from hub.authz.facts import Column, Facts
from hub.authz.id_token import id_token
from hub.authz.shell import TRIES, Shell, answer, done, read_form
from hub.authz.steps import Phase, run
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.model.fault import Fault, hub_fault
from hub.model.http import Request, Response
from hub.model.records import AccessToken, Code, Grant, RefreshToken, digest_of
from hub.protocol.jose import b64url
from hub.state.keeper import Change, Conflict, Put, Query

ROUTE: Final = "token"
_COLUMNS: Final = {
    "authorization_code": Column.CODE,
    "refresh_token": Column.REFRESH,
    "client_credentials": Column.CREDENTIALS,
}
GRANT_TYPES: Final = tuple(_COLUMNS)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the version of the code that is redeemed; a grant that is revoked meanwhile ends the token wherever it is shown."""

    code: int = 0


class Tokens:
    """Answer the token endpoint."""

    def __init__(self, shell: Shell) -> None:
        """Take the shell."""
        self._shell = shell

    async def exchange(self, request: Request) -> Response:
        """Answer one token request.

        Cancellation: tokens may have been issued that nobody received; a code is then used up.
        """
        shell = self._shell
        form, _ = read_form(request)
        column = _COLUMNS.get(form.get("grant_type", ""), Column.OTHER_GRANT)
        facts = await shell.identify(request, column)
        event = shell.event(request, facts, ROUTE)
        fault = await shell.admit(facts)
        if fault is not None:
            return await shell.refuse(request, facts, fault, event)
        for _ in range(TRIES):
            facts, found = await self._load(facts)
            about = msgspec.structs.replace(event, consent_id=_consent_id(facts))
            fault = run(facts, Phase.REQUEST)
            if fault is not None:
                changes = await self._ended(facts, found, fault)
                return await shell.refuse(request, facts, fault, about, changes=changes)
            response = await self._issue(request, facts, found, about)
            if isinstance(response, Response):
                return response
        fault = hub_fault(503, "temporarily_unavailable", "try again", check="token.contended")
        return await shell.refuse(request, facts, fault, event)

    async def _load(self, facts: Facts) -> tuple[Facts, _Found]:
        keeper = self._shell.keeper
        code = refresh = None
        if facts.column is Column.CODE and "code" in facts.form:
            code = await keeper.lookup(Code, digest_of(facts.form["code"]))
        if facts.column is Column.REFRESH and "refresh_token" in facts.form:
            refresh = await keeper.lookup(RefreshToken, digest_of(facts.form["refresh_token"]))
        record = (code or refresh or (None, 0))[0]
        if record is None:
            return msgspec.structs.replace(facts, now=self._shell.clock.now()), _Found()
        grant = await keeper.lookup(Grant, record.grant_id)
        consent = await keeper.lookup(Consent, record.consent_id)
        facts = msgspec.structs.replace(
            facts,
            now=self._shell.clock.now(),
            code=code[0] if code else None,
            refresh=refresh[0] if refresh else None,
            grant=grant[0] if grant else None,
            consent=consent[0] if consent else None,
        )
        return facts, _Found(code=code[1] if code else 0)

    async def _ended(self, facts: Facts, found: _Found, fault: Fault) -> Sequence[Change]:
        """Return what a replayed code revokes: its grant and every token of it."""
        if fault.check != "code.unused" or facts.grant is None or facts.grant.revoked:
            return ()
        return await revocation(self._shell, facts.grant, facts.now)

    async def _issue(
        self, request: Request, facts: Facts, found: _Found, event: Event
    ) -> Response | Conflict:
        shell = self._shell
        unnamed = _access(facts, request, shell.settings.limits.access_token_s)
        access_token = await access_token_of(shell, unnamed, facts.consent)
        access = msgspec.structs.replace(unnamed, digest=digest_of(access_token))
        changes: list[Change] = [Put(access, expect=0)]
        body: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "DPoP" if facts.jkt else "Bearer",
            "expires_in": access.expires - facts.now,
            "scope": access.scope,
        }
        if facts.consent is not None:
            shown = await shell.consumption.current(facts.consent, facts.now)
            base = shell.settings.tenant.resource_base
            body["authorization_details"] = granted(shown, facts.now, base)
        if facts.code is not None and facts.consent is not None:
            refresh_token = b64url(shell.dice.token(32))
            used = msgspec.structs.replace(facts.code, used=True)
            changes.append(Put(used, expect=found.code))
            changes.append(Put(_refresh(facts, facts.consent, refresh_token), expect=0))
            body["refresh_token"] = refresh_token
            if "openid" in facts.code.scope.split():
                body["id_token"] = await id_token(shell, facts, facts.code, access_token)
        octets = orjson.dumps(body)
        event = done(
            event,
            request,
            200,
            octets,
            kind=Kind.TOKEN,
            subject=access.grant_id,
            change=str(facts.column),
            approved=access.approved,
        )
        stored = await shell.commit(changes, event)
        if isinstance(stored, Conflict):
            return stored
        if isinstance(stored, Fault):
            return shell.plain(request, event, stored)
        return answer(200, octets, event, await shell.nonce_header(request))


def _consent_id(facts: Facts) -> str:
    record = facts.code or facts.refresh
    own = record is not None and record.client_id == facts.caller.client_id
    return record.consent_id if record is not None and own else ""


def _access(facts: Facts, request: Request, lifetime: int) -> AccessToken:
    record = facts.code or facts.refresh
    expires = facts.now + lifetime
    if facts.consent is not None:
        expires = min(expires, facts.consent.expires)
    return AccessToken(
        digest="",
        client_id=facts.caller.client_id,
        scope=_scope(facts),
        x5t_s256=request.peer.x5t_s256,
        issued=facts.now,
        expires=expires,
        jkt=facts.jkt,
        consent_id=record.consent_id if record is not None else "",
        grant_id=record.grant_id if record is not None else "",
        approved=facts.consent.digest if facts.consent is not None else "",
    )


def _scope(facts: Facts) -> str:
    if facts.code is not None:
        return facts.code.scope
    if facts.refresh is not None:
        return facts.form.get("scope", facts.refresh.scope)
    return facts.form["scope"]


def _refresh(facts: Facts, consent: Consent, token: str) -> RefreshToken:
    code = facts.code
    return RefreshToken(
        digest=digest_of(token),
        client_id=facts.caller.client_id,
        consent_id=consent.id,
        grant_id=code.grant_id if code is not None else "",
        scope=code.scope if code is not None else "",
        issued=facts.now,
        expires=consent.expires,
        jkt=facts.jkt,
    )


async def revocation(shell: Shell, grant: Grant, now: int) -> list[Change]:
    """Return the changes that end a grant and every token it gave."""
    changes: list[Change] = [Put(msgspec.structs.replace(grant, revoked=now))]
    for kind in ("access", "refresh"):
        where = (("consent", grant.consent_id),)
        page = await shell.keeper.search(Query(kind=kind, where=where, limit=1000))
        changes.extend(
            Put(msgspec.structs.replace(found.record, revoked=now))
            for found in page.items
            if isinstance(found.record, AccessToken | RefreshToken)
            and found.record.grant_id == grant.id
            and not found.record.revoked
        )
    return changes
