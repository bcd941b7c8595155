"""The payment journey step by step: sealed personal data, consent, one signed order, its signed answer (journeys.md section 3)."""

from typing import Any, Final, final

from hub.sandbox.tpp import Ask, Discovery, Refused, Tokens, Tpp, Wire, serve_callbacks
from hub.sandbox.tpp.payment import (
    PAYMENT_SCOPE,
    creditor,
    payment_consent,
    read_signed,
    request_payment,
    seal,
)
from hub.sandbox.travel import Stopped, Travel, at, got

PAYMENTS: Final = "/open-finance/payment/v2.1/payments"
CONSENT_S: Final = 86_400
AMOUNT: Final = "12.50"
CREDITOR: Final = creditor("AE460261001234567891234", "Sample Shop LLC")


class PayingTravel(Travel):
    """What journeys with payments have in common: the bank's keys, and an order with its signed answer."""

    async def bank_keys(self, tpp: Tpp, discovery: Discovery) -> dict[str, Any]:
        """Find the bank's key set by way of the Trust Framework: whose server has this issuer?"""
        directory = self.manifest.directory
        for organisation in await self.document(tpp, directory.participants):
            servers = organisation.get("AuthorisationServers", [])
            found = [str(server.get("OpenIDDiscoveryDocument", "")) for server in servers]
            if any(url.startswith(f"{discovery.issuer}/") for url in found):
                base = f"{directory.keystore_base}/{organisation['OrganisationId']}"
                keys: dict[str, Any] = await self.document(tpp, f"{base}/application.jwks")
                self.narrator.step(
                    f"The Trust Framework names the bank behind this issuer: {organisation['OrganisationName']}",
                    "whom the money goes to is sealed for the bank's key; the Hub passes on what it cannot read",
                )
                return keys
        raise Stopped("no participant of the Trust Framework has this issuer")

    async def document(self, tpp: Tpp, url: str) -> Any:
        """Return a public JSON document."""
        answer = await tpp.wire.carry(Ask(method="GET", url=url))
        if answer.status != 200:
            raise Stopped(f"{url} answered {answer.status}")
        return answer.json()

    async def order(
        self,
        tpp: Tpp,
        discovery: Discovery,
        tokens: Tokens,
        hub_keys: dict[str, Any],
        **what: str,
    ) -> dict[str, Any] | Refused:
        """Order a payment (``key``, ``consent_id``, ``amount``, ``sealed``); return the message, or the refusal."""
        ask = request_payment(
            self.identity,
            self.manifest.hub.resource_base + PAYMENTS,
            audience=discovery.issuer,
            access_token=tokens.access_token,
            **what,
        )
        return read_signed(await tpp.wire.carry(ask), hub_keys, discovery.issuer)


@final
class PaymentJourney(PayingTravel):
    """Take a customer's consent to one payment, make it, and show that the same key never pays twice."""

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        tell = self.narrator
        tell.title(
            f"{self.section.name} asks {self.person.name} for AED {AMOUNT} to Sample Shop LLC, through the Hub"
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
            asks = f"one payment of AED {AMOUNT}"
            pushed = await self.push(tpp, discovery, detail, PAYMENT_SCOPE, asks)
            await self.consent(discovery, pushed, PAYMENT_SCOPE, decline=decline, most=1)
            came = await self.came_back(callbacks, pushed, discovery, decline=decline)
            if came is None:
                tell.good("Done: the customer declined, and nothing was paid.")
                return
            tokens = await self.redeem(tpp, discovery, came, pushed)
            await self._pay(tpp, discovery, tokens, consent_id, bank_keys)
        tell.good("Done: one payment was made, and only one.")

    async def _pay(
        self,
        tpp: Tpp,
        discovery: Discovery,
        tokens: Tokens,
        consent_id: str,
        bank_keys: dict[str, Any],
    ) -> None:
        sealed = got("sealing", seal(self.identity, bank_keys, CREDITOR))
        hub_keys = await self.document(tpp, discovery.jwks_uri)
        key, made = self.dice.uuid(), []
        for _ in range(2):
            answer = await self.order(
                tpp, discovery, tokens, hub_keys, key=key, consent_id=consent_id, amount=AMOUNT, sealed=sealed
            )  # fmt: skip
            message = got("the payment", answer)
            made.append(str(at(message, "Data", "PaymentId")))
            self._tell_payment(message, again=len(made) > 1)
        if made[0] != made[1]:
            raise Stopped(f"the same key paid twice: {made[0]} and {made[1]}")

    def _tell_payment(self, message: dict[str, Any], *, again: bool) -> None:
        payment_id, status = (at(message, "Data", name) for name in ("PaymentId", "Status"))
        if again:
            self.narrator.step(
                f"The same order sent again, signed anew: the same payment {payment_id}",
                "an idempotency key pays once, whatever the network does",
            )
        else:
            self.narrator.step(
                f"POST /payments: payment {payment_id} is {status}",
                "the Hub checked the order against the consent's limits before the bank saw it, and signed the answer",
            )
