"""A logged-in customer decides on a consent: the page, and what follows from it.

The consent is changed first (``PATCH /consents/{id}``), the interaction ended after it (``doConfirm``, ``doFail``). What the
customer may choose is decided here, whatever the form says. A payment from an account with two signatories leaves the
consent waiting for the second one, with the first approval noted; the interaction ends with a code all the same.

Errors are told with the documented vocabulary: ``access_denied`` with ``user_rejected_consent`` or
``consent_not_supported``, ``invalid_request`` with ``user_lacks_eligible_accounts`` or
``user_does_not_own_debtor_account``, ``server_error`` with ``api_hub_communication_error``.
"""

import logging
from typing import Any, Final, final

from hub.model.clock import Clock
from hub.sandbox.bank.book import Book, Granted
from hub.sandbox.bank.calendar import timestamp
from hub.sandbox.bank.hub import Hub, HubTrouble, Interaction
from hub.sandbox.bank.people import CUSTOMERS, Account, Customer
from hub.sandbox.bank.pii import PiiReader, Unreadable, creditors_of, debtor_of
from hub.sandbox.bank.rendering import Form, Renderer, field, sent_to
from hub.sandbox.bank.sessions import Session
from hub.sandbox.bank.wording import (
    ACCOUNT_ACCESS,
    SERVICE_INITIATION,
    ask_of,
    choices,
    consent_of,
    eligible,
)
from hub.sandbox.site import SiteResponse

Json = dict[str, Any]
LOG: Final = logging.getLogger("hub.sandbox.bank")
CHANNEL: Final = "Web"


def authorizers(account: Account, approved: tuple[str, ...], now: int) -> Json:
    """Return the progress of an account's signatories: who approved, who has not yet."""
    signatories = [c.user_id for c in CUSTOMERS if account.id in c.accounts]
    return {
        "TotalRequired": account.signatures,
        "Authorizations": [
            {
                "AuthorizerId": user_id,
                "AuthorizationDate": timestamp(now),
                "AuthorizationStatus": "Approved",
            }
            if user_id in approved
            else {"AuthorizerId": user_id, "AuthorizationStatus": "Pending"}
            for user_id in signatories[: account.signatures]
        ],
    }


@final
class Deciding:
    """Show what is asked, and carry out what the customer decides."""

    __slots__ = ("_book", "_clock", "_hub", "_pii", "_show")

    def __init__(
        self, *, book: Book, hub: Hub, clock: Clock, show: Renderer, pii: PiiReader
    ) -> None:
        """Take what it works with."""
        self._pii = pii
        self._book = book
        self._hub = hub
        self._clock = clock
        self._show = show

    async def page(
        self, session: Session, interaction: Interaction, customer: Customer
    ) -> SiteResponse:
        """Read the consent and show it; where it cannot be given, end the interaction."""
        try:
            record = await self._hub.consent(interaction.consent_id)
        except HubTrouble as trouble:
            return await self._trouble(session, interaction, trouble)
        known = record.get("consentType") in {ACCOUNT_ACCESS, SERVICE_INITIATION}
        if not known or self._sealed(record) is None:
            return await self.fail(
                session, interaction, "access_denied", "consent_not_supported", reject=True
            )
        if not self._eligible(customer, record):
            named = debtor_of(self._sealed(record) or {})
            why = "user_does_not_own_debtor_account" if named else "user_lacks_eligible_accounts"
            return await self.fail(session, interaction, "invalid_request", why, reject=True)
        return self._asked(session, interaction, customer, record)

    def _sealed(self, record: Json) -> Json | None:
        """Return what a payment consent's sealed part holds, empty where there is none; None where it is unreadable."""
        sealed = consent_of(record).get("PersonalIdentifiableInformation")
        if sealed is None:
            return {}
        try:
            return self._pii.read(sealed)
        except Unreadable:
            return None

    def _eligible(self, customer: Customer, record: Json) -> list[Account]:
        """Return the accounts that may be chosen: where the consent names the debtor's account, that one at most."""
        accounts = eligible(self._book, customer, record)
        named = debtor_of(self._sealed(record) or {})
        return [a for a in accounts if a.iban == named] if named else accounts

    def _asked(
        self,
        session: Session,
        interaction: Interaction,
        customer: Customer,
        record: Json,
        problem: str = "",
    ) -> SiteResponse:
        session.add(interaction)
        session.deciders[interaction.id] = customer
        self._book.catch_up()
        accounts = self._eligible(customer, record)
        ask = ask_of(record, interaction.tpp_name)
        only = [accounts[0].id] if len(accounts) == 1 else []
        return self._show.page(
            "consent.html",
            400 if problem else 200,
            session,
            problem=problem,
            interaction=interaction,
            ask=ask,
            payees=[f"{name}, {iban}" for iban, name in creditors_of(self._sealed(record) or {})],
            choices=choices(self._book, accounts),
            chosen=only,
        )

    async def decide(
        self, session: Session, interaction: Interaction, customer: Customer, form: Form
    ) -> SiteResponse:
        """Carry out a decision; while that goes on, the same form sent again finds no interaction."""
        session.drop(interaction.id)
        decision = field(form, "decision")
        if decision == "decline":
            return await self.fail(
                session, interaction, "access_denied", "user_rejected_consent", reject=True
            )
        if decision != "approve":
            return await self.page(session, interaction, customer)
        try:
            record = await self._hub.consent(interaction.consent_id)
            accounts = self._eligible(customer, record)
            chosen = [a for a in accounts if a.id in form.get("account", [])]
            payment = record.get("consentType") == SERVICE_INITIATION
            problem = _problem(chosen, payment=payment)
            if problem:
                return self._asked(session, interaction, customer, record, problem)
            await self._approve(interaction, customer, chosen, record, payment=payment)
            redirect = await self._hub.confirm(interaction.id)
        except HubTrouble as trouble:
            return await self._trouble(session, interaction, trouble)
        return sent_to(redirect)

    async def _approve(
        self,
        interaction: Interaction,
        customer: Customer,
        chosen: list[Account],
        record: Json,
        *,
        payment: bool,
    ) -> None:
        ids = tuple(account.id for account in chosen)
        granted = Granted(
            user_id=customer.user_id,
            accounts=ids,
            kind="payment" if payment else "account-access",
            approvals=(customer.user_id,),
            creditors=creditors_of(self._sealed(record) or {}),
        )
        change: Json = {
            "psuIdentifiers": {"userId": customer.user_id},
            "accountIds": list(ids),
            "authorizationChannel": CHANNEL,
        }
        if payment and chosen[0].signatures > 1:
            progress = authorizers(chosen[0], granted.approvals, self._clock.now())
            change["consentBody.Meta.MultipleAuthorizers"] = progress
        else:
            change["consentBody.Data.Status"] = "Authorized"
        self._book.grant(interaction.consent_id, granted)
        await self._hub.patch(interaction.consent_id, change)

    async def fail(
        self,
        session: Session,
        interaction: Interaction,
        error: str,
        description: str,
        *,
        reject: bool,
    ) -> SiteResponse:
        """End an interaction with an error for the TPP; ``reject`` turns the consent down first."""
        session.drop(interaction.id)
        change = {"consentBody.Data.Status": "Rejected", "authorizationChannel": CHANNEL}
        try:
            if reject:
                await self._hub.patch(interaction.consent_id, change)
        except HubTrouble as trouble:
            LOG.warning("a consent could not be rejected: %s", trouble)
            error, description = "server_error", "api_hub_communication_error"
        try:
            return sent_to(await self._hub.fail(interaction.id, error, description))
        except HubTrouble as trouble:
            LOG.warning("an interaction could not be ended: %s", trouble)
            return self._show.error(
                502, "Something went wrong", "We could not reach the service. Nothing was agreed."
            )

    async def _trouble(
        self, session: Session, interaction: Interaction, trouble: HubTrouble
    ) -> SiteResponse:
        LOG.warning("the Hub did not answer as documented: %s", trouble)
        return await self.fail(
            session, interaction, "server_error", "api_hub_communication_error", reject=False
        )


def _problem(chosen: list[Account], *, payment: bool) -> str:
    if payment and len(chosen) != 1:
        return "Please choose the account to pay from."
    if not chosen:
        return "Please choose at least one account, or decline."
    return ""
