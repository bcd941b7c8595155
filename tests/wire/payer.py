"""Payments over the wire: consents of every schedule, orders signed anew, answers opened."""

import msgspec

from hub.sandbox.tpp import Answer, Ask, Callback, Pushed, Refused, Tokens
from hub.sandbox.tpp.payment import (
    PAYMENT_SCOPE,
    creditor,
    payments_consent,
    read_signed,
    request_payment,
    seal,
)
from tests.wire.world import Actor

CREDITOR = creditor("AE460261001234567891234", "Shop LLC")
LIFE_S = 30 * 86_400


class Payer:
    """One TPP with one payment consent of a customer."""

    def __init__(self, tpp: Actor, bank_keys: dict, hub_keys: dict) -> None:
        self.tpp = tpp
        self.bank_keys = bank_keys
        self.hub_keys = hub_keys
        self.consent_id = ""
        self.tokens: Tokens | None = None
        self.sealed = self.seal(CREDITOR)

    @classmethod
    async def at(cls, tpp: Actor) -> "Payer":
        """Learn the keys of the bank and of the Hub."""
        hub_keys = await document(tpp, tpp.discovery.jwks_uri)
        return cls(tpp, await bank_keys(tpp), hub_keys)

    def seal(self, initiation: dict) -> str:
        sealed = seal(self.tpp.identity, self.bank_keys, initiation)
        assert isinstance(sealed, str), sealed
        return sealed

    async def push(self, schedule: dict, life: int = LIFE_S) -> Pushed | Refused:
        """Push a request for a consent with this schedule."""
        self.consent_id = self.tpp.identity.dice.uuid()
        detail = payments_consent(
            consent_id=self.consent_id,
            expires=self.tpp.identity.clock.now() + life,
            schedule=schedule,
            sealed=self.seal({"Creditor": [CREDITOR]}),
        )
        return await self.tpp.tpp.push(self.tpp.discovery, detail, PAYMENT_SCOPE)

    async def consented(self, schedule: dict, life: int = LIFE_S, customer: int = 0) -> "Payer":
        """Take a consent with this schedule all the way to tokens."""
        pushed = await self.push(schedule, life)
        assert isinstance(pushed, Pushed), pushed
        person = self.tpp.sandbox.manifest.customers[customer]
        came = await self.tpp.callback(pushed, customer=person, accounts=person.accounts[:1])
        assert isinstance(came, Callback), came
        tokens = await self.tpp.tpp.redeem(self.tpp.discovery, came.code, pushed)
        assert isinstance(tokens, Tokens), tokens
        self.tokens = tokens
        return self

    def ask(self, key: str, amount: str, sealed: str = "") -> Ask:
        """Make an order, signed now."""
        assert self.tokens is not None
        base = self.tpp.sandbox.manifest.hub.resource_base
        return request_payment(
            self.tpp.identity,
            f"{base}/open-finance/payment/v2.1/payments",
            audience=self.tpp.discovery.issuer,
            access_token=self.tokens.access_token,
            key=key,
            consent_id=self.consent_id,
            amount=amount,
            sealed=sealed or self.sealed,
        )

    async def order(self, key: str, amount: str, sealed: str = "") -> tuple[Answer, dict | Refused]:
        """Order a payment; return the answer with its message, or the refusal in it."""
        answer = await self.tpp.tpp.wire.carry(self.ask(key, amount, sealed))
        return answer, self.opened(answer)

    def opened(self, answer: Answer) -> dict | Refused:
        return read_signed(answer, self.hub_keys, self.tpp.discovery.issuer)


async def document(tpp: Actor, url: str) -> dict:
    """Fetch a public JSON document."""
    answer = await tpp.tpp.wire.carry(Ask(method="GET", url=url))
    assert answer.status == 200
    return msgspec.json.decode(answer.body)


async def bank_keys(tpp: Actor) -> dict:
    """Find the bank's key set by way of the participants: whose server is this issuer?"""
    directory = tpp.sandbox.manifest.directory
    for organisation in await document(tpp, directory.participants):
        for server in organisation["AuthorisationServers"]:
            if server.get("OpenIDDiscoveryDocument", "").startswith(tpp.discovery.issuer):
                base = f"{directory.keystore_base}/{organisation['OrganisationId']}"
                return await document(tpp, f"{base}/application.jwks")
    raise AssertionError("no participant has this issuer")
