"""Consents as TPPs read and revoke them: routes whose target is the Hub.

A consent is its client's alone: another's, and one that does not exist, get the same answer. A TPP revokes from Awaiting,
Authorized or Suspended; revoking what is revoked is no error; a patch may also only change the subscription.

Source: routes.md T22; decisions.md sections 2 and 4.
"""

from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from hub.contract import Contract
from hub.gateway.files import FILE_PAYMENT
from hub.gateway.values import Access, Call, Reply, permissions_of
from hub.model.clock import Dice
from hub.model.consent import TERMINAL, Consent, ConsentType, Party, Status, status_at
from hub.model.consent_change import as_of, date_time_of
from hub.model.consent_history import history_line
from hub.model.consent_patch import revoke
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault
from hub.model.records import Payment
from hub.model.terms import Face
from hub.state.allowance import Consumption
from hub.state.group import group_named
from hub.state.keeper import Change, Keeper, Put, Query
from hub.state.revocation import revocation_of
from hub.trust.view import TrustView

_TPP: Final = frozenset({"TPP", "TPP.InitiatedByUser"})
_INSURANCE: Final = "insurance"
_MOST: Final = 1000


class Consents:
    """Serve the consents of one family."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        contract: Contract,
        trust: TrustView,
        dice: Dice,
        resource_base: str,
        consumption: Consumption,
    ) -> None:
        """Take what consents ask.

        Args:
            keeper: The store.
            contract: Shows a consent as its family has it.
            trust: Knows the clients.
            dice: Names lines of history.
            resource_base: Our own base URL.
            consumption: Brings what payments have taken up to date.
        """
        self._consumption = consumption
        self._keeper = keeper
        self._trust = trust
        self._contract = contract
        self._dice = dice
        self._resource_base = resource_base

    async def listed(self, call: Call, access: Access) -> Reply | Fault:
        """Return the client's consents of one group; with a customer's token, that customer's alone.

        Cancellation: harmless.
        """
        asked = dict(parse_qsl(call.request.query, keep_blank_values=True))
        group = asked.get("baseConsentId", asked.get("BaseConsentId"))
        if group:
            group = await group_named(self._keeper, group)
        page = await self._keeper.search(
            Query(
                kind="consent",
                where=(
                    *((("group", group),) if group is not None else ()),
                    ("client", access.caller.client_id),
                    ("type", call.route.consent_types[0]),
                ),
                order="updated",
                descending=True,
                limit=_MOST,
            )
        )
        found = [
            self._shown(
                await self._consumption.current(v.record, call.now),
                call,
                await self.related(v.record),
            )
            for v in reversed(page.items)
            if isinstance(v.record, Consent)
            and v.record.standard_version == call.route.version
            and _same_customer(access.consent, v.record)
        ]
        value = self._whole(call, found) if call.route.family == _INSURANCE else found
        return Reply(status=200, value=self._contract.project(call.route.id, value))

    def _whole(self, call: Call, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a list as the insurance family has it: one object, one page."""
        link = f"{self._resource_base}{call.route.path}?{call.request.query}"
        return {
            "Data": [one["Data"] for one in found],
            "Links": {"Self": link},
            "Meta": {"TotalPages": 1},
        }

    async def read(self, call: Call, access: Access) -> Reply | Fault:
        """Return one consent.

        Cancellation: harmless.
        """
        found = await self._own(call, access)
        if isinstance(found, Fault):
            return found
        consent = await self._consumption.current(found[0], call.now)
        shown = self._contract.project(
            call.route.id, self._shown(consent, call, await self.related(consent))
        )
        return Reply(status=200, value=shown)

    async def patch(self, call: Call, access: Access, body: dict[str, Any]) -> Reply | Fault:
        """Revoke a consent, or change its subscription.

        Faults: 400 ``Body.InvalidFormat`` (a ``RevokedBy`` that is not a TPP's, an address that is not https),
        ``Consent.BusinessRuleViolation`` (a final state, an address that is not registered, no key to encrypt to),
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
        if _webhook(changed) != _webhook(found[0]):
            keyed = self._trust.encryption_key(access.caller.client_id) is not None
            fault = subscription_fault(_webhook(changed), access.caller.webhook_uris, keyed=keyed)
            if fault is not None:
                return fault
        changes = await self._changes(call, access, found, changed)
        return Reply(status=204, changes=changes, events=(_event(call, access, found[0], changed),))

    async def _changes(
        self, call: Call, access: Access, found: tuple[Consent, int], changed: Consent
    ) -> tuple[Change, ...]:
        """Return the consent, the line of its history, and the end of its tokens: one commit."""
        consent, version = found
        line = history_line(
            consent,
            line_id=self._dice.uuid(),
            time_ms=call.now_ms,
            interaction_id=call.interaction_id,
            patch=_told(consent, changed),
            organisation_id=access.caller.organisation_id,
            client_id=access.caller.client_id,
            software_statement_id=access.caller.software_statement_id,
        )
        changes: tuple[Change, ...] = (Put(changed, expect=version), Put(line, expect=0))
        if changed.status is Status.REVOKED:
            changes += await revocation_of(self._keeper, consent.id, call.now)
        return changes

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

    async def related(self, consent: Consent) -> list[str]:
        """Return where the payments of a consent are read, oldest first; none of a consent to anything else.

        Of more than a thousand they are the newest.

        Cancellation: harmless.
        """
        if consent.consent_type is not ConsentType.SERVICE_INITIATION:
            return []
        page = await self._keeper.search(
            Query(
                kind="payment",
                where=(("consent", consent.id),),
                order="created",
                descending=True,
                limit=_MOST,
            )
        )
        base = f"{self._resource_base}/open-finance/payment/{consent.standard_version}"
        kinds = {FILE_PAYMENT: "file-payments"}
        return [
            f"{base}/{kinds.get(v.record.payment_type, 'payments')}/{v.record.id}"
            for v in reversed(page.items)
            if isinstance(v.record, Payment)
        ]

    def _shown(self, consent: Consent, call: Call, related: list[str]) -> dict[str, Any]:
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
            links["Related"] = related
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
    if isinstance(changed, Fault) or not body.get("Subscription"):
        return changed
    held = _webhook(changed)
    webhook = {**held, **body["Subscription"].get("Webhook", {})}
    if webhook == held:
        return changed
    if (status := status_at(consent, now_ms // 1000)) in TERMINAL:
        text = f"/Subscription: the consent is {status}, which is final; nothing in it changes"
        return _refused("Consent.BusinessRuleViolation", text)
    new_body = {**changed.body, "Subscription": {"Webhook": webhook}}
    return msgspec.structs.replace(changed, body=new_body, updated_ms=now_ms)


def subscription_fault(
    webhook: dict[str, Any], registered: tuple[str, ...], *, keyed: bool
) -> Fault | None:
    """Return why a client may not be told at an address; only an active subscription is judged (decisions.md 2).

    Args:
        webhook: As it would be from now on.
        registered: The addresses that the Trust Framework has of the client.
        keyed: Whether the client has published a key to encrypt to.
    """
    if not webhook.get("IsActive"):
        return None
    url = webhook.get("Url", "")
    if not url.startswith("https://"):
        return _refused("Body.InvalidFormat", "/Subscription/Webhook/Url: expected https")
    if url not in registered:
        text = "/Subscription/Webhook/Url: expected a registered one"
        return _refused("Consent.BusinessRuleViolation", text)
    if not keyed:
        text = "/Subscription: expected an encryption key in the client's key set"
        return _refused("Consent.BusinessRuleViolation", text)
    return None


def _refused(code: str, text: str) -> Fault:
    return caller_fault(400, code, text, check="consent.subscription", path=text.partition(":")[0])


def _webhook(consent: Consent) -> dict[str, Any]:
    """Return the webhook of a consent's subscription, empty where there is none."""
    subscription = consent.body.get("Subscription") or {}
    return dict(subscription.get("Webhook") or {})


def _same_customer(consent: Consent | None, other: Consent) -> bool:
    """Tell whether a customer's token may see another consent of its group: the same customer's, or nobody's yet."""
    if consent is None or consent.id == other.id or other.psu_identifiers is None:
        return True
    held = consent.psu_identifiers or {}
    return held.get("userId") == other.psu_identifiers.get("userId")


def _told(old: Consent, new: Consent) -> dict[str, Any]:
    """Return what a line of history says of a change."""
    told: dict[str, Any] = {}
    if new.status is not old.status:
        data = new.body["Data"]
        told["consentBody.Data.Status"] = str(new.status)
        told["consentBody.Data.RevokedBy"] = data["RevokedBy"]
    if new.body.get("Subscription") != old.body.get("Subscription"):
        told["consentBody.Subscription"] = new.body["Subscription"]
    return told


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
