"""The transactional outbox: what changed is told to the bank and to TPPs, in order per consent, until it was heard.

Theory. The audit log is the outbox. A consent's change and its event are one commit, so reading the log's consent events in
order finds every change exactly once, also after a crash; nobody who changes a consent has to think of it. ``_follow`` turns
events into ``Delivery`` records and moves its cursor in the same commit. ``_deliver`` takes, for each consent and target, the
oldest delivery that waits; the next one of that lane waits for it, other lanes do not, but for those of a receiver that is
slow to hear. A round of deliveries ends with its slowest: what falls due meanwhile waits for that, ``bank_event_s`` at most. What
was not heard is tried again after 5 s, 30 s, 2 min, 10 min, 1 h and 6 h, then it is a dead letter: visible, and replayable.

Invariants: within a lane deliveries are made in the order of the log; a delivery is made at least once or is dead; each
attempt leaves an event, which is the ledger of who was told what and when.

Source: decisions.md section 2 (events to the bank); issue 6 point 5.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
import trio

from hub.config import Limits
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.records import Delivery, Payment, Setting
from hub.observe import Observer
from hub.state.allowance import Consumption
from hub.state.keeper import Change, Invalidation, Keeper, Put, Query

BACK_OFF_S: Final = (5, 30, 120, 600, 3600, 21600)
_CURSOR: Final = "outbox.cursor"
_BATCH: Final = 500
_IDLE_S: Final = 1.0
_GATHER_S: Final = 0.02
"""After a change; what else changes meanwhile is followed in the same round."""
_GAUGE_S: Final = 1.0
_SLOW_S: Final = 2.0
"""A receiver that takes longer to hear is slow: what else it is to be told waits, so that others need not."""
_TOLD: Final = re.compile(rb'\{"v":[0-9]+,"kind":"(?:consent|outcome)"').match
"""Look at the beginning of a leaf (``leaf_bytes``): nearly all events are calls, and each of them comes by here."""

Send = Callable[[Consent, Delivery], Awaitable[int | Fault]]
"""Tell one target; return the HTTP status, where 200 to 299 means heard."""
Wants = Callable[[Consent], bool]
"""Say whether a target is to be told of a consent at all."""


class Target(msgspec.Struct, frozen=True):
    """Hold who is told: of consents, and of the payments made under them where ``payments`` says so.

    It is one receiver, or one for each client where ``each_client`` says so.
    """

    wants: Wants
    send: Send
    payments: bool = False
    each_client: bool = False


class Outbox:
    """Follow the log and tell the targets; one per tenant."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        targets: Mapping[str, Target],
        limits: Limits,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        consumption: Consumption | None = None,
    ) -> None:
        """Take the log, those who are told by the name their deliveries carry, and what dates a consent's consumption."""
        self._keeper = keeper
        self._targets = dict(targets)
        self._limits = limits
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._consumption = consumption
        self._changed = trio.Event()
        self._slow: dict[str, int] = {}
        """Receivers that took long, and until when (milliseconds) they are told nothing else."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow and tell until cancelled.

        Cancellation: the only way to end it; a delivery under way may have been heard and is made again.
        """
        position, gauge_at = await self._start(), 0.0
        end = self._keeper.watch(self._woken)
        try:
            task_status.started()
            while True:
                self._changed = trio.Event()
                position = await self.follow(position)
                if trio.current_time() >= gauge_at:
                    gauge_at = trio.current_time() + _GAUGE_S
                    await self._gauge()
                if not await self.deliver():
                    with trio.move_on_after(_IDLE_S):
                        await self._changed.wait()
                        await trio.sleep(_GATHER_S)
        finally:
            end()

    async def _gauge(self) -> None:
        """Say how long the oldest delivery has been waiting, how many wait, and how many are dead."""
        waiting, dead = [
            await self._keeper.search(
                Query(
                    kind="delivery",
                    where=(("state", state),),
                    order="index",
                    limit=1,
                    count=True,
                )
            )
            for state in ("waiting", "dead")
        ]
        oldest = [item.record for item in waiting.items if isinstance(item.record, Delivery)]
        age_ms = max((self._clock.now_ms() - one.time_ms for one in oldest), default=0)
        gauge = self._observer.gauge
        gauge("hub_outbox_oldest_seconds", "Age of the oldest delivery that waits.", age_ms / 1000)
        gauge("hub_outbox_waiting", "Deliveries that wait.", waiting.total)
        gauge("hub_outbox_dead", "Dead letters.", dead.total)

    def _woken(self, change: Invalidation) -> None:
        if change.kind == "consent":
            self._changed.set()

    async def _start(self) -> int:
        """Return where to read on; an outbox that never ran begins with what happens from now on."""
        found = await self._keeper.lookup(Setting, _CURSOR)
        if found is not None:
            return int(found[0].value)
        size = (await self._keeper.head()).size
        await self._commit([self._cursor(size)], self._event("outbox.start", count=0))
        return size

    def _cursor(self, position: int) -> Put:
        return Put(Setting(name=_CURSOR, value=str(position).encode()))

    async def follow(self, position: int) -> int:
        """Turn the events from ``position`` on into deliveries; return where to read on.

        Cancellation: whole batches only.
        """
        while leaves := await self._keeper.events(position, _BATCH):
            changes: list[Change] = []
            for index, leaf in enumerate(leaves, position):
                if _TOLD(leaf):
                    changes += await self._deliveries(index, leaf)
            if changes:
                made = len(changes)
                changes.append(self._cursor(position + len(leaves)))
                if not await self._commit(changes, self._event("outbox.follow", count=made)):
                    return position
            position += len(leaves)
        return position

    async def _deliveries(self, index: int, leaf: bytes) -> list[Change]:
        event = msgspec.json.decode(leaf, type=Event)
        if event.kind not in {Kind.CONSENT, Kind.OUTCOME} or event.verdict is not Verdict.ALLOWED:
            return []
        payment_id = event.subject if event.kind is Kind.OUTCOME else ""
        consent_id = event.consent_id or ("" if payment_id else event.subject)
        told = await self._told(consent_id, payment_id) if consent_id else []
        if not told:
            return []
        new = event.change == "made" if payment_id else event.change.startswith(">")
        return [
            Put(
                Delivery(
                    index=index,
                    target=name,
                    consent_id=consent_id,
                    payment_id=payment_id,
                    operation="post" if new else "patch",
                    time_ms=event.time_ms,
                    due_ms=self._clock.now_ms(),
                )
            )
            for name in told
        ]

    async def _told(self, consent_id: str, payment_id: str) -> list[str]:
        """Return the targets that are told of a consent, or of a payment made under it; of one that is in the log."""
        found = await self._keeper.lookup(Consent, consent_id)
        told = [
            name
            for name, target in self._targets.items()
            if found is not None and (target.payments or not payment_id) and target.wants(found[0])
        ]
        if told and payment_id and await self._keeper.lookup(Payment, payment_id) is None:
            return []
        return told

    async def deliver(self) -> int:
        """Make the deliveries that are due and next in their lane; return how many were tried.

        Cancellation: a delivery under way may have been heard and is made again.
        """
        page = await self._keeper.search(
            Query(
                kind="delivery",
                at_most=(("due", self._clock.now_ms()),),
                order="due",
                limit=100,
            )
        )
        lanes: dict[tuple[str, str], Delivery] = {}
        blocked: list[Change] = []
        for item in page.items:
            record = item.record
            if not isinstance(record, Delivery) or (record.consent_id, record.target) in lanes:
                continue
            first = await self._first(record)
            if first.due_ms <= self._clock.now_ms():
                lanes[record.consent_id, record.target] = first
            else:  # wait as long as the one before it, and do not stand in the way of other lanes
                later = msgspec.structs.replace(record, due_ms=first.due_ms)
                blocked.append(Put(later, item.version))
        if blocked:
            await self._commit(blocked, self._event("outbox.wait", count=len(blocked)))
        bound = trio.CapacityLimiter(self._limits.deliveries)
        now_ms, put_off = self._clock.now_ms(), list[Change]()
        self._slow = {name: until for name, until in self._slow.items() if until > now_ms}
        async with trio.open_nursery() as nursery:
            for delivery in lanes.values():
                nursery.start_soon(self._tell, delivery, bound, put_off)
        if put_off:
            await self._commit(put_off, self._event("outbox.wait", count=len(put_off)))
        return len(lanes)

    async def _first(self, delivery: Delivery) -> Delivery:
        lane = f"{delivery.consent_id}:{delivery.target}:waiting"
        page = await self._keeper.search(
            Query(kind="delivery", where=(("lane", lane),), order="index", limit=1)
        )
        record = page.items[0].record if page.items else delivery
        return record if isinstance(record, Delivery) else delivery

    async def _tell(
        self, delivery: Delivery, bound: trio.CapacityLimiter, put_off: list[Change]
    ) -> None:
        async with bound:
            found = await self._keeper.lookup(Consent, delivery.consent_id)
            target = self._targets.get(delivery.target)
            if found is None or target is None:
                result: int | Fault = 410
            else:
                client = found[0].client_id if target.each_client else ""
                receiver = f"{delivery.target}:{client}"
                until = self._slow.get(receiver, 0)
                if until > self._clock.now_ms():
                    put_off.append(Put(msgspec.structs.replace(delivery, due_ms=until)))
                    return
                consent = await self._as_of_now(found[0])
                result = await self._timed(target.send(consent, delivery), receiver)
        now_ms = self._clock.now_ms()
        settled = settle(delivery, result, now_ms)
        check = result.check if isinstance(result, Fault) else ""
        told = settled.state == "told"
        event = self._event(
            f"outbox.{delivery.target}",
            consent_id=delivery.consent_id,
            verdict=Verdict.ALLOWED if told else Verdict.FAILED,
            check=check,
            status=settled.status,
            subject=delivery.key,
            change=f"{delivery.state}>{settled.state}",
            count=settled.attempts,
        )
        if settled.state == "dead":
            self._observer.note("outbox.dead_letter", target=delivery.target)
        await self._commit([Put(settled)], event)

    async def _as_of_now(self, consent: Consent) -> Consent:
        """Return a consent whose consumption is that of today: a period that has ended is not told as the current one."""
        if self._consumption is None:
            return consent
        return await self._consumption.current(consent, self._clock.now())

    async def _timed(self, sending: Awaitable[int | Fault], receiver: str) -> int | Fault:
        """Wait for a sending; a receiver that takes long gives all others as long before it is told anything else."""
        began = trio.current_time()
        result = await sending
        took = trio.current_time() - began
        if took > _SLOW_S:
            self._slow[receiver] = self._clock.now_ms() + round(took * 1000)
        return result

    async def _commit(self, changes: list[Change], event: Event) -> bool:
        done = await self._keeper.commit(changes, [event])
        if isinstance(done, Fault):
            self._observer.note("outbox.not_recorded", check=done.check)
            await trio.sleep(_IDLE_S)
        return isinstance(done, tuple)

    def _event(self, route: str, **members: str | int) -> Event:
        plain = Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            route=route,
        )
        return msgspec.structs.replace(plain, **members)


def settle(delivery: Delivery, result: int | Fault, now_ms: int) -> Delivery:
    """Return the delivery after an attempt: told, waiting for the next one, or dead."""
    status = 0 if isinstance(result, Fault) else result
    attempts = delivery.attempts + 1
    changed = msgspec.structs.replace(delivery, attempts=attempts, status=status)
    if 200 <= status < 300:
        return msgspec.structs.replace(changed, state="told", told_ms=now_ms)
    if attempts > len(BACK_OFF_S):
        return msgspec.structs.replace(changed, state="dead", told_ms=now_ms)
    due_ms = now_ms + BACK_OFF_S[attempts - 1] * 1000
    return msgspec.structs.replace(changed, due_ms=due_ms)


async def replay(
    keeper: Keeper, clock: Clock, first_index: int, state: str = "dead"
) -> int | Fault:
    """Let deliveries from an event index on be made again; return how many.

    Args:
        keeper: Where they are.
        clock: For the event.
        first_index: Of the log.
        state: ``dead`` for dead letters, ``told`` to tell again.

    Each is replayed once, also where it is told again meanwhile.

    Faults: 503 of the keeper; what was replayed before stays so.

    Cancellation: whole batches only.
    """
    count, replayed = 0, frozenset[str]()
    while True:
        page = await keeper.search(
            Query(
                kind="delivery",
                where=(("state", state),),
                at_least=(("index", first_index),),
                order="index",
                limit=_BATCH,
            )
        )
        found = [
            (item.record, item.version)
            for item in page.items
            if isinstance(item.record, Delivery) and item.record.key not in replayed
        ]
        if not found:
            return count
        changes = [
            Put(
                msgspec.structs.replace(one, state="waiting", attempts=0, due_ms=clock.now_ms()),
                version,
            )
            for one, version in found
        ]
        event = Event(
            kind=Kind.ADMIN, time_ms=clock.now_ms(), route="outbox.replay", count=len(changes)
        )
        done = await keeper.commit(changes, [event])
        if isinstance(done, Fault):
            return done
        if isinstance(done, tuple):
            count += len(changes)
            first_index = found[-1][0].index
            replayed |= {one.key for one, _ in found if one.index == first_index}
