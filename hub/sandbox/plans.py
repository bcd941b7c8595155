"""The journey of payment plans: one consent of each kind, what it pays, and the order that its limit refuses (consents.md 5, 6)."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, final

import msgspec

from hub.sandbox.narration import Narrator
from hub.sandbox.paying import CREDITOR, PayingTravel
from hub.sandbox.tpp import Discovery, Refused, Tokens, Tpp, Wire, serve_callbacks
from hub.sandbox.tpp.payment import PAYMENT_SCOPE, payments_consent, seal
from hub.sandbox.tpp.schedules import (
    Schedule,
    controls,
    fixed_defined,
    fixed_on_demand,
    fixed_periodic,
    variable_defined,
    variable_on_demand,
    variable_periodic,
)
from hub.sandbox.travel import Stopped, got

_ZONE: Final = timezone(timedelta(hours=4), "Asia/Dubai")
_REFUSED: Final = "Consent.FailsControlParameters"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one kind of consent: its words, its schedule, and orders with whether each one is made."""

    kind: str
    words: str
    schedule: Schedule
    days: int
    orders: tuple[tuple[str, bool], ...]


def plans_of(now: int) -> tuple[Plan, ...]:
    """Return one plan of each kind, beginning today."""
    today = datetime.fromtimestamp(now, UTC).astimezone(_ZONE).date()
    first, second = today.isoformat(), (today + timedelta(days=1)).isoformat()
    return (
        Plan(
            kind="FixedDefinedSchedule",
            words="AED 5.00 today and AED 5.00 tomorrow",
            schedule=fixed_defined({first: "5.00", second: "5.00"}),
            days=1,
            orders=(("5.00", True), ("5.00", False)),
        ),
        Plan(
            kind="VariableDefinedSchedule",
            words="up to AED 8.00 today",
            schedule=variable_defined({first: "8.00"}),
            days=0,
            orders=(("8.01", False), ("7.99", True)),
        ),
        Plan(
            kind="FixedPeriodicSchedule",
            words="AED 6.00 once a week, four times",
            schedule=fixed_periodic("Week", first, "6.00", number=4),
            days=40,
            orders=(("6.00", True), ("6.00", False)),
        ),
        Plan(
            kind="VariablePeriodicSchedule",
            words="up to AED 9.00 once a month, three times",
            schedule=variable_periodic("Month", first, "9.00", number=3),
            days=100,
            orders=(("8.50", True), ("0.50", False)),
        ),
        Plan(
            kind="FixedOnDemand",
            words="AED 3.00 whenever it is wanted, at most twice a day",
            schedule=fixed_on_demand("Day", first, "3.00", controls(number=2)),
            days=30,
            orders=(("3.00", True), ("3.00", True), ("3.00", False)),
        ),
        Plan(
            kind="VariableOnDemand",
            words="up to AED 7.00 at once and AED 10.00 a day",
            schedule=variable_on_demand("Day", first, controls(value="10.00", most="7.00")),
            days=30,
            orders=(("7.00", True), ("3.01", False), ("3.00", True)),
        ),
    )


@final
class PlansJourney(PayingTravel):
    """Take a customer's consent to a plan of each kind, pay by it, and meet its limit."""

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been, or made that should have been refused.
        """
        tell = self.narrator
        if decline:
            raise Stopped("nobody declines plans; leave --decline out, or --plans")
        tell.title(f"{self.section.name} asks {self.person.name} for a payment plan of each kind")
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            with self._quietly():
                discovery = await self.discover(tpp)
                bank_keys = await self.bank_keys(tpp, discovery)
            hub_keys = await self.document(tpp, discovery.jwks_uri)
            for plan in plans_of(self.clock.now()):
                with self._quietly():
                    consent_id, tokens = await self._consented(
                        tpp, discovery, bank_keys, plan, callbacks
                    )
                tell.step(
                    f"{plan.kind}: {self.person.name} approves {plan.words}",
                    "pushed, approved at the bank and redeemed like any consent",
                )
                await self._pay(tpp, discovery, (bank_keys, hub_keys), plan, consent_id, tokens)
        tell.good("Done: every kind of plan paid what it allows, and nothing beyond.")

    async def _consented(
        self,
        tpp: Tpp,
        discovery: Discovery,
        bank_keys: dict[str, Any],
        plan: Plan,
        callbacks: Any,
    ) -> tuple[str, Tokens]:
        consent_id = self.dice.uuid()
        detail = payments_consent(
            consent_id=consent_id,
            expires=_end_of_day_in(plan.days, self.clock.now()),
            schedule=plan.schedule,
            sealed=got("sealing", seal(self.identity, bank_keys, {"Creditor": [CREDITOR]})),
        )
        pushed = await self.push(tpp, discovery, detail, PAYMENT_SCOPE, plan.words)
        await self.consent(discovery, pushed, PAYMENT_SCOPE, decline=False, most=1)
        came = await self.came_back(callbacks, pushed, discovery, decline=False)
        if came is None:
            raise Stopped("the customer declined")
        return consent_id, await self.redeem(tpp, discovery, came, pushed)

    async def _pay(
        self,
        tpp: Tpp,
        discovery: Discovery,
        keys: tuple[dict[str, Any], dict[str, Any]],
        plan: Plan,
        consent_id: str,
        tokens: Tokens,
    ) -> None:
        for amount, made in plan.orders:
            sealed = got("sealing", seal(self.identity, keys[0], CREDITOR))
            key = self.dice.uuid()
            answer = await self.order(
                tpp, discovery, tokens, keys[1],
                key=key, consent_id=consent_id, amount=amount, sealed=sealed,
            )  # fmt: skip
            refused = isinstance(answer, Refused)
            if refused is made or (isinstance(answer, Refused) and answer.code != _REFUSED):
                line = answer.line if isinstance(answer, Refused) else "it was made"
                raise Stopped(f"{plan.kind}, AED {amount}: {line}")
            self._tell_order(amount, answer)

    def _tell_order(self, amount: str, answer: dict[str, Any] | Refused) -> None:
        if isinstance(answer, Refused):
            self.narrator.step(
                f"AED {amount}: refused with {answer.code}",
                f"{answer.text}; the bank was not asked",
            )
        else:
            self.narrator.step(
                f"AED {amount}: paid",
                "its share of the plan was reserved before the bank was asked",
            )

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Tell nothing of the steps that the payment journey tells."""
        loud, self.narrator = self.narrator, Narrator(lambda _line: None)
        try:
            yield
        finally:
            self.narrator = loud


def _end_of_day_in(days: int, now: int) -> int:
    """Return the last minute of the day in so many days: a defined schedule's consent ends on its last date."""
    moment = datetime.fromtimestamp(now, UTC).astimezone(_ZONE) + timedelta(days=days)
    return int(moment.replace(hour=23, minute=59, second=59, microsecond=0).timestamp())
