"""Journeys beside the great ones: products, a lead and cash machines; a payee confirmed, paid and refunded; a file of payments."""

from base64 import b64encode
from hashlib import sha256
from typing import Any, Final, final

import msgspec

from hub.sandbox.manifest import CustomerSection
from hub.sandbox.paying import AMOUNT, PayingTravel
from hub.sandbox.tpp import Answer, Ask, Discovery, Tpp, Wire, serve_callbacks
from hub.sandbox.tpp.exchange import refused
from hub.sandbox.tpp.payment import (
    MESSAGE_S,
    PAYMENT_SCOPE,
    creditor,
    payment_consent,
    read_signed,
    seal,
)
from hub.sandbox.travel import Stopped, at, got

BASE: Final = "/open-finance"
CONSENT_S: Final = 86_400
CUSTOMER_ADDRESS: Final = "192.0.2.17"
FILE: Final = b"iban,amount\nAE460261001234567891234,10.00\nAE460261001234567891234,20.00\n"
TOTAL: Final = "30.00"
_LEAD: Final = {
    "Email": "lead@person.example",
    "EmiratesId": "784198012345678",
    "Name": {"GivenName": "Sample", "LastName": "Lead"},
    "MarketingOptOut": True,
    "ProductCategories": ["CurrentAccount"],
}


class Errand(PayingTravel):
    """What errands have in common: calls with a token of the TPP's own, plain or signed."""

    async def own_token(self, tpp: Tpp, discovery: Discovery, scope: str) -> str:
        """Get a token of the TPP's own."""
        tokens = got(f"a token for {scope}", await tpp.client_credentials(discovery, scope))
        self.narrator.step(
            f"A token of the TPP's own for {scope}",
            "client credentials over mTLS: no customer is concerned yet",
        )
        return tokens.access_token

    async def ask(
        self, tpp: Tpp, method: str, path: str, token: str, *, content: str = "", **headers: str
    ) -> Answer:
        """Call the Hub; a refusal ends the journey."""
        sent = {
            "authorization": f"Bearer {token}",
            "x-fapi-interaction-id": self.dice.uuid(),
            "x-fapi-customer-ip-address": CUSTOMER_ADDRESS,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        url = self.manifest.hub.resource_base + BASE + path
        answer = await tpp.wire.carry(Ask(method=method, url=url, headers=sent, content=content))
        if answer.status >= 400:
            raise Stopped(f"{method} {path} was refused: {refused(answer).line}")
        return answer

    def signed(self, discovery: Discovery, message: dict[str, Any]) -> str:
        """Return a body as message signing wants it."""
        now = self.clock.now()
        claims = {"iss": self.identity.client_id, "aud": discovery.issuer, "iat": now, "nbf": now}
        return self.identity.sign({**claims, "exp": now + MESSAGE_S, "message": message})

    async def told(
        self, tpp: Tpp, discovery: Discovery, path: str, token: str, message: dict[str, Any] | None,
        **headers: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Post a signed message, or get where there is none; return the signed answer's message."""
        keys = await self.document(tpp, discovery.jwks_uri)
        headers = {"accept": "application/jwt", **headers}
        if message is None:
            answer = await self.ask(tpp, "GET", path, token, **headers)
        else:
            headers["content_type"] = "application/jwt"
            content = self.signed(discovery, message)
            answer = await self.ask(tpp, "POST", path, token, content=content, **headers)
        return got(path, read_signed(answer, keys, discovery.issuer))


@final
class OpenDataJourney(Errand):
    """Read products and cash machines, and leave a lead with the bank."""

    async def run(self, *, decline: bool) -> None:
        """Travel; there is nothing to decline.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        del decline
        tell = self.narrator
        tell.title(f"{self.section.name} looks at what {self.manifest.bank.provider_id} offers")
        async with Wire.of(self.identity, tell.exchange) as wire:
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            token = await self.own_token(tpp, discovery, "products")
            offers = (await self.ask(tpp, "GET", "/product/v2.1/products", token)).json()
            names = [p.get("ProductName") for p in at(offers, "Data", 0, "Products") or []]
            tell.step(
                f"GET /products: {', '.join(map(str, names))}",
                "open data, but for a TPP of the Trust Framework only",
            )
            content = msgspec.json.encode({"Data": _LEAD}).decode()
            lead = await self.ask(
                tpp, "POST", "/product/v2.1/leads", token, content=content,
                content_type="application/json",
            )  # fmt: skip
            tell.step(
                f"POST /leads: the bank keeps it as {at(lead.json(), 'Data', 'LeadId')}",
                "the Hub passes it on and keeps nothing of it",
            )
            token = await self.own_token(tpp, discovery, "atm")
            machines = (await self.ask(tpp, "GET", "/atm/v2.1/atms", token)).json()
            found = machines.get("Data", [])
            tell.step(
                f"GET /atms: {len(found)} cash machines, the first at {at(found, 0, 'Location', 'Site', 'Name')}",
                "the bank's shape, mapped to the standard's",
            )
        tell.good("Done: products, a lead and cash machines, without any customer's data.")


@final
class PayeeJourney(Errand):
    """Confirm whose account it is, pay, and ask where a refund would go."""

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        tell, payee = self.narrator, self._payee()
        iban = _iban_of(payee.accounts[0])
        tell.title(f"{self.section.name} makes sure that {iban} is {payee.name}'s, and pays")
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            await self._confirm(tpp, discovery, iban, payee.name)
            keys, consent_id = await self.bank_keys(tpp, discovery), self.dice.uuid()
            whom = creditor(iban, payee.name)
            detail = payment_consent(
                consent_id=consent_id,
                expires=self.clock.now() + CONSENT_S,
                amount=AMOUNT,
                sealed=got("sealing", seal(self.identity, keys, {"Creditor": [whom]})),
            )
            detail["consent"]["Permissions"] = ["ReadRefundAccount"]
            asks = f"one payment of AED {AMOUNT}, and the account for a refund"
            pushed = await self.push(tpp, discovery, detail, PAYMENT_SCOPE, asks)
            await self.consent(discovery, pushed, PAYMENT_SCOPE, decline=decline, most=1)
            came = await self.came_back(callbacks, pushed, discovery, decline=decline)
            if came is None:
                tell.good("Done: the customer declined, and nothing was paid.")
                return
            tokens = await self.redeem(tpp, discovery, came, pushed)
            sealed = got("sealing", seal(self.identity, keys, whom))
            hub_keys = await self.document(tpp, discovery.jwks_uri)
            what = {"key": self.dice.uuid(), "consent_id": consent_id, "amount": AMOUNT}
            made = await self.order(tpp, discovery, tokens, hub_keys, sealed=sealed, **what)
            message = got("the payment", made)
            tell.step(
                f"POST /payments: payment {at(message, 'Data', 'PaymentId')} is {at(message, 'Data', 'Status')}",
                "sealed for the bank, signed for the Hub",
            )
            await self._refund(tpp, discovery, consent_id)
        tell.good("Done: the payee was who it should be, and a refund would find its way.")

    def _payee(self) -> CustomerSection:
        """Return somebody else who banks here."""
        return next(c for c in self.manifest.customers if c.username != self.person.username)

    async def _confirm(self, tpp: Tpp, discovery: Discovery, iban: str, name: str) -> None:
        token = await self.own_token(tpp, discovery, "confirmation-of-payee")
        base, account = (
            "/confirmation-of-payee/v2.1",
            {"SchemeName": "IBAN", "Identification": iban},
        )
        where = await self.told(tpp, discovery, f"{base}/discovery", token, {"Data": account})
        self.narrator.step(
            f"POST /discovery: {iban} is with the bank at {at(where, 'Data', 'ResourceServerUrl')}",
            "found by the bank's code in the IBAN, and the participants of the Trust Framework",
        )
        for asked in (name, f"{name.split(maxsplit=1)[0]} Someone-Else"):
            question = {"Data": {**account, "Name": {"FullName": asked}}}
            message = await self.told(tpp, discovery, f"{base}/confirmation", token, question)
            self.narrator.step(
                f"POST /confirmation: is it {asked}? {at(message, 'Data', 'NameMatchIndicator')}",
                "the bank says whose account it is, the Hub says only whether the name fits",
            )

    async def _refund(self, tpp: Tpp, discovery: Discovery, consent_id: str) -> None:
        token = await self.own_token(tpp, discovery, "openid payments")
        path = f"/payment/v2.1/payment-consents/{consent_id}/refund"
        message = await self.told(tpp, discovery, path, token, None)
        self.narrator.step(
            f"GET refund: to {at(message, 'Data', 'RefundAccount', 'Identification')}",
            "the customer permitted ReadRefundAccount; a refund itself would be a new payment",
        )


@final
class FileJourney(Errand):
    """Announce a file of payments, upload it, have it approved, order it once, read its report."""

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        tell = self.narrator
        tell.title(f"{self.section.name} asks {self.person.name} to pay a file, through the Hub")
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            keys, consent_id = await self.bank_keys(tpp, discovery), self.dice.uuid()
            detail = payment_consent(
                consent_id=consent_id,
                expires=self.clock.now() + CONSENT_S,
                amount=TOTAL,
                sealed=got("sealing", seal(self.identity, keys, {"Creditor": []})),
            )
            schedule = {"ConsentSchedule": {"FilePayment": announced()}}
            detail["consent"]["ControlParameters"] = schedule
            asks = f"a file of two payments, AED {TOTAL} together"
            pushed = await self.push(tpp, discovery, detail, PAYMENT_SCOPE, asks)
            token = await self.own_token(tpp, discovery, "openid payments")
            await self._upload(tpp, token, consent_id)
            await self.consent(discovery, pushed, PAYMENT_SCOPE, decline=decline, most=1)
            came = await self.came_back(callbacks, pushed, discovery, decline=decline)
            if came is None:
                tell.good("Done: the customer declined, and nothing was paid.")
                return
            tokens = await self.redeem(tpp, discovery, came, pushed)
            order = {"ConsentId": consent_id, "PaymentPurposeCode": "ACM"}
            path, key = "/payment/v2.1/file-payments", self.dice.uuid()
            message = await self.told(
                tpp, discovery, path, tokens.access_token, {"Data": order}, x_idempotency_key=key
            )
            payment_id = str(at(message, "Data", "PaymentId"))
            tell.step(
                f"POST /file-payments: {payment_id} is {at(message, 'Data', 'Status')}",
                "one order pays the whole file, once",
            )
            report = await self.ask(tpp, "GET", f"{path}/{payment_id}/report", token)
            tell.step(
                f"GET report: {len(report.body)} octets of {report.headers['content-type']}",
                "the bank's own report, passed on as it is",
            )
        tell.good("Done: the file was the one that the customer approved, and was paid once.")

    async def _upload(self, tpp: Tpp, token: str, consent_id: str) -> None:
        path = f"/payment/v2.1/payment-consents/{consent_id}/file"
        await self.ask(
            tpp, "POST", path, token, content=FILE.decode(), content_type="text/csv",
            x_idempotency_key=self.dice.uuid(),
        )  # fmt: skip
        self.narrator.step(
            f"POST file: {len(FILE)} octets, taken",
            "its SHA-256 is the one in the consent, or the bank would never have seen it",
        )


def announced() -> dict[str, Any]:
    """Return what the consent says of the file."""
    return {
        "FileType": "sample.csv",
        "FileHash": b64encode(sha256(FILE).digest()).decode(),
        "NumberOfTransactions": 2,
        "ControlSum": TOTAL,
    }


def _iban_of(account: str) -> str:
    """Return the IBAN of an account of the model bank (code 990; ISO 13616)."""
    inner = f"990{int(account):016d}"
    return f"AE{98 - int(inner + '101400') % 97:02d}{inner}"
