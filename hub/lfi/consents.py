"""The Consent Manager's operations on consents: read, list, patch, revoke, history.

Theory. A list is exact to the second because what ran out is written before it is searched (``settle_due``), and each
record is rendered as of now. A change is one commit: the consent at the version it was read, a line of its history, the
death of its tokens where it was revoked, and the events. Only a large group takes several: each consent whole in one.

Source: hub-apis 3.1 to 3.6; decisions.md section 2.
"""

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from hub.config import Settings
from hub.lfi.paging import Wanted, meta_of, query_of, read_wanted
from hub.lfi.shell import Call, Done, Shell
from hub.lfi.sweep import settle_due
from hub.model.consent import Consent, Party, Status
from hub.model.consent_history import audit_entry, creation_line, history_line
from hub.model.consent_patch import REVOKED_BY, apply_patch, read_patch, revoke
from hub.model.consent_record import consent_record
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault
from hub.model.period import local_date
from hub.model.personal import personal_members
from hub.model.records import ConsentChange, Record
from hub.model.shape import Wrong, members, text
from hub.model.terms import Face
from hub.observe import Observer
from hub.state.allowance import Consumption
from hub.state.group import group_named
from hub.state.keeper import Change, Put, Query, Settle
from hub.state.revocation import revocation_of

_NAMED: Final = members({"userId": text(0, 256)}, closed=False)
_NOBODY: Final = members({}, {"userId": text(0, 256)})


def _psu(value: Any) -> Wrong | None:
    """Accept whatever identifies a customer beside ``userId``; without it nothing, lest a slip of the pen revoke for everybody."""
    return (_NAMED if isinstance(value, dict) and "userId" in value else _NOBODY)(value)


_REVOCATION: Final = members({"revokedBy": REVOKED_BY}, {"revokedByPsu": _psu})
_PERSONAL: Final = "consent.personal_identifier"
_HISTORY_MOST: Final = 1000
_PAGE: Final = 1000
_BATCH: Final = 250
"""Consents revoked in one commit, with their tokens."""


class Consents:
    """Decide the operations; the shell commits them."""

    def __init__(self, shell: Shell, settings: Settings, observer: Observer) -> None:
        """Take the shell (for its keeper), the tenant, and who is told of identifiers that look personal."""
        self._keeper = shell.keeper
        self._shell = shell
        self._provider_id = settings.tenant.provider_id
        self._personals = settings.switches.personal_identifiers
        self._observer = observer
        self._zone = ZoneInfo(settings.tenant.time_zone)
        self._anchored = settings.switches.month_periods == "anchored"
        self._consumption = Consumption(shell.keeper, self._zone, anchored=self._anchored)

    async def list_all(self, call: Call) -> Done | Fault:
        """List consents, changed after a moment."""
        return await self._list(call, stream=True)

    async def list_group(self, call: Call) -> Done | Fault:
        """List the consents of a group; ``userId`` in the query leaves those of one customer."""
        where = await self._group(call.parameters["consentGroupId"])
        user = call.query.get("userId", "")
        return await self._list(call, *where, *((("psu", user),) if user else ()))

    async def _group(self, group_id: str) -> tuple[tuple[str, str], ...]:
        """Return what finds a group: of one TPP organisation, the one that its first consent belongs to."""
        name = await group_named(self._keeper, group_id)
        root = await self._keeper.lookup(Consent, name)
        if root is None:
            return (("group", name),)
        return (("group", name), ("organisation", root[0].organisation_id))

    async def list_psu(self, call: Call) -> Done | Fault:
        """List the consents of a customer."""
        return await self._list(call, ("psu", call.parameters["userId"]))

    async def list_account(self, call: Call) -> Done | Fault:
        """List the consents of an account or policy."""
        return await self._list(call, ("account", call.parameters["accountId"]))

    async def _list(
        self, call: Call, *where: tuple[str, str | int], stream: bool = False
    ) -> Done | Fault:
        wanted = read_wanted(call.query, stream=stream)
        if isinstance(wanted, Fault):
            return wanted
        unsettled = await settle_due(self._keeper, self._shell.clock, self._shell.dice)
        if unsettled is not None:
            return unsettled
        return await self._page(call, wanted, *where)

    async def _page(self, call: Call, wanted: Wanted, *where: tuple[str, str | int]) -> Done:
        page = await self._keeper.search(query_of(wanted, *where))
        consents = [item.record for item in page.items if isinstance(item.record, Consent)]
        records = [
            consent_record(await self._consumption.current(consent, call.now), call.now)
            for consent in consents
        ]
        body = {"data": records, "meta": meta_of(wanted, page.total)}
        return Done(status=200, body=body)

    async def read(self, call: Call) -> Done | Fault:
        """Return one consent."""
        found = await self._keeper.lookup(Consent, call.parameters["consentId"])
        if found is None:
            return unknown("consentId")
        consent = await self._consumption.current(found[0], call.now)
        record = consent_record(consent, call.now)
        return Done(status=200, body={"data": record, "meta": {}}, consent_id=found[0].id)

    async def history(self, call: Call) -> Done | Fault:
        """Return a consent's history, oldest line first; of more than a thousand changes the newest."""
        found = await self._keeper.lookup(Consent, call.parameters["consentId"])
        if found is None:
            return unknown("consentId")
        page = await self._keeper.search(
            Query(
                kind="consent_change",
                where=(("consent", found[0].id),),
                order="time",
                descending=True,
                limit=_HISTORY_MOST,
            )
        )
        lines = [creation_line(found[0])]
        changes = [item.record for item in reversed(page.items)]
        lines += [record for record in changes if isinstance(record, ConsentChange)]
        entries = [audit_entry(line, self._provider_id) for line in lines]
        return Done(status=200, body={"data": entries, "meta": {}}, consent_id=found[0].id)

    async def patch(self, call: Call) -> Done | Fault:
        """Change a consent as the bank asks."""
        found = await self._keeper.lookup(Consent, call.parameters["consentId"])
        if found is None:
            return unknown("consentId")
        consent, version = found
        body = call.json()
        if isinstance(body, Fault):
            return body
        patch = read_patch(consent.consent_type, body)
        if isinstance(patch, Fault):
            return patch
        personal = self._personal(patch.fields)
        if isinstance(personal, Fault):
            return personal
        changed = apply_patch(consent, patch, call.now_ms)
        if isinstance(changed, Fault):
            return changed
        if changed is consent:
            return Done(consent_id=consent.id)
        changes = await self._changes(call, consent, version, changed, patch.fields)
        if (consent.status, changed.status) == (Status.SUSPENDED, Status.AUTHORIZED):
            changes = (*changes, self._used_up(call, consent.id))
        return Done(
            changes=changes,
            kind=Kind.CONSENT,
            consent_id=consent.id,
            change=change_of(consent, changed),
            approved=changed.digest if changed.digest != consent.digest else "",
            check=personal,
        )

    def _used_up(self, call: Call, consent_id: str) -> Settle:
        """Return what makes a consent Consumed whose last payment became final while it was suspended."""
        return Settle(
            consent_id=consent_id,
            payment="",
            status="",
            now_ms=call.now_ms + 1,  # its line of the history follows that of the patch
            day=local_date(call.now, self._zone),
            line_id=call.dice.uuid(),
            event=consent_event(call, consent_id, "consents.patch"),
            anchored=self._anchored,
        )

    def _personal(self, fields: Mapping[str, Any]) -> str | Fault:
        """Flag or refuse identifiers that are not opaque, as the tenant has it; return the check's name where flagged."""
        flagged = ""
        for path, kind in personal_members(fields) if self._personals != "accept" else ():
            if self._personals == "refuse":
                return caller_fault(
                    400,
                    "Body.InvalidFormat",
                    f"{path}: looks like {kind}; expected an opaque identifier",
                    check=_PERSONAL,
                    path=path,
                )
            self._observer.note(_PERSONAL, member=path, kind=kind)
            flagged = _PERSONAL
        return flagged

    async def revoke(self, call: Call) -> Done | Fault:
        """Revoke one consent and kill its tokens."""
        found = await self._keeper.lookup(Consent, call.parameters["consentId"])
        if found is None:
            return unknown("consentId")
        asked = _revocation_of(call)
        if isinstance(asked, Fault):
            return asked
        revoked_by, _ = asked
        consent, version = found
        changed = revoke(consent, revoked_by, call.now_ms, Party.BANK)
        if isinstance(changed, Fault):
            return changed
        if changed is consent:
            return Done(consent_id=consent.id)
        patch = _revocation_patch(revoked_by)
        return Done(
            changes=await self._changes(call, consent, version, changed, patch),
            kind=Kind.CONSENT,
            consent_id=consent.id,
            change=change_of(consent, changed),
        )

    async def revoke_group(self, call: Call) -> Done | Fault:
        """Revoke every consent of a group, or one customer's of them, that is not in a final state yet.

        A large group is revoked in several commits; only the last one acknowledges it, and what was revoked stays so.
        """
        asked = _revocation_of(call)
        if isinstance(asked, Fault):
            return asked
        revoked_by, user = asked
        group_id = call.parameters["consentGroupId"]
        where = await self._group(group_id)
        page = await self._keeper.search(Query(kind="consent", where=where, limit=1))
        if not page.items:
            return unknown("consentGroupId")
        if revoked_by.endswith("InitiatedByUser") and not user and await self._of_several(where):
            return caller_fault(
                400,
                "Consent.BusinessRuleViolation",
                "revokedByPsu.userId: the group has consents of several customers; say whose",
                check="consent.group_customers",
                path="revokedByPsu.userId",
            )
        if user:
            where = (*where, ("psu", user))
        while True:
            changes, events, last = await self._revocations(call, revoked_by, where)
            if last:
                return Done(changes=changes, events=events, subject=group_id, change="revoke")
            committed = await self._keeper.commit(changes, events)
            if isinstance(committed, Fault):
                return committed
            call = msgspec.structs.replace(call, now_ms=self._shell.clock.now_ms())

    async def _of_several(self, where: tuple[tuple[str, str], ...]) -> bool:
        """Tell whether consents belong to more than one customer."""
        offset, users = 0, set[str]()
        while len(users) < 2:
            page = await self._keeper.search(
                Query(kind="consent", where=where, offset=offset, limit=_PAGE)
            )
            users |= {_user(item.record) for item in page.items} - {""}
            offset += _PAGE
            if len(page.items) < _PAGE:
                break
        return len(users) > 1

    async def _revocations(
        self, call: Call, revoked_by: str, where: tuple[tuple[str, str], ...]
    ) -> tuple[tuple[Change, ...], tuple[Event, ...], bool]:
        """Return what revokes the next consents that are not final yet, and whether they are the last."""
        due = (("due", call.now + 1),)
        page = await self._keeper.search(
            Query(kind="consent", where=where, order="due", at_least=due, limit=_BATCH)
        )
        changes: list[Change] = []
        events: list[Event] = []
        patch = _revocation_patch(revoked_by)
        for item in page.items:
            if not isinstance(consent := item.record, Consent):
                continue
            changed = revoke(consent, revoked_by, call.now_ms, Party.BANK)
            if isinstance(changed, Fault):
                continue
            changes += await self._changes(call, consent, item.version, changed, patch)
            events.append(
                consent_event(
                    call, consent.id, "consents.revoke-group", change_of(consent, changed)
                )
            )
        return tuple(changes), tuple(events), len(page.items) < _BATCH or not changes

    async def _changes(
        self, call: Call, consent: Consent, version: int, changed: Consent, patch: dict[str, Any]
    ) -> tuple[Change, ...]:
        peer = call.request.peer
        line = history_line(
            consent,
            line_id=call.dice.uuid(),
            time_ms=call.now_ms,
            interaction_id=call.interaction_id,
            patch=patch,
            organisation_id=peer.organisation_id,
            client_id=peer.client_id,
        )
        changes: tuple[Change, ...] = (Put(changed, version), Put(line, 0))
        if changed.status is Status.REVOKED:
            changes += await revocation_of(self._keeper, consent.id, call.now)
        return changes


def _user(record: Record) -> str:
    """Return whose consent it is; empty while nobody knows."""
    known = record.psu_identifiers if isinstance(record, Consent) else None
    return str((known or {}).get("userId", ""))


def _revocation_of(call: Call) -> tuple[str, str] | Fault:
    """Return by whom, and for which customer if the bank says so."""
    body = call.json()
    if isinstance(body, Fault):
        return body
    wrong = _REVOCATION(body)
    if wrong is not None:
        where = wrong.path.removeprefix(".") or "body"
        return caller_fault(
            400, "Body.InvalidFormat", f"{where}: {wrong.expected}", check="lfi.body", path=where
        )
    return str(body["revokedBy"]), str(body.get("revokedByPsu", {}).get("userId", ""))


def _revocation_patch(revoked_by: str) -> dict[str, Any]:
    return {
        "consentBody.Data.Status": str(Status.REVOKED),
        "consentBody.Data.RevokedBy": revoked_by,
    }


def consent_event(call: Call, consent_id: str, route: str, change: str = "") -> Event:
    """Make the event of a consent that changed beside what the request is about."""
    peer = call.request.peer
    return Event(
        kind=Kind.CONSENT,
        time_ms=call.now_ms,
        interaction_id=call.interaction_id,
        face=Face.LFI,
        client_id=peer.client_id,
        organisation_id=peer.organisation_id,
        x5t_s256=peer.x5t_s256,
        consent_id=consent_id,
        route=route,
        change=change,
    )


def change_of(old: Consent, new: Consent) -> str:
    """Return the change as events tell it: both states, or ``patch`` where the state stayed."""
    return "patch" if old.status is new.status else f"{old.status}>{new.status}"


def unknown(name: str) -> Fault:
    """Return the Fault for an id that is not here."""
    return caller_fault(
        404, "Resource.InvalidFormat", f"{name}: is not known here", check="lfi.unknown", path=name
    )
