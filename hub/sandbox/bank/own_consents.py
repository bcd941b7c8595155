"""The page on which a customer sees what was agreed to, stops it, or approves as the second signatory (CMI).

The list is the Hub's (``GET /psu/{userId}/consents``), never a copy of ours; stopping is the revoke action, so that tokens end
with the consent. The second signatory's consents are those that this bank knows to be waiting.
"""

import logging
from typing import Any, Final, final

import msgspec

from hub.model.clock import Clock
from hub.sandbox.bank.book import Book
from hub.sandbox.bank.deciding import CHANNEL, authorizers
from hub.sandbox.bank.hub import Hub, HubTrouble
from hub.sandbox.bank.people import Customer
from hub.sandbox.bank.rendering import Form, Renderer, field
from hub.sandbox.bank.sessions import Session
from hub.sandbox.bank.wording import Ask, ask_of, in_words
from hub.sandbox.site import SiteResponse

Json = dict[str, Any]
LOG: Final = logging.getLogger("hub.sandbox.bank")
_STATES: Final = {
    "Authorized": "Active",
    "AwaitingAuthorization": "Pending",
    "Revoked": "Cancelled",
}
_REVOCABLE: Final = frozenset({"AwaitingAuthorization", "Authorized", "Suspended"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one consent as the page shows it."""

    id: str
    ask: Ask
    state: str
    accounts: str
    used: str
    may_revoke: bool
    may_approve: bool


@final
class OwnConsents:
    """Show and change a logged-in customer's consents."""

    __slots__ = ("_book", "_clock", "_hub", "_show")

    def __init__(self, *, book: Book, hub: Hub, clock: Clock, show: Renderer) -> None:
        """Take what it works with."""
        self._book = book
        self._hub = hub
        self._clock = clock
        self._show = show

    async def page(
        self, session: Session, customer: Customer, done: str = "", problem: str = ""
    ) -> SiteResponse:
        """Show the customer's consents."""
        try:
            rows = await self._rows(customer)
        except HubTrouble as trouble:
            return self._away(trouble)
        return self._show.page("consents.html", 200, session, rows=rows, done=done, problem=problem)

    async def change(self, session: Session, customer: Customer, form: Form) -> SiteResponse:
        """Carry out what the customer wants of one consent."""
        consent_id = field(form, "consent")
        try:
            rows = {row.id: row for row in await self._rows(customer)}
            done = await self._changed(rows.get(consent_id), customer, field(form, "decision"))
        except HubTrouble as trouble:
            return self._away(trouble)
        if done:
            return await self.page(session, customer, done=done)
        return await self.page(session, customer, problem="That is not possible any more.")

    async def _changed(self, row: Row | None, customer: Customer, decision: str) -> str:
        if row is not None and decision == "revoke" and row.may_revoke:
            await self._hub.revoke(row.id, customer.user_id)
            return f"{row.ask.who} has no access any more."
        if row is not None and decision == "approve" and row.may_approve:
            await self._approve(row.id, customer)
            return "You have approved."
        if row is not None and decision == "decline" and row.may_approve:
            change = {"consentBody.Data.Status": "Rejected", "authorizationChannel": CHANNEL}
            await self._hub.patch(row.id, change)
            return "You have declined."
        return ""

    async def _approve(self, consent_id: str, customer: Customer) -> None:
        granted = self._book.granted(consent_id)
        account = self._book.account(granted.accounts[0]) if granted is not None else None
        if granted is None or account is None:
            return
        approvals = (*granted.approvals, customer.user_id)
        change: Json = {
            "psuIdentifiers": {"userId": granted.user_id},
            "accountIds": list(granted.accounts),
            "authorizationChannel": CHANNEL,
            "consentBody.Meta.MultipleAuthorizers": authorizers(
                account, approvals, self._clock.now()
            ),
        }
        if len(approvals) >= account.signatures:
            change["consentBody.Data.Status"] = "Authorized"
        await self._hub.patch(consent_id, change)
        self._book.grant(consent_id, msgspec.structs.replace(granted, approvals=approvals))

    async def _rows(self, customer: Customer) -> list[Row]:
        waiting = self._book.waiting_for(customer)
        records = await self._hub.consents_of(customer.user_id)
        known = {str(record.get("id", "")) for record in records}
        records += [await self._hub.consent(c) for c in waiting if c not in known]
        return [self._row(record, customer, waiting) for record in records]

    def _row(self, record: Json, customer: Customer, waiting: list[str]) -> Row:
        consent_id, status = str(record.get("id", "")), str(record.get("status", ""))
        usage = record.get("consentUsage")
        used = str(usage.get("lastDataShared", "")) if isinstance(usage, dict) else ""
        accounts = [self._book.account(str(a)) for a in record.get("accountIds") or []]
        theirs = (record.get("psuIdentifiers") or {}).get("userId") == customer.user_id
        return Row(
            id=consent_id,
            ask=ask_of(record, ""),
            state=_STATES.get(status, status),
            accounts=", ".join(f"{a.nickname} {a.number[-4:]}" for a in accounts if a is not None),
            used=in_words(used),
            may_revoke=theirs and status in _REVOCABLE,
            may_approve=consent_id in waiting and status == "AwaitingAuthorization",
        )

    def _away(self, trouble: HubTrouble) -> SiteResponse:
        LOG.warning("the Hub did not answer as documented: %s", trouble)
        return self._show.error(502, "Please try again", "We could not reach the service.")
