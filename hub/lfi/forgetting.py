"""What is long over is forgotten: consents with everything that hangs on them, once ``consent_history_days`` have passed.

Theory. Tokens, codes and whatever else dies of itself has its day in ``purge_at``. A consent has none: it is the truth about
what a customer agreed to, and how long that is kept is the tenant's to say. So it is looked for: the consents that changed
longest ago first, a few at a time. One is forgotten as a whole (history, payments, deliveries, grants, what was taken of it), in one
commit with an event that says so; only one on which very much hangs takes several, and itself goes with the last, so that a
crash in between leaves it to be found again.

Invariants. Nothing is forgotten of a consent that is not in a final state, that ran or was changed within that time, that a
payment without an outcome or a delivery that waits belongs to, or that is the first of a group which has others.

The clock is not believed. The moment that counts is kept in the store and follows the clock by a day at most in each hour
that the process has been running: a clock that jumps by years has forgotten nothing when somebody sees it, restarts included. It
goes back with the clock at once.

Source: operations.md section 6; decisions.md section 2.
"""

from typing import Final, final

import msgspec
import trio

from hub.model.clock import Clock, Dice
from hub.model.consent import TERMINAL, Consent
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.model.limits import Allowance
from hub.model.payment_file import file_note
from hub.model.records import Attempt, Setting
from hub.observe import Observer
from hub.state.keeper import Change, Conflict, Drop, Keeper, Put, Query

ROUTE: Final = "consents.forget"
_MOMENT: Final = "consents.forgetting"
_EVERY_S: Final = 3600.0
_STEP_S: Final = 86_400
_PAUSE_S: Final = 1.0
"""Between two batches: whoever waits for the store comes first."""
_BATCH: Final = 50
"""Consents that are looked at in one go."""
_CHANGES: Final = 250
"""Records that are forgotten in one commit: some milliseconds of the writer."""
_OPEN_MOST: Final = 1000
_OF_A_CONSENT: Final = (
    "access",
    "code",
    "refresh",
    "grant",
    "interaction",
    "delivery",
    "payment",
    "consent_change",
)
"""Kinds with an index ``consent``, history last."""


class Round(msgspec.Struct, frozen=True):
    """Hold what one batch came to: how many consents were forgotten and kept, and whether there may be more."""

    forgotten: int = 0
    kept: int = 0
    more: bool = False


@final
class Forgetting:
    """Forget what is long over; exactly one runs per tenant."""

    def __init__(
        self, *, keeper: Keeper, clock: Clock, dice: Dice, observer: Observer, days: int
    ) -> None:
        """Take the store, and how many ``days`` a consent is kept after it ended."""
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._kept_s = days * 86_400

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look each hour until cancelled; the first time after an hour.

        Cancellation: the only way to end it; what was forgotten stays so.
        """
        task_status.started()
        while True:
            await trio.sleep(_EVERY_S)
            fault = await self.hour()
            if fault is not None:
                self._observer.note("consents.forget_failed", check=fault.check)

    async def hour(self) -> Fault | None:
        """Forget whatever is over by now, in batches with a pause between two.

        Faults: 503 of the keeper; what was forgotten before stays so.

        Cancellation: as ``run``.
        """
        moment = await self._moment()
        if isinstance(moment, Fault):
            return moment
        kept = 0
        while True:
            done = await self.batch(moment, kept)
            if isinstance(done, Fault):
                return done
            if not done.more:
                return None
            kept += done.kept
            await trio.sleep(_PAUSE_S)

    async def _moment(self) -> int | Fault:
        """Return the moment that counts as now: not after the clock's, and a day at most after the last one's."""
        now = self._clock.now()
        found = await self._keeper.lookup(Setting, _MOMENT)
        held = int(found[0].value) if found is not None else await self._oldest(now)
        if found is not None and held <= now < held + _STEP_S:
            return held
        moment = min(now, held + _STEP_S)
        put = Put(Setting(name=_MOMENT, value=str(moment).encode()))
        done = await self._keeper.commit((put,), (self._event("", "moment", 1),))
        return done if isinstance(done, Fault) else moment

    async def _oldest(self, now: int) -> int:
        """Return where the moment begins: when the consent changed that has not changed for longest."""
        page = await self._keeper.search(Query(kind="consent", order="updated", limit=1))
        found = [i.record.updated_ms // 1000 for i in page.items if isinstance(i.record, Consent)]
        return min([now, *found])

    async def batch(self, moment: int, skip: int = 0) -> Round | Fault:
        """Look at the next consents that may be over at a moment, and forget those that are.

        Args:
            moment: Seconds since 1970.
            skip: How many of them have been looked at, and kept.

        Faults: 503 of the keeper.

        Cancellation: some may be forgotten.
        """
        until = moment - self._kept_s
        page = await self._keeper.search(
            Query(
                kind="consent",
                at_most=(("updated", until * 1000),),
                order="updated",
                offset=skip,
                limit=_BATCH,
            )
        )
        if not page.items:
            return Round()
        unsettled, forgotten = await self._unsettled(), 0
        if unsettled is None:
            self._observer.note("consents.forget_waits", reason="payments_without_outcome")
            return Round(kept=len(page.items))
        for item in page.items:
            consent = item.record
            if not isinstance(consent, Consent) or not _is_over(consent, until):
                continue
            if consent.id in unsettled or await self._in_use(consent):
                continue
            done = await self._forget(consent, item.version)
            if isinstance(done, Fault):
                return done
            forgotten += done
        return Round(forgotten, len(page.items) - forgotten, len(page.items) == _BATCH)

    async def _unsettled(self) -> frozenset[str] | None:
        """Return the consents with a payment whose outcome nobody knows; None where they are too many to say."""
        found: set[str] = set()
        for state in ("open", "unknown"):
            page = await self._keeper.search(
                Query(kind="attempt", where=(("state", state),), limit=_OPEN_MOST)
            )
            if len(page.items) == _OPEN_MOST:
                return None
            found |= {i.record.consent_id for i in page.items if isinstance(i.record, Attempt)}
        return frozenset(found)

    async def _in_use(self, consent: Consent) -> bool:
        """Tell whether something that is not over belongs to a consent that is."""
        held = await self._keeper.lookup(Allowance, consent.id)
        if held is not None and held[0].open:
            return True
        of_it = ("consent", consent.id)
        waiting = Query(kind="delivery", where=(of_it, ("state", "waiting")), limit=1)
        if (await self._keeper.search(waiting)).items:
            return True
        group = Query(kind="consent", where=(("group", consent.id),), limit=2)
        return any(i.record.key != consent.id for i in (await self._keeper.search(group)).items)

    async def _forget(self, consent: Consent, version: int) -> bool | Fault:
        """Forget a consent and what hangs on it; False where somebody changed some of it meanwhile."""
        while True:
            changes = await self._hanging(consent.id)
            last = len(changes) < _CHANGES
            if last:
                changes += [
                    Drop("allowance", consent.id),
                    Drop("setting", file_note(consent, taken=True).key),
                    Drop("consent", consent.id, expect=version),
                ]
            event = self._event(consent.id, "forgotten" if last else "forgetting", len(changes))
            event = msgspec.structs.replace(
                event, client_id=consent.client_id, organisation_id=consent.organisation_id
            )
            done = await self._keeper.commit(changes, (event,))
            if isinstance(done, Fault):
                return done
            if last or isinstance(done, Conflict):
                return not isinstance(done, Conflict)

    async def _hanging(self, consent_id: str) -> list[Change]:
        """Return what forgets the records that hang on a consent, as many as one commit takes."""
        changes: list[Change] = []
        for kind in _OF_A_CONSENT:
            if room := _CHANGES - len(changes):
                query = Query(kind=kind, where=(("consent", consent_id),), limit=room)
                found = (await self._keeper.search(query)).items
                changes += [Drop(kind, i.record.key, expect=i.version) for i in found]
        return changes

    def _event(self, consent_id: str, change: str, count: int) -> Event:
        return Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            consent_id=consent_id,
            route=ROUTE,
            change=change,
            count=count,
        )


def _is_over(consent: Consent, until: int) -> bool:
    """Tell whether a consent had ended by then, by every date that it bears: one of them may be of a wrong clock."""
    latest_ms = max(consent.created_ms, consent.updated_ms, consent.expires * 1000)
    return consent.status in TERMINAL and latest_ms <= until * 1000
