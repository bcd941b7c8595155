"""Payments: one share reserved, one request sent, one outcome written; never twice under one key, never guessed.

Theory. The idempotency key's record, the payment's share of the consent's limits and the intent are one commit: whoever finds
the key taken, the limits used up or the consent gone is refused there, before the bank hears anything. Only then is the bank
asked, once. What became of it, the share's fate, the payment's entry in the log, the sealed answer and the call's own event
are one commit again, and only after it does the answer leave. If the process dies between the two, the key's record stays
``open``: ``payment_recovery`` finds it.

A second request under a key waits for the first, and gets its answer byte for byte (but for ``x-fapi-interaction-id``, which
is always the request's own), or is told that the outcome is not known.

Source: routes.md T6 to T8; errors.md sections 6 and 7; decisions.md section 3; architecture 5.
"""

import hmac
from typing import Any, Final, final
from zoneinfo import ZoneInfo

import msgspec
import trio

from hub.contract import Contract
from hub.gateway.enforce import enforce
from hub.gateway.errors import at_resources
from hub.gateway.files import missing_file
from hub.gateway.idempotency import DAY_S, Stored, Use, use_of
from hub.gateway.payment_ends import Late, Paid, Replayed
from hub.gateway.payment_order import Order
from hub.gateway.payment_outcome import (
    Moment,
    Outcome,
    closing,
    judge,
    payment_event,
    unknown,
)
from hub.gateway.payment_view import PaymentView
from hub.gateway.values import Access, Call, Reply
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault, bank_fault, caller_fault
from hub.model.http import Headers, Response
from hub.model.period import local_date
from hub.model.records import Attempt, Payment
from hub.model.terms import Face
from hub.state.keeper import Change, Conflict, Invalidation, Keeper, Put
from hub.state.remote import KeeperGoneError
from hub.state.secrets import Secrets
from hub.upstream.bank import Bank, BankCall

_ATTEMPTS: Final = 5
_DIGESTS: Final = "gateway.idempotency"
_HOLD_S: Final = 5.0
"""How long an outcome is offered to a keeper that is not there."""
_FULL_S: Final = 0.5
"""How long to one whose disk is full."""
_AGAIN_S: Final = 0.1
LEASE_S: Final = 30
"""After the bank's deadline, seconds: then nobody holds an open attempt any more."""
SOON_S: Final = 2
"""Until a request of unknown outcome is sent again to a bank that de-duplicates, seconds."""


class Payments:
    """Make and read the payments of one tenant."""

    def __init__(
        self, *, keeper: Keeper, bank: Bank, contract: Contract, clock: Clock, dice: Dice, secrets: Secrets, provider_id: str,
        resource_base: str, time_zone: str, anchored: bool = False, exact_days: bool = False, dedupes: bool = False,
        failpoint: Failpoint = no_failpoint,
    ) -> None:  # fmt: skip
        """Take what payments ask.

        Args:
            keeper: The store.
            bank: Asked once for each payment.
            contract: The mappers.
            clock: For the moment of an outcome: a bank may take long, and what is written then is written as of then.
            dice: Names shares, seals answers.
            secrets: The tenant's; one keys the digests of messages.
            provider_id: The bank's, for its headers.
            resource_base: Of links.
            time_zone: Whose days count.
            anchored: Months are counted from the schedule's start.
            exact_days: Periodic payments only on the days on which the schedule's start recurs.
            dedupes: The bank promises to de-duplicate by key: what it was sent is kept until the outcome is known.
            failpoint: For tests.
        """
        self._keeper = keeper
        self._bank = bank
        self._clock = clock
        self._dice = dice
        self._secrets = secrets
        self._provider_id = provider_id
        self._base = resource_base
        self._zone = ZoneInfo(time_zone)
        self._anchored = anchored
        self._exact_days = exact_days
        self._dedupes = dedupes
        self._failpoint = failpoint
        self.view = PaymentView(
            keeper=keeper, bank=bank, contract=contract, provider_id=provider_id, resource_base=resource_base
        )  # fmt: skip

    async def make(
        self, call: Call, access: Access, body: dict[str, Any]
    ) -> Paid | Late | Replayed | Fault:
        """Make a payment; a ``Paid`` must be given to ``record`` with its answer, a ``Late`` to ``keep``.

        Faults: 400 ``Resource.InvalidFormat`` (key), ``Consent.Invalid``, ``Consent.BusinessRuleViolation``,
        ``Consent.FailsControlParameters``; 409 for a key in use.

        Cancellation: the intent stays; its outcome is found by ``payment_recovery``.

        Raises:
            UnavailableError: The keeper cannot keep a secret now; nothing was sent.
        """
        at = self._moment(call, call.now_ms)
        order = Order(call, access, body, at.day)
        fault = order.fault() or await missing_file(self._keeper, access.consent)
        if fault is not None:
            return fault
        use = use_of(call, access.caller.client_id, body)
        if isinstance(use, Fault):
            return use
        asked = order.question(self._base, self._provider_id)
        attempt = await self._attempt(call, access, order, asked, use)
        version = await self._begin(call, access, order, attempt, use, at)
        if not isinstance(version, int):
            return version
        self._failpoint(Point.AFTER_INTENT)
        self._failpoint(Point.BEFORE_FORWARD)
        started = trio.current_time()
        outcome = judge(await self._bank.exchange(asked))
        bank_us = round((trio.current_time() - started) * 1e6)
        self._failpoint(Point.AFTER_FORWARD_BEFORE_RECORD)
        return Paid(
            shown=outcome.fault or self._made(call, attempt, outcome),
            attempt=attempt,
            version=version,
            outcome=outcome,
            use=use,
            at=self._moment(call, max(call.now_ms, self._clock.now_ms())),
            bank_us=bank_us,
        )

    async def _begin(
        self, call: Call, access: Access, order: Order, attempt: Attempt, use: Use, at: Moment
    ) -> int | Late | Replayed | Fault:
        """Take the share and the key, and write the intent; or say what an earlier use of the key came to.

        Returns:
            The version of the attempt as it was written.
        """
        share = order.reserve(
            attempt.reservation, anchored=self._anchored, exact_days=self._exact_days
        )
        event = payment_event(Kind.INTENT, attempt, "open", at)
        version = 0
        for _ in range(_ATTEMPTS):
            self._failpoint(Point.BEFORE_INTENT)
            changes = (Put(attempt, expect=version), share)
            done = await self._keeper.commit(changes, [event])
            if isinstance(done, tuple):
                return version + 1
            if isinstance(done, Fault):
                return done if done.check.startswith("limits.") else at_resources(done)
            if done.at == 1:
                return await self._gone(call, access)
            # Only now is it asked what stands under the key: nearly always nothing does, and the commit says so itself.
            held = await self._keeper.lookup(Attempt, attempt.id)
            if held is not None and not _is_over(held[0], call.now):
                earlier = await self._again(call, held[0], attempt.consent_id, attempt.digest, use)
                if earlier is not None:
                    return earlier
                held = None
            version = held[1] if held is not None else 0
        return _busy("payment.conflict")

    async def _attempt(
        self, call: Call, access: Access, order: Order, asked: BankCall, use: Use
    ) -> Attempt:
        reservation = self._dice.uuid()
        return Attempt(
            id=use.name,
            client_id=access.caller.client_id,
            consent_id=access.token.consent_id,
            digest=use.digest(await self._secrets.get(_DIGESTS)),
            reservation=reservation,
            created=call.now,
            draft=order.draft(reservation),
            question=order.kept(asked) if self._dedupes else None,
            due=call.now + call.route.deadline_ms // 1000 + LEASE_S,
        )

    async def _gone(self, call: Call, access: Access) -> Fault:
        """Say why a consent that was good a moment ago gives no share."""
        found = await self._keeper.lookup(Consent, access.token.consent_id)
        fresh = msgspec.structs.replace(access, consent=found[0] if found is not None else None)
        text = "The consent is not Authorized any more."
        fault = enforce(call, fresh) if fresh.consent is not None else None
        return fault or caller_fault(400, "Consent.Invalid", text, check="payment.consent_gone")

    async def repeated(
        self, call: Call, access: Access, body: dict[str, Any]
    ) -> Late | Replayed | Fault | None:
        """Answer an order that would be refused now, if it was given before: as the first of its key; None if it was not.

        Faults: 409 for a key that was used for another payment, or whose outcome is not known.

        Cancellation: harmless.

        Raises:
            UnavailableError: The keeper cannot keep a secret now.
        """
        use = use_of(call, access.caller.client_id, body)
        if isinstance(use, Fault):
            return None
        held = await self._keeper.lookup(Attempt, use.name)
        if held is None or _is_over(held[0], call.now):
            return None
        digest = use.digest(await self._secrets.get(_DIGESTS))
        return await self._again(call, held[0], access.token.consent_id, digest, use)

    async def _again(
        self, call: Call, held: Attempt, consent_id: str, digest: str, use: Use
    ) -> Late | Replayed | Fault | None:
        """Answer another use of a key; None where the first one turns out to have used nothing up."""
        same = hmac.compare_digest(held.digest, digest)
        if held.consent_id != consent_id or not same:
            text = "The idempotency key was used for another payment."
            return caller_fault(409, "GenericError", text, check="payment.key_reused")
        found = await self._ended(held, call.route.deadline_ms / 1000)
        self._failpoint(Point.BEFORE_REPLAY)
        if found is None:
            return None
        ended, version = found
        if not ended.ended:
            return _busy(f"payment.{ended.state}")
        stored = use.unseal(ended.sealed)
        if stored is not None:
            return Replayed(stored)
        shown = await self._late(call, ended)
        return Late(shown=shown, attempt=ended, version=version, use=use)

    async def _late(self, call: Call, ended: Attempt) -> Reply | Fault:
        found = await self._keeper.lookup(Payment, ended.payment_id) if ended.payment_id else None
        if found is None:
            text = "The payment was not made; order it anew under another key."
            return bank_fault(400, "GenericError", text, check="payment.never_made")
        return self.view.reply(call, found[0], {"data": found[0].response})

    async def _ended(self, held: Attempt, patience_s: float) -> tuple[Attempt, int] | None:
        """Wait until the outcome of an attempt is known, for so long; return it as it then is, None if it is gone.

        An unknown one is worth waiting for only where the bank is asked again; elsewhere operators settle it.
        """
        changed = trio.Event()

        def heard(one: Invalidation) -> None:
            if one.kind == "attempt" and one.key in {"", held.id}:
                changed.set()

        latest: tuple[Attempt, int] | None = (held, 0)
        end = self._keeper.watch(heard)
        try:
            with trio.move_on_after(patience_s):
                while True:
                    latest = await self._keeper.lookup(Attempt, held.id)
                    if latest is None or latest[0].reservation != held.reservation:
                        return None
                    if latest[0].ended or (latest[0].state == "unknown" and not self._dedupes):
                        return latest
                    await changed.wait()
                    changed = trio.Event()
        finally:
            end()
        return latest

    def _made(self, call: Call, attempt: Attempt, outcome: Outcome) -> Reply | Fault:
        if attempt.draft is None:
            return _busy("payment.draft")
        payment = msgspec.structs.replace(attempt.draft, id=str(outcome.data["id"]))
        return self.view.reply(call, payment, {"data": outcome.data})

    async def keep(self, late: Late, response: Response, event: Event) -> Replayed | Fault | None:
        """Keep a late answer for the next who asks, with the call's event; another one's where that was kept first.

        Faults: 503; 409 where nobody's was kept.

        Cancellation: it may or may not have been kept.
        """
        stored = Stored(response.status, _replayable(response.headers), response.body)
        kept = msgspec.structs.replace(late.attempt, sealed=late.use.seal(stored, self._dice))
        done = await self._keeper.commit([Put(kept, expect=late.version)], [event])
        if isinstance(done, tuple):
            return None
        if isinstance(done, Fault):
            return done
        found = await self._keeper.lookup(Attempt, late.attempt.id)
        others = late.use.unseal(found[0].sealed) if found is not None else None
        return Replayed(others) if others is not None else _busy("payment.conflict")

    async def record(self, paid: Paid, response: Response, event: Event) -> Paid | Fault | None:
        """Write an outcome with its answer and the call's event; the answer may leave only after this.

        An outcome is worth waiting for: it is offered again while the keeper is away.

        Returns:
            None: it is written. A ``Paid`` to be written and answered instead: the bank gave an id it has given before.

        Faults: 503; the outcome is then not written, and found by ``payment_recovery``.

        Cancellation: as of a fault.
        """
        sealed = b""
        if paid.outcome.state in {"made", "refused"}:
            stored = Stored(response.status, _replayable(response.headers), response.body)
            sealed = paid.use.seal(stored, self._dice)
        closed = _Closed(paid, sealed, event)
        began = trio.current_time()
        self._failpoint(Point.BEFORE_OUTCOME)
        while not closed.done:
            done = await self._keeper.commit(closed.changes, closed.events)
            if isinstance(done, tuple):
                break
            if isinstance(done, Conflict):
                if done.at != 0:
                    return _doubted(paid)
                fault = await self._over(closed)
                if fault is not None:
                    return fault
                continue
            patience = _FULL_S if done.check == "keeper.disk" else _HOLD_S
            if trio.current_time() - began > patience:
                return done
            await trio.sleep(_AGAIN_S)
        self._failpoint(Point.AFTER_OUTCOME)
        return None

    async def _over(self, closed: "_Closed") -> Fault | None:
        """Look at what stands where an outcome was to be written, and prepare to write over it."""
        try:
            found = await self._keeper.lookup(Attempt, closed.paid.attempt.id)
        except KeeperGoneError:
            return _busy("payment.conflict")
        return None if closed.meet(found) else _busy("payment.conflict")

    def _moment(self, call: Call, now_ms: int) -> Moment:
        return Moment(
            now_ms=now_ms,
            day=local_date(now_ms // 1000, self._zone),
            anchored=self._anchored,
            line_id=self._dice.uuid(),
            interaction_id=call.interaction_id,
            face=Face.TPP,
            route=call.route.id,
        )


def _busy(check: str) -> Fault:
    text = "A payment under this key is being made, or its outcome is not known yet."
    return caller_fault(409, "GenericRecoverableError", text, check=check)


def _doubted(paid: Paid) -> Paid:
    """Take a bank that gives an id it has given before for one whose word is not known."""
    outcome = unknown(bank_fault(500, "GenericError", "", check="bank.payment_id"))
    return msgspec.structs.replace(paid, outcome=outcome, shown=outcome.fault)


def _is_over(held: Attempt, now: int) -> bool:
    return held.ended and held.created + DAY_S <= now


def _replayable(headers: Headers) -> Headers:
    """Return the headers that are the answer's, without the one that is the request's own."""
    return tuple((name, value) for name, value in headers if name != b"x-fapi-interaction-id")


@final
class _Closed:
    """Hold what writes an outcome, while it is offered to the keeper until it is written."""

    def __init__(self, paid: Paid, sealed: bytes, event: Event) -> None:
        self.paid = paid
        self.done = False
        self._sealed = sealed
        self._event = event
        self._due = paid.at.now_ms // 1000 + SOON_S if paid.attempt.question is not None else 0
        self.changes: tuple[Change, ...] = ()
        self.events: tuple[Event, ...] = ()
        self._expect(paid.version)

    def _expect(self, version: int) -> None:
        paid = self.paid
        self.changes, told = closing(
            paid.attempt, version, paid.outcome, paid.at, sealed=self._sealed, due=self._due
        )
        self.events = (told, self._event)

    def meet(self, found: tuple[Attempt, int] | None) -> bool:
        """Go on from what stands there; False where it says something else."""
        outcome = self.paid.outcome
        if found is None:
            self.done = outcome.state == "unsent"
            return self.done
        held, version = found
        if held.reservation != self.paid.attempt.reservation:
            return False
        if not held.ended:
            self.done = held.state == outcome.state and held.due == self._due
            self._expect(version)
            return True
        if held.state != outcome.state or held.payment_id != str(outcome.data.get("id", "")):
            return False
        self.done = held.sealed == self._sealed
        kept = msgspec.structs.replace(held, sealed=self._sealed)
        self.changes, self.events = (Put(kept, expect=version),), (self._event,)
        return True
