"""The transactional outbox: what changed is told to the bank and to TPPs, in order per consent, until it was heard.

Theory. The audit log is the outbox. A consent's change and its event are one commit, so reading the log's consent events in
order finds every change exactly once, also after a crash; nobody who changes a consent has to think of it. ``_follow`` turns
events into ``Delivery`` records and moves its cursor in the same commit. ``begin`` takes, for each consent and target, the
oldest delivery that waits, and begins it; the next one of that lane waits for its end, other lanes do not. One receiver is
told a few things at once and no more, and nothing new while it is slow to hear: what else is due to it is put off, so that
it stands in nobody's way. Where more is due than one look sees, each look is at the oldest and at some that are further on.
What was not heard is tried again after 5 s, 30 s, 2 min, 10 min, 1 h and 6 h, then it is a dead letter: visible, and
replayable.

Invariants: within a lane deliveries are made in the order of the log, one at a time; a delivery is made at least once or is
dead; each attempt leaves an event, which is the ledger of who was told what and when. At most ``deliveries`` are under way,
and ``deliveries_per_receiver`` to one receiver; only where that many receivers hang at once do others wait, ``bank_event_s``
at most.

Source: decisions.md section 2 (events to the bank); issue 6 point 5.
"""

import math
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
from hub.state.keeper import Change, Invalidation, Keeper, Put, Query, Versioned

BACK_OFF_S: Final = (5, 30, 120, 600, 3600, 21600)
_CURSOR: Final = "outbox.cursor"
_BATCH: Final = 500
_IDLE_S: Final = 1.0
_GATHER_S: Final = 0.02
"""After a change; what else changes meanwhile is followed in the same round."""
_GAUGE_S: Final = 1.0
_SLOW_S: Final = 2.0
"""A receiver that takes longer to hear is slow: what else it is to be told waits."""
_ROWS: Final = 100
"""What is looked at once, of the oldest and of what is further on."""
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


Lane = tuple[str, str]
"""A consent's id and a target's name."""


class _Way(msgspec.Struct, frozen=True):
    """Hold which delivery of a lane is under way, to whom, and since when (by trio's clock)."""

    index: int
    receiver: str
    began: float


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
        self._under_way: dict[Lane, _Way] = {}
        self._slow: dict[str, int] = {}
        """Receivers that took long, and until when (milliseconds) they are told nothing else."""
        self._further = 0
        """How many rows of those that are due come before what is looked at next, beside the oldest."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow and tell until cancelled.

        Cancellation: the only way to end it; a delivery under way may have been heard and is made again.
        """
        position, gauge_at = await self._start(), 0.0
        end = self._keeper.watch(self._woken)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    self._changed = trio.Event()
                    position = await self.follow(position)
                    if trio.current_time() >= gauge_at:
                        gauge_at = trio.current_time() + _GAUGE_S
                        await self._gauge()
                    if not await self.begin(nursery):
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

    async def begin(self, nursery: trio.Nursery) -> bool:
        """Begin the deliveries that are due, next in their lane, and to whom there is room.

        Args:
            nursery: Where they are made.

        Returns:
            Whether to look again at once; else when something has changed, a delivery has ended, or a second later.

        Cancellation: what was begun goes on.
        """
        if self._full():
            return False
        now_ms = self._clock.now_ms()
        self._slow = {name: until for name, until in self._slow.items() if until > now_ms}
        put_off: list[Change] = []
        for item in await self._due():
            if isinstance(item.record, Delivery) and not self._full():
                until = await self._place(item.record, nursery)
                if until > item.record.due_ms:
                    later = msgspec.structs.replace(item.record, due_ms=until)
                    put_off.append(Put(later, item.version))
        if put_off:
            await self._commit(put_off, self._event("outbox.wait", count=len(put_off)))
        return (bool(put_off) or self._further > 0) and not self._full()

    def _full(self) -> bool:
        return len(self._under_way) >= self._limits.deliveries

    async def _due(self) -> list[Versioned]:
        """Return the oldest deliveries that are due, and in turns some of the others: all that is due is looked at."""
        oldest = Query(
            kind="delivery",
            at_most=(("due", self._clock.now_ms()),),
            order="due",
            limit=_ROWS,
        )
        rows = list((await self._keeper.search(oldest)).items)
        if len(rows) < _ROWS:
            self._further = 0
            return rows
        self._further += _ROWS
        query = msgspec.structs.replace(oldest, offset=self._further)
        others = (await self._keeper.search(query)).items
        if len(others) < _ROWS:
            self._further = 0
        return [*rows, *others]

    async def _place(self, delivery: Delivery, nursery: trio.Nursery) -> int:
        """Begin the next delivery of a lane if it may; return until when this one is put off (milliseconds; 0: it is not)."""
        lane = (delivery.consent_id, delivery.target)
        way = self._under_way.get(lane)
        if way is not None:
            return 0 if way.index == delivery.index else self._held_up(way.receiver)
        receiver = await self._receiver(delivery)
        if until := self._held_up(receiver):
            return until
        ways = [way for way in self._under_way.values() if way.receiver == receiver]
        if len(ways) >= self._limits.deliveries_per_receiver:
            return 0
        first = await self._first(lane)
        if first is None:
            return 0  # it was told since it was looked for
        if first.due_ms > self._clock.now_ms():
            return first.due_ms
        self._under_way[lane] = _Way(first.index, receiver, trio.current_time())
        nursery.start_soon(self._tell, first, lane, receiver)
        return 0

    async def _receiver(self, delivery: Delivery) -> str:
        target, client = self._targets.get(delivery.target), ""
        if target is not None and target.each_client:
            found = await self._keeper.lookup(Consent, delivery.consent_id)
            client = found[0].client_id if found is not None else ""
        return f"{delivery.target}:{client}"

    def _held_up(self, receiver: str) -> int:
        """Return until when a receiver is told nothing new (milliseconds): it was slow, or hangs just now; else 0."""
        now_ms = self._clock.now_ms()
        if (until := self._slow.get(receiver, 0)) > now_ms:
            return until
        began = [way.began for way in self._under_way.values() if way.receiver == receiver]
        hangs_s = trio.current_time() - min(began, default=math.inf)
        if hangs_s <= _SLOW_S:
            return 0
        return now_ms + round(max(_SLOW_S, self._limits.bank_event_s - hangs_s) * 1000)

    async def _first(self, lane: Lane) -> Delivery | None:
        """Return the oldest delivery of a lane that waits."""
        name = f"{lane[0]}:{lane[1]}:waiting"
        page = await self._keeper.search(
            Query(kind="delivery", where=(("lane", name),), order="index", limit=1)
        )
        record = page.items[0].record if page.items else None
        return record if isinstance(record, Delivery) else None

    async def _tell(self, delivery: Delivery, lane: Lane, receiver: str) -> None:
        """Make one delivery and write down what became of it; then its lane and its place are free."""
        found = await self._keeper.lookup(Consent, delivery.consent_id)
        target = self._targets.get(delivery.target)
        if found is None or target is None:
            result: int | Fault = 410
        else:
            consent = await self._as_of_now(found[0])
            result = await self._timed(target.send(consent, delivery), receiver)
        await self._settle(delivery, result)
        del self._under_way[lane]
        self._changed.set()

    async def _settle(self, delivery: Delivery, result: int | Fault) -> None:
        settled = settle(delivery, result, self._clock.now_ms())
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
        """Wait for a sending; a receiver that takes long has as long a pause before it is told anything else."""
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
