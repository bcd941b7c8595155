"""The journey of a payment that needs two signatories: the TPP follows their progress, and pays after the second one (consents.md section 7)."""

from typing import Any, Final, final

from hub.sandbox.manifest import CustomerSection
from hub.sandbox.paying import AMOUNT, CONSENT_S, CREDITOR, PayingTravel
from hub.sandbox.tpp import Ask, Discovery, Refused, Tpp, Wire, serve_callbacks
from hub.sandbox.tpp.payment import PAYMENT_SCOPE, payment_consent, read_signed, seal
from hub.sandbox.travel import Stopped, at, got

CONSENTS: Final = "/open-finance/payment/v2.1/payment-consents"
SIGNATORIES: Final = ("noura", "yusuf")
"""Customers of the model bank who can move their company's money only together."""


@final
class ApproversJourney(PayingTravel):
    """Take one payment past two signatories, each at the bank's own pages."""

    async def run(self, *, decline: bool) -> None:
        """Travel; with ``decline`` it is the second signatory who declines.

        Raises:
            Stopped: Something was refused that should not have been, or passed that should have been refused.
        """
        first, second = (self._customer(name) for name in SIGNATORIES)
        self.person, tell = first, self.narrator
        tell.title(
            f"{self.section.name} asks for AED {AMOUNT}: {first.name} and {second.name} must both approve"
        )
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            bank_keys = await self.bank_keys(tpp, discovery)
            consent_id = self.dice.uuid()
            detail = payment_consent(
                consent_id=consent_id,
                expires=self.clock.now() + CONSENT_S,
                amount=AMOUNT,
                sealed=got("sealing", seal(self.identity, bank_keys, {"Creditor": [CREDITOR]})),
            )
            detail["consent"]["IsSingleAuthorization"] = False
            asks = f"one payment of AED {AMOUNT}, by several approvers"
            pushed = await self.push(tpp, discovery, detail, PAYMENT_SCOPE, asks)
            await self.consent(discovery, pushed, PAYMENT_SCOPE, decline=False, most=1)
            came = await self.came_back(callbacks, pushed, discovery, decline=False)
            if came is None:
                raise Stopped("the first signatory declined")
            tokens = await self.redeem(tpp, discovery, came, pushed)
            hub_keys = await self.document(tpp, discovery.jwks_uri)
            await self._progress(tpp, discovery, consent_id, hub_keys, "AwaitingAuthorization")
            sealed = got("sealing", seal(self.identity, bank_keys, CREDITOR))
            order = {"consent_id": consent_id, "amount": AMOUNT, "sealed": sealed}
            early = await self.order(
                tpp, discovery, tokens, hub_keys, key=self.dice.uuid(), **order
            )
            self._refused(early)
            await self.at_own_page(consent_id, "decline" if decline else "approve", second)
            tell.step(
                f"{second.name} {'declines' if decline else 'approves'} at the bank's page",
                "no TPP and no interaction is concerned: the bank changes the Hub's record",
            )
            await self._progress(
                tpp, discovery, consent_id, hub_keys, "Rejected" if decline else "Authorized"
            )
            late = await self.order(tpp, discovery, tokens, hub_keys, key=self.dice.uuid(), **order)
            if decline:
                self._refused(late)
            else:
                message = got("the payment", late)
                tell.step(
                    f"POST /payments: payment {at(message, 'Data', 'PaymentId')} is made",
                    "the token is the one from before: what it may do is read from the consent",
                )
        ending = "it was never paid" if decline else "it was paid after both had approved"
        tell.good(f"Done: {ending}.")

    def _customer(self, username: str) -> CustomerSection:
        for person in self.manifest.customers:
            if person.username == username:
                return person
        raise Stopped(f"the bank has no customer {username}")

    def _refused(self, answer: dict[str, Any] | Refused) -> None:
        if not isinstance(answer, Refused):
            raise Stopped("a payment passed without both approvals")
        self.narrator.step(
            f"POST /payments is refused: {answer.line}",
            "tokens come early where several must approve, but open nothing before the last one has",
        )

    async def _progress(
        self, tpp: Tpp, discovery: Discovery, consent_id: str, hub_keys: dict[str, Any], wanted: str
    ) -> None:
        own = got("the TPP's own token", await tpp.client_credentials(discovery, PAYMENT_SCOPE))
        url = f"{self.manifest.hub.resource_base}{CONSENTS}/{consent_id}"
        headers = {"authorization": f"Bearer {own.access_token}", "accept": "application/jwt"}
        answer = await tpp.wire.carry(Ask(method="GET", url=url, headers=headers))
        message = got("the consent", read_signed(answer, hub_keys, discovery.issuer))
        status = at(message, "Data", "Status")
        approvals = at(message, "Meta", "MultipleAuthorizers", "Authorizations") or []
        if status != wanted:
            raise Stopped(f"the consent is {status}, not {wanted}")
        told = ", ".join(str(one.get("AuthorizationStatus")) for one in approvals)
        self.narrator.step(
            f"The TPP reads its consent: {status} ({told or 'no approvals yet'})",
            "the progress of the approvers is in Meta.MultipleAuthorizers, as the bank patched it",
        )
