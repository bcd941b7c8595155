"""What becomes of payments whose outcome nobody wrote: looked for at the start and ever after, and settled by operators.

Theory. An attempt that stays ``open`` beyond the bank's deadline lost its process between intent and outcome. Where the bank
promises to de-duplicate by key, the very request that it was sent is sent again until it answers; anywhere else a second
request may be a second payment, so the attempt becomes ``unknown``, its share stays taken, and two operators say what the bank
told them: the payment's id, or that it was never executed. Each step is an event.

Nothing is sent again a day after the order: by then a bank may have forgotten its key.

Invariants: each look deals with every payment that is due once, ``payments_again`` at a time, and ends before the next one,
so no payment is sent twice at once; what changed since it was looked for is left to the next look. A bank that is down is
asked through its circuit breaker, and each sending, also one that the breaker refuses, has its pause.

Source: decisions.md section 3 (outcome unknown); architecture 5.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final
from zoneinfo import ZoneInfo

import msgspec
import trio

from hub.gateway.payment_outcome import (
    Moment,
    Outcome,
    closing,
    is_payment_id,
    judge,
    payment_event,
    unknown,
)
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.consent_change import date_time_of
from hub.model.event import Event, Kind
from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault, hub_fault
from hub.model.limits import Allowance, amount_text, remaining
from hub.model.payment_effect import terms_in
from hub.model.period import local_date
from hub.model.records import Attempt, Question, Settlement
from hub.model.terms import Face
from hub.observe import Observer
from hub.state.keeper import Change, Conflict, Drop, Keeper, Put, Query
from hub.trust.admin import Command, Reply, refusal
from hub.upstream.bank import Bank, BankCall

_LOOK_S: Final = 1.0
_MOST: Final = 200
_SEND_MS: Final = 10_000
_BACK_OFF_S: Final = (2, 5, 15, 60, 300, 1800, 7200)
"""Between two sendings to a bank that de-duplicates; after the last one an operator must settle it."""
_KEY_S: Final = 86_400
"""For so long after the order such a bank is taken to remember its key, as TPPs may count on ours (decisions.md section 3)."""
STATUSES: Final = (
    "Pending",
    "AcceptedSettlementCompleted",
    "AcceptedCreditSettlementCompleted",
    "AcceptedWithoutPosting",
    "Rejected",
)


@final
class Recovery:
    """Find attempts without an outcome, and give them one; exactly one runs per tenant."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        bank: Bank,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        time_zone: str,
        at_once: int,
        anchored: bool = False,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        """Take the store, the bank that may be asked again, the zone whose days count, and how many are asked ``at_once``."""
        self._keeper = keeper
        self._bank = bank
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._zone = ZoneInfo(time_zone)
        self._at_once = at_once
        self._anchored = anchored
        self._failpoint = failpoint

    async def run(
        self,
        first: bool = True,  # noqa: FBT001, FBT002 - nurseries start with positional arguments only
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look each second until cancelled; the ``first`` of a node takes over what an earlier life left open.

        Started once nothing of an earlier life is open any more; nobody may be served before that.

        Cancellation: what was sent again stays open or unknown.
        """
        if first:
            await self.inherit()
        task_status.started()
        while True:
            if not await self.look():
                await trio.sleep(_LOOK_S)

    async def inherit(self) -> int:
        """Make every open attempt due now: whoever held it is gone; return how many.

        Cancellation: some of them may not be due.
        """
        query = Query(kind="attempt", where=(("state", "open"),), limit=_MOST)
        count = 0
        while rows := (await self._keeper.search(query)).items:
            for row in rows:
                if isinstance(row.record, Attempt):
                    await self._lost(row.record, row.version)
            count += len(rows)
        return count

    async def look(self) -> int:
        """Deal with the attempts that are due; return how many there were.

        Cancellation: some of them may not be dealt with.
        """
        query = Query(
            kind="attempt", at_most=(("due", self._clock.now()),), order="due", limit=_MOST
        )
        rows = (await self._keeper.search(query)).items
        turns = trio.CapacityLimiter(self._at_once)
        async with trio.open_nursery() as nursery:
            for row in rows:
                if isinstance(row.record, Attempt):
                    nursery.start_soon(self._deal, row.record, row.version, turns)
        return len(rows)

    async def _deal(self, attempt: Attempt, version: int, turns: trio.CapacityLimiter) -> None:
        async with turns:
            self._failpoint(Point.BEFORE_RECOVERY)
            question = self._sendable(attempt)
            if question is None:
                await self._lost(attempt, version)
            elif await self._keeper.lookup(Attempt, attempt.id) == (attempt, version):
                await self._again(attempt, question, version)

    def _sendable(self, attempt: Attempt) -> Question | None:
        """Return what may be sent again, None where another sending might be another payment, or there were enough."""
        remembered = self._clock.now() < attempt.created + _KEY_S
        return attempt.question if remembered and attempt.tries < len(_BACK_OFF_S) else None

    async def _lost(self, attempt: Attempt, version: int) -> None:
        """Write down that the outcome of an attempt is not known; due at once where the bank can be asked again."""
        why = hub_fault(500, "GenericError", "", check="payment.lost")
        due = self._clock.now() if self._sendable(attempt) is not None else 0
        await self._close(attempt, version, unknown(why), due)

    async def _again(self, attempt: Attempt, question: Question, version: int) -> None:
        """Send the same request again to a bank that de-duplicates."""
        found = await self._keeper.lookup(Consent, attempt.consent_id)
        self._failpoint(Point.BEFORE_RESEND)
        answer = await self._bank.exchange(
            BankCall(
                method="POST",
                path=question.path,
                family=question.family,
                headers=question.headers,
                body=question.body,
                scope=question.scope,
                bearer=found[0].connect_token if found is not None else "",
                deadline_ms=_SEND_MS,
            )
        )
        self._failpoint(Point.AFTER_RESEND)
        outcome, tries = judge(answer, again=True), attempt.tries + 1
        if outcome.state == "unsent":  # a bank that is down all morning has used up no sending
            outcome = unknown(hub_fault(500, "GenericError", "", check="payment.unsent"))
            tries = min(tries, len(_BACK_OFF_S) - 1)
        tried = msgspec.structs.replace(attempt, tries=tries)
        due = self._clock.now() + _BACK_OFF_S[attempt.tries]
        await self._close(tried, version, outcome, due)

    async def _close(self, attempt: Attempt, version: int, outcome: Outcome, due: int) -> None:
        moment = self.moment("payment.recovery", Face.NODE, self._call_of(attempt))
        changes, event = closing(attempt, version, outcome, moment, due=due)
        done = await self._keeper.commit(changes, [event])
        if isinstance(done, Fault):
            await trio.sleep(_LOOK_S)
        elif isinstance(done, Conflict) and done.at:
            kept = unknown(hub_fault(500, "GenericError", "", check="bank.payment_id"))
            changes, event = closing(attempt, version, kept, moment)
            await self._keeper.commit(changes, [event])
        elif not isinstance(done, Conflict):
            self._observer.note("payment_recovery", outcome=outcome.state)

    def _call_of(self, attempt: Attempt) -> str:
        """Return the interaction of the intent: by it the log, its verifier and a trace find the outcome."""
        return attempt.draft.interaction_id if attempt.draft is not None else self._dice.uuid()

    def moment(self, route: str, face: Face, interaction_id: str) -> Moment:
        """Return now, on behalf of an action of the Hub's own or of an operator's."""
        return Moment(
            now_ms=self._clock.now_ms(),
            day=local_date(self._clock.now(), self._zone),
            anchored=self._anchored,
            line_id=self._dice.uuid(),
            interaction_id=interaction_id,
            face=face,
            route=route,
        )

    # The operator's part

    def commands(self) -> dict[str, Command]:
        """Return ``payments-unknown``, ``payment-settle`` (by two operators) and ``allowance`` (of a ``consent``)."""
        commands: dict[str, Callable[[Mapping[str, Any]], Awaitable[Reply]]] = {
            "payments-unknown": self._listed,
            "payment-settle": self._settled,
            "allowance": self._left,
        }
        return dict(commands)

    async def _listed(self, _asked: Mapping[str, Any]) -> Reply:
        query = Query(kind="attempt", where=(("state", "unknown"),), limit=_MOST, count=True)
        page = await self._keeper.search(query)
        rows = [row.record for row in page.items if isinstance(row.record, Attempt)]
        return {"payments": [_shown(attempt) for attempt in rows], "total": page.total}

    async def _settled(self, asked: Mapping[str, Any]) -> Reply:
        """Take what one operator says of a payment; the second one who says the same settles it."""
        said = _said(asked, self._clock.now())
        if isinstance(said, str):
            return refusal(said)
        found = await self._keeper.lookup(Attempt, said.attempt_id)
        if found is None or found[0].state != "unknown":
            return refusal("no payment of that name has an unknown outcome", "payment.not_unknown")
        interaction_id = str(asked.get("interaction_id", ""))
        moment = self.moment("admin.payment-settle", Face.OPS, interaction_id)
        held = await self._keeper.lookup(Settlement, said.attempt_id)
        if held is None or not _agree(held[0], said):
            return await self._proposed(found[0], said, held[1] if held else 0, moment)
        if held[0].by == said.by:
            return refusal("another operator must say the same", "payment.four_eyes")
        return await self._carried_out(found, said, held, moment)

    async def _proposed(
        self, attempt: Attempt, said: Settlement, version: int, at: Moment
    ) -> Reply:
        done = await self._keeper.commit(
            [Put(said, expect=version)], [_told(attempt, f"proposed:{said.outcome}:{said.by}", at)]
        )
        if not isinstance(done, tuple):
            return refusal("somebody else settles it just now; look again", "payment.conflict")
        return {"settled": False, "next": "another operator must say the same"}

    async def _carried_out(
        self,
        found: tuple[Attempt, int],
        said: Settlement,
        held: tuple[Settlement, int],
        at: Moment,
    ) -> Reply:
        attempt, version = found
        of_call = msgspec.structs.replace(at, interaction_id=self._call_of(attempt))
        changes, event = closing(attempt, version, _outcome(attempt, said, at), of_call)
        dropped: Change = Drop("settlement", said.attempt_id, expect=held[1])
        who = f"settled:{said.outcome}:{held[0].by}+{said.by}"
        done = await self._keeper.commit((*changes, dropped), [event, _told(attempt, who, at)])
        if isinstance(done, Conflict) and done.at == 1:
            return refusal("a payment of that id is in the log already", "payment.known_id")
        if not isinstance(done, tuple):
            return refusal("somebody else settles it just now; look again", "payment.conflict")
        return {"settled": True, "outcome": said.outcome}

    async def _left(self, asked: Mapping[str, Any]) -> Reply:
        """Say what a consent has left of each of its limits today; null where there is no such limit."""
        found = await self._keeper.lookup(Consent, str(asked.get("consent", "")))
        terms = terms_in(found[0], anchored=self._anchored) if found is not None else None
        if found is None or terms is None:
            return refusal("no payment consent of that id", "payment.no_consent")
        held = await self._keeper.lookup(Allowance, found[0].id)
        taken = held[0] if held is not None else Allowance(consent_id=found[0].id)
        left = remaining(terms, taken, local_date(self._clock.now(), self._zone))
        return {
            "consent": found[0].id,
            "status": str(found[0].status),
            "taken": {"number": taken.total.number, "value": amount_text(taken.total.value)},
            "open": len(taken.open),
            "left": {
                "number": left.number,
                "value": _amount(left.value),
                "period_number": left.period_number,
                "period_value": _amount(left.period_value),
            },
        }


def _said(asked: Mapping[str, Any], now: int) -> Settlement | str:
    """Read what an operator says; a text says what is wrong with it."""
    attempt, outcome, by = (str(asked.get(name, "")) for name in ("payment", "outcome", "by"))
    payment_id, status = str(asked.get("id", "")), str(asked.get("status", "") or "Pending")
    if not attempt or not 1 <= len(by) <= 64 or not by.isprintable():
        return "expected payment: its name in the list, and by: who says so"
    if outcome == "never" and not payment_id:
        return Settlement(
            attempt_id=attempt, outcome=outcome, payment_id="", status="", by=by, time=now
        )
    if outcome != "made" or not is_payment_id(payment_id) or status not in STATUSES:
        known = ", ".join(STATUSES)
        return f"expected outcome: never, or made with the bank's id and status ({known})"
    return Settlement(
        attempt_id=attempt, outcome=outcome, payment_id=payment_id, status=status, by=by, time=now
    )


def _agree(one: Settlement, other: Settlement) -> bool:
    return (one.outcome, one.payment_id, one.status) == (
        other.outcome,
        other.payment_id,
        other.status,
    )


def _outcome(attempt: Attempt, said: Settlement, at: Moment) -> Outcome:
    if said.outcome == "never":
        return Outcome(state="refused")
    draft = attempt.draft
    asked = draft.request_body.get("Data", {}) if draft is not None else {}
    made = date_time_of(attempt.created)
    data = {
        "id": said.payment_id,
        "status": said.status,
        "creationDateTime": made,
        "statusUpdateDateTime": date_time_of(at.now_ms // 1000),
        "paymentPurposeCode": str(asked.get("PaymentPurposeCode", "")),
    }
    return Outcome(state="made", data=data)


def _told(attempt: Attempt, change: str, at: Moment) -> Event:
    event = payment_event(Kind.ADMIN, attempt, "made", at)
    return msgspec.structs.replace(event, change=change)


def _amount(value: int | None) -> str | None:
    return None if value is None else amount_text(value)


def _shown(attempt: Attempt) -> dict[str, Any]:
    """Return what an operator needs to ask the bank about a payment: no personal data."""
    draft = attempt.draft
    shown: dict[str, Any] = {
        "payment": attempt.id,
        "consent": attempt.consent_id,
        "client": attempt.client_id,
        "since": date_time_of(attempt.created),
        "sent_again": attempt.tries,
    }
    if draft is not None:
        shown |= {
            "idempotency_key": draft.idempotency_key,
            "amount": draft.amount,
            "currency": draft.currency,
            "interaction_id": draft.interaction_id,
        }
    return shown
