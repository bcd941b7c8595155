"""Keep the mirror fresh: rounds of refreshing, and the snapshot that outlives a restart.

Theory. ``run`` works through rounds at the configured interval, by wall time looked at every second, so that a moved
sandbox clock is noticed. Requests may be served in the same process: between any two turns of the scheduler there is
at most the work of one bucket, one client or one batch of records, however much is known.

Invariants. A part is replaced only by a newer one that was verified; a failed fetch leaves the old part and moves
``failed_at``. What is installed is kept in the store, dated, with an event. A client's date is the moment at which the
round began that confirmed it.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, final

import msgspec
import trio

from hub.config import Limits, TrustSettings
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.observe import Observer
from hub.protocol.jose import PublicKey
from hub.state.keeper import Change, Drop, Keeper
from hub.trust.fetch import Absent, Fetcher, Memory, Unreachable, fetching
from hub.trust.flights import Flights
from hub.trust.known import Known
from hub.trust.mirror import Client, DocumentFault, Revoked
from hub.trust.radar import SOON, Blip, Mark, nearest, scan_ends, scan_files, scan_seen
from hub.trust.refresh import (
    Problem,
    described,
    look_at_client,
    look_at_ends,
    look_at_index,
    look_at_ocsp,
    look_at_revocations,
    look_at_statement_keys,
    missing_ends,
    published_kids,
)
from hub.trust.revocation import OcspAnswer, read_authorities
from hub.trust.seal import Seal
from hub.trust.snapshot import (
    SEEN,
    Dates,
    encode_bucket,
    encode_client,
    encode_dates,
    encode_met,
    encode_revoked,
    keep,
    puts,
)

_LOOK_S: Final = 1.0
_RETRY_S: Final = (1, 2, 5, 10, 20, 30)
_AT_ONCE: Final = 3
"""Looks at the framework under way at once: each wakes this process up, beside the requests that it serves."""
_REST, _REST_S = 2.0, 0.02
"""Pause after each look: this many times as long as it took, at most so many seconds. There is time enough, and a process
that is always busy makes others wait whenever they wake up."""
_SILENT: Final = 10
"""Looks in a row without an answer after which a round asks no more: the framework is down."""
_BATCH: Final = 100
_ENDS: Final = 64
OCSP_S: Final = 600
"""An OCSP answer older than this is asked for again, however long its responder vouches for it."""


@final
class Refresher:
    """Look at the framework in the background and install what it says in ``Known``."""

    def __init__(
        self,
        *,
        settings: TrustSettings,
        limits: Limits,
        keeper: Keeper,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        known: Known,
        wanted: Callable[[], dict[str, str]],
        watched: Mapping[str, Path],
        seal: Seal,
    ) -> None:
        """Take what it needs.

        Args:
            settings: Where the framework is.
            limits: Bounds on documents and time.
            keeper: For the snapshot.
            clock: Wall time.
            dice: For jitter and ids.
            observer: For notes and gauges.
            known: Where parts are installed.
            wanted: Tells the clients to mirror, with their organisations.
            watched: Other certificate files on the radar, by what they are.
            seal: Put on what is kept.
        """
        self._seal = seal
        self._settings = settings
        self._limits = limits
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._known = known
        self._wanted_clients = wanted
        self._watched = dict(watched)
        self._marked: dict[tuple[str, str], Mark] = {}
        self._memory = Memory()
        self._statement_keys: tuple[PublicKey, ...] = ()
        self._dirty_buckets: set[str] = set()
        self._dirty_clients: set[str] = set()
        self._endless: set[str] = set()
        """Clients of whose published certificates some ends may not be known."""
        self.problem = "not yet refreshed"
        self._begun = 0
        self._ended = 0
        self._round_over = trio.Event()
        self._again = trio.Event()
        self._silent = 0
        self._one_list = trio.Lock()
        self._published: tuple[Blip, ...] = ()
        self._kept: tuple[Revoked | None, tuple[str, ...]] = (None, ())
        self.flights = Flights(
            known=known,
            observer=observer,
            fetching=lambda: self._fetching(anew=True),
            seconds=limits.trust_fetch_s,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look once, then again and again until cancelled; started when the first look is over, successful or not.

        Cancellation: the ordinary end; the snapshot stays as last kept.
        """
        self._endless.update(self._known.clients)
        failures = 0 if await self._round() else 1
        task_status.started()
        while True:
            asked = await self._rest(failures)
            failures = 0 if await self._round(anew=asked) else failures + 1

    async def refresh(self) -> str:
        """Look at everything now: the framework pushed, or an operator asks. Return the problem, empty for none.

        Cancellation: harmless; the round goes on.
        """
        wanted = self._begun + 1
        self.ask()
        while self._ended < wanted:
            await self._round_over.wait()
        return self.problem

    def ask(self) -> None:
        """Ask for a look at everything, and do not wait for it."""
        self._again.set()

    async def look(self, organisation_id: str, client_id: str) -> Client | Absent | Problem:
        """Fetch one client and its organisation now, install them, and return the client.

        Cancellation: nothing is installed half.
        """
        try:
            async with self._fetching(anew=True) as fetcher:
                if organisation_id.lower() not in self._known.index.organisations:
                    await self._look_at_index(fetcher)
                if not self._statement_keys:
                    await self._learn_statement_keys(fetcher)
                found = await look_at_client(
                    fetcher, organisation_id, client_id, self._statement_keys
                )
        except (OSError, ssl.SSLError) as error:
            return DocumentFault(f"certificates of the trust settings: {type(error).__name__}")
        if isinstance(found, Client):
            self._known.late = {**self._known.late, client_id: self._clock.now()}
            self._known.install_client(client_id, found)
            self._dirty_clients.add(client_id)
            self._endless.add(client_id)
            await self._keep("trust.looked", [])
        return found

    async def _rest(self, failures: int) -> bool:
        """Wait for the next round: the interval, less after failures, none when asked or the clock was set back; tell whether asked."""
        interval = min(self._settings.refresh, self._settings.keys_refresh)
        if failures:
            interval = min(interval, _RETRY_S[min(failures, len(_RETRY_S)) - 1])
        jitter = int.from_bytes(self._dice.token(2)) / 65536 * 0.1
        began = self._clock.now_ms()
        due = began + interval * 1000 * (1 - jitter)
        while began <= self._clock.now_ms() < due and not self._again.is_set():
            with trio.move_on_after(_LOOK_S):
                await self._again.wait()
        if not self._again.is_set():
            return False
        self._again = trio.Event()
        return True

    def _fetching(self, *, anew: bool) -> AbstractAsyncContextManager[Fetcher]:
        return fetching(self._settings, self._limits, self._clock, self._memory, anew=anew)

    async def _round(self, *, anew: bool = False) -> bool:
        """Look at everything once; tell whether all of it answered."""
        self._begun += 1
        began = self._clock.now()
        confirmed: set[str] = set()
        problems: list[Problem] = []
        try:
            async with self._fetching(anew=anew) as fetcher:
                await self._look_at_shared(fetcher, problems)
                await self._look_at_clients(fetcher, problems, confirmed)
                await self._ask_ocsp(fetcher, anew=anew)
                await self._look_at_ends(fetcher)
        except (OSError, ssl.SSLError, ValueError) as error:
            problems.append(DocumentFault(f"trust settings: {type(error).__name__}: {error}"))
        self._date_clients(began, confirmed)
        self._after(problems)
        await self._sweep_radar()
        self._dirty_clients |= self.flights.landed
        self.flights.landed.clear()
        await self._keep("trust.refreshed", self._shared())
        self._ended = self._begun
        self._round_over.set()
        self._round_over = trio.Event()
        return not problems

    async def _look_at_shared(self, fetcher: Fetcher, problems: list[Problem]) -> None:
        problem = await self._look_at_index(fetcher)
        if problem is not None:
            problems.append(problem)
        problem = await self._learn_statement_keys(fetcher)
        if problem is not None:
            problems.append(problem)
        if self._settings.crl:
            authorities = read_authorities(self._settings.ca)
            now, former = self._clock.now(), self._known.revoked
            revoked = await look_at_revocations(fetcher, authorities, now, former)
            if isinstance(revoked, Revoked):
                self._known.revoked = revoked
            else:
                problems.append(revoked)
        self._known.changed()

    async def _look_at_index(self, fetcher: Fetcher) -> Problem | None:
        """Install the buckets that changed, in small steps; one look at a time, or an older list would overwrite a newer."""
        async with self._one_list:
            try:
                found = await look_at_index(fetcher, self._known.buckets)
                if not isinstance(found, tuple):
                    return found
                await self._install_index(*found)
            except BaseException:  # or a 304 would stand for what was never installed
                fetcher.forget_organisations()
                raise
        return None

    async def _install_index(self, buckets: Mapping[str, bytes], confirmed: int) -> None:
        for bucket, content in buckets.items():
            if self._known.install_bucket(bucket, content):
                self._dirty_buckets.add(bucket)
                await trio.lowlevel.checkpoint()
        self._known.date_index(confirmed)

    async def _look_at_clients(
        self, fetcher: Fetcher, problems: list[Problem], confirmed: set[str]
    ) -> None:
        """Look at every client, a few at a time, as long as somebody answers."""
        waiting = iter(self._wanted_clients().items())
        self._silent = 0

        async def look() -> None:
            for client_id, organisation_id in waiting:
                if self._silent >= _SILENT:
                    return
                began = trio.current_time()
                if await self._look_at_one(fetcher, client_id, organisation_id, problems):
                    confirmed.add(client_id)
                await trio.sleep(min(_REST_S, _REST * (trio.current_time() - began)))

        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(look)

    async def _learn_statement_keys(self, fetcher: Fetcher) -> Problem | None:
        keys = await look_at_statement_keys(fetcher)
        if isinstance(keys, tuple):
            self._statement_keys = keys
            return None
        return keys

    async def _look_at_one(
        self, fetcher: Fetcher, client_id: str, organisation_id: str, problems: list[Problem]
    ) -> bool:
        """Look at one client; tell whether the framework said anything of it that can be believed."""
        former = self._known.clients.get(client_id)
        found = await look_at_client(
            fetcher, organisation_id, client_id, self._statement_keys, former
        )
        self._silent = self._silent + 1 if isinstance(found, Unreachable) else 0
        if isinstance(found, DocumentFault | Unreachable):
            problems.append(found)
            return False
        after = found if isinstance(found, Client) else None
        before = self._known.clients.get(client_id)
        if after is not None and before is not None:
            after = msgspec.structs.replace(after, ends=_ends_of(after, before))
        if client_id not in self._known.clients or before != after:
            self._dirty_clients.add(client_id)
            self._endless.add(client_id)
            self._known.install_client(client_id, after)
        return True

    def _date_clients(self, began: int, confirmed: set[str]) -> None:
        """Date the clients that a round has confirmed; the others keep their date."""
        known = self._known
        if confirmed or not known.clients:
            late = {c: known.confirmed_at(c) for c in known.clients if c not in confirmed}
            known.confirmed, known.late = began, late

    async def _ask_ocsp(self, fetcher: Fetcher, *, anew: bool) -> None:
        """Ask about each certificate in use whose last answer is old; silence changes nothing."""
        if not self._settings.ocsp:
            return
        authorities = read_authorities(self._settings.ca)
        due = [s for s in self._known.seen if anew or self._ocsp_is_old(self._known.ocsp.get(s))]
        waiting = iter([(serial, self._known.seen[serial]) for serial in due])

        async def look() -> None:
            for serial, certificate in waiting:
                answer = await look_at_ocsp(fetcher, certificate, authorities, self._clock.now())
                if answer is not None:
                    self._known.ocsp[serial] = answer

        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(look)
        self._known.ocsp = {
            serial: answer
            for serial, answer in self._known.ocsp.items()
            if answer.revoked or serial in self._known.seen
        }
        self._known.changed()

    def _ocsp_is_old(self, last: OcspAnswer | None) -> bool:
        """Tell whether an answer would be older than ``OCSP_S`` or run out before the next round; true for none."""
        now, interval = self._clock.now(), self._settings.refresh
        if last is None or last.asked > now:
            return True
        return last.asked + OCSP_S < now + interval or last.until <= now + interval

    async def _look_at_ends(self, fetcher: Fetcher) -> None:
        """Learn when published certificates end, at most ``_ENDS`` per round: they are for the radar only."""
        left = _ENDS
        while self._endless and left > 0:
            client = self._known.clients.get(client_id := self._endless.pop())
            missing = missing_ends(client)[:left] if client is not None else []
            if client is None or not missing:
                continue
            left -= len(missing)
            found = await look_at_ends(fetcher, client, missing)
            if not found:
                self._endless.add(client_id)
                return
            if self._known.clients.get(client_id) is client:
                changed = msgspec.structs.replace(client, ends={**client.ends, **found})
                self._known.install_client(client_id, changed)
                self._dirty_clients.add(client_id)
            self._endless.add(client_id)

    def _after(self, problems: Sequence[Problem]) -> None:
        """Note how a round went."""
        if problems:
            self._known.failed_at = self._clock.now()
            self.problem = described(problems[0])
            self._observer.note("trust.refresh_failed", problems=len(problems), why=self.problem)
        else:
            self.problem = ""
            # A clock that was set back must not leave a failure in the future.
            self._known.failed_at = min(self._known.failed_at, self._clock.now())
        self._known.changed()
        age = self._clock.now() - self._known.index.fetched if self._known.index.fetched else -1
        self._observer.gauge("hub_trust_age_seconds", "Age of the trust snapshot", age)
        stale = self._known.age_at_failure()
        for risk, bound in (
            ("reads", self._settings.outage_read),
            ("payments", self._settings.outage_pay),
        ):
            served = int(self._known.index.fetched > 0 and stale <= bound)
            text = f"1 while the trust snapshot is good enough for {risk}"
            self._observer.gauge(f"hub_trust_{risk}", text, served)
        self._observer.gauge(
            "hub_trust_clients", "Clients in the trust snapshot", len(self._known.clients)
        )

    def expiries(self) -> tuple[Blip, ...]:
        """Return what ends within sixty days: our own and the bank's certificates, the CAs', callers', and published keys."""
        files = {"trust client": self._settings.certificate, "trust CA": self._settings.ca}
        files |= self._watched
        now = self._clock.now()
        seen, until = self._known.seen, self._known.seen_until
        soon = [
            seen[serial] for serial, end in until.items() if end <= now + SOON and serial in seen
        ]
        return nearest((*scan_files(files, now), *scan_seen(soon, now), *self._published))

    async def _sweep_radar(self) -> None:
        """Count what ends soon, and note each end once per mark."""
        published: list[Blip] = []
        clients = [client for client in self._known.clients.values() if client is not None]
        for at in range(0, len(clients), _BATCH):
            published += scan_ends(clients[at : at + _BATCH], self._clock.now())
            await trio.lowlevel.checkpoint()
        self._published = tuple(published)
        blips = self.expiries()
        self._observer.gauge(
            "hub_expiring", "Certificates that end within sixty days or have ended", len(blips)
        )
        marks = {(b.id, b.what): b for b in blips}
        for key, found in marks.items():
            if self._marked.get(key) != found.mark:
                self._observer.note(
                    "certificate.ends", owner=found.owner, what=found.what, within=found.mark
                )
        self._marked = {key: found.mark for key, found in marks.items()}

    async def _keep(self, change: str, shared: Sequence[Change]) -> None:
        """Keep what changed, a batch per commit, and then what all share; what is cancelled is kept the next time."""
        buckets, self._dirty_buckets = self._dirty_buckets, set()
        clients, self._dirty_clients = self._dirty_clients, set()
        kept = False
        try:
            kept = await self._keep_batches(change, buckets, clients, shared)
        finally:
            if not kept:
                self._dirty_buckets |= buckets
                self._dirty_clients |= clients
                self._kept = (None, ())
                self._observer.note("trust.snapshot_not_kept")

    async def _keep_batches(
        self, change: str, buckets: set[str], clients: set[str], shared: Sequence[Change]
    ) -> bool:
        known, left = self._known, [*sorted(buckets), *sorted(clients)]
        batches = [left[at : at + _BATCH] for at in range(0, len(left), _BATCH)]
        for batch in [*batches, []]:
            settings = [
                encode_bucket(self._seal, name, known.buckets[name])
                if name in buckets
                else encode_client(self._seal, name, known.clients.get(name))
                for name in batch
            ]
            changes = puts(settings) or shared
            if changes and not await keep(self._keeper, changes, self._event(change, len(changes))):
                return False
        return True

    def _event(self, change: str, count: int) -> Event:
        return Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            verdict=Verdict.FAILED if self.problem else Verdict.ALLOWED,
            check="trust.refresh" if self.problem else "",
            change=change,
            count=count,
        )

    def _shared(self) -> list[Change]:
        """Return the changes that keep the dates, and the other parts that all share where they changed."""
        known = self._known
        ended = known.forget_ended(self._clock.now())
        changes: list[Change] = [Drop("setting", SEEN + serial) for serial in ended]
        revoked, met = known.revoked, tuple(known.seen)
        if self._kept[0] is None or self._kept[0].serials != revoked.serials:
            changes += puts([encode_revoked(self._seal, revoked)])
        if self._kept[1] != met:
            changes += puts([encode_met(self._seal, met)])
        self._kept = (revoked, met)
        dates = Dates(
            index=known.index.fetched,
            clients=known.confirmed,
            late=known.late,
            revoked=revoked.fetched,
            ocsp={serial: answer for serial, answer in known.ocsp.items() if answer.revoked},
            failed=known.failed_at,
        )
        return [*changes, *puts([encode_dates(self._seal, dates)])]


def _ends_of(after: Client, before: Client) -> dict[str, int]:
    """Return what is known of the ends of a client's published keys, those that are gone left out."""
    kids = published_kids(after)
    return {kid: end for kid, end in before.ends.items() if kid in kids}
