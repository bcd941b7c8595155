"""Consents as TPPs read and revoke them: routes whose target is the Hub.

A consent is its client's alone: another's, and one that does not exist, get the same answer. A TPP revokes from Awaiting,
Authorized or Suspended; revoking what is revoked is no error; a patch may also only change the subscription.

Source: routes.md T22; decisions.md sections 2 and 4.
"""

from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from hub.contract import Contract
from hub.gateway.values import Access, Call, Reply, permissions_of
from hub.model.consent import Consent, Party, Status, status_at
from hub.model.consent_change import as_of, date_time_of
from hub.model.consent_patch import revoke
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault
from hub.model.terms import Face
from hub.state.keeper import Keeper, Put, Query

_TPP: Final = frozenset({"TPP", "TPP.InitiatedByUser"})


class Consents:
    """Serve the consents of one family."""

    def __init__(self, *, keeper: Keeper, contract: Contract, resource_base: str) -> None:
        """Take the store, the contract and our own base URL."""
        self._keeper = keeper
        self._contract = contract
        self._resource_base = resource_base

    async def listed(self, call: Call, access: Access) -> Reply | Fault:
        """Return the client's consents of one group.

        Cancellation: harmless.
        """
        group = dict(parse_qsl(call.request.query)).get("baseConsentId")
        page = await self._keeper.search(
            Query(
                kind="consent",
                where=(
                    *((("group", group),) if group is not None else ()),
                    ("client", access.caller.client_id),
                    ("type", call.route.consent_types[0]),
                ),
                order="updated",
                limit=1000,
            )
        )
        found = [
            self._shown(v.record, call)
            for v in page.items
            if isinstance(v.record, Consent) and v.record.standard_version == call.route.version
        ]
        return Reply(status=200, value=self._contract.project(call.route.id, found))

    async def read(self, call: Call, access: Access) -> Reply | Fault:
        """Return one consent.

        Cancellation: harmless.
        """
        found = await self._own(call, access)
        if isinstance(found, Fault):
            return found
        shown = self._contract.project(call.route.id, self._shown(found[0], call))
        return Reply(status=200, value=shown)

    async def patch(self, call: Call, access: Access, body: dict[str, Any]) -> Reply | Fault:
        """Revoke a consent, or change its subscription.

        Faults: 400 ``Body.InvalidFormat`` (a ``RevokedBy`` that is not a TPP's), ``Consent.BusinessRuleViolation``,
        ``Resource.InvalidFormat`` for an unknown or foreign id.

        Cancellation: harmless; the change is made by the commit of the event.
        """
        data = body.get("Data") or {}
        revoked_by = data.get("RevokedBy", "TPP")
        if revoked_by not in _TPP:
            text = "/Data/RevokedBy: expected TPP or TPP.InitiatedByUser"
            return caller_fault(
                400, "Body.InvalidFormat", text, check="consent.revoked_by", path="/Data/RevokedBy"
            )
        found = await self._own(call, access)
        if isinstance(found, Fault):
            return found
        changed = patched(found[0], body, revoked_by, call.now_ms)
        if isinstance(changed, Fault):
            return changed
        if changed is found[0]:
            return Reply(status=204)
        event = _event(call, access, found[0], changed)
        return Reply(status=204, changes=(Put(changed, expect=found[1]),), events=(event,))

    async def attached(self, call: Call, access: Access) -> Access | Fault:
        """Return the access with the consent that the path names, where it is the client's own and permits the call.

        Faults: those of ``read``; 403 ``AccessToken.InvalidScope``, check ``enforce.permission``.

        Cancellation: harmless.
        """
        found = await self._own(call, access)
        if isinstance(found, Fault):
            return found
        if call.route.permissions and not permissions_of(found[0]) & set(call.route.permissions):
            text = f"The consent lacks the permission {' or '.join(call.route.permissions)}."
            return caller_fault(403, "AccessToken.InvalidScope", text, check="enforce.permission")
        return msgspec.structs.replace(access, consent=found[0], version=found[1])

    async def _own(self, call: Call, access: Access) -> tuple[Consent, int] | Fault:
        found = await self._keeper.lookup(Consent, call.parameters["ConsentId"])
        if (
            found is None
            or found[0].client_id != access.caller.client_id
            or found[0].consent_type not in call.route.consent_types
            or found[0].standard_version != call.route.version
        ):
            if call.route.finds:
                return caller_fault(404, "", "", check="consent.unknown")
            text = "There is no such consent."
            return caller_fault(400, "Resource.InvalidFormat", text, check="consent.unknown")
        return found

    def _shown(self, consent: Consent, call: Call) -> dict[str, Any]:
        current = as_of(consent, call.now_ms)
        data = {
            "CreationDateTime": date_time_of(current.created_ms // 1000),
            "StatusUpdateDateTime": date_time_of(current.updated_ms // 1000),
            **current.body.get("Data", {}),
            "ConsentId": current.id,
            "Status": str(current.status),
        }
        base = call.route.path.partition("/{")[0]
        links: dict[str, Any] = {"Self": f"{self._resource_base}{base}/{current.id}"}
        if call.route.family == "payment":
            links["Related"] = []
        shown = {"Data": data, "Links": links, "Meta": current.body.get("Meta") or {}}
        subscription = current.body.get("Subscription")
        return {**shown, "Subscription": subscription} if subscription else shown


def patched(
    consent: Consent, body: dict[str, Any], revoked_by: str, now_ms: int
) -> Consent | Fault:
    """Decide a TPP's patch; the very same object comes back if nothing changes."""
    changed: Consent | Fault = consent
    if body.get("Data"):
        changed = revoke(consent, revoked_by, now_ms, Party.TPP)
    subscription = body.get("Subscription")
    if isinstance(changed, Fault) or not subscription:
        return changed
    held = changed.body.get("Subscription", {}).get("Webhook", {})
    webhook = {**held, **subscription.get("Webhook", {})}
    if webhook == held:
        return changed
    new_body = {**changed.body, "Subscription": {**subscription, "Webhook": webhook}}
    return msgspec.structs.replace(changed, body=new_body, updated_ms=now_ms)


def _event(call: Call, access: Access, old: Consent, new: Consent) -> Event:
    before, after = status_at(old, call.now), new.status
    change = f"{before}>{after}" if after is Status.REVOKED else "subscription"
    return Event(
        kind=Kind.CONSENT,
        time_ms=call.now_ms,
        interaction_id=call.interaction_id,
        face=Face.TPP,
        client_id=access.caller.client_id,
        organisation_id=access.caller.organisation_id,
        consent_id=new.id,
        route=call.route.id,
        subject=new.id,
        change=change,
    )
