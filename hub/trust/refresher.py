"""Keep the mirror fresh: rounds of refreshing, single key sets on demand, and the snapshot that outlives a restart.

Theory. ``run`` works through rounds at the configured interval, by wall time looked at every second, so that a moved
sandbox clock is noticed. Beside it, ``fly`` fetches single key sets for those who wait in ``refresh_keys``: one fetch
per client however many wait, at most ``_BURST`` in quick succession, then one per ``_REFILL_S`` seconds.

Invariants. A part is replaced only by a newer one that was verified; a failed fetch leaves the old part and moves
``failed_at``. What is installed is kept in the store, dated, with an event.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from hub.trust.known import Known
from hub.trust.mirror import Client, DocumentFault, Revoked
from hub.trust.radar import Blip, Mark, nearest, scan_ends, scan_files, scan_seen
from hub.trust.refresh import (
    Problem,
    described,
    look_at_client,
    look_at_ends,
    look_at_index,
    look_at_keys,
    look_at_ocsp,
    look_at_revocations,
    look_at_statement_keys,
    missing_ends,
    published_kids,
)
from hub.trust.revocation import OcspAnswer, read_authorities
from hub.trust.seal import Seal
from hub.trust.snapshot import SEEN, Dates, encode_bucket, encode_client, encode_dates, keep, puts

_LOOK_S: Final = 1.0
_RETRY_S: Final = (1, 2, 5, 10, 20, 30)
_BURST: Final = 3
_REFILL_S: Final = 30
_WAITING: Final = 1000
_AT_ONCE: Final = 3
"""Looks at the framework under way at once: each wakes this process up, beside the requests that it serves."""
_BATCH: Final = 200
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
        self._flights: dict[str, trio.Event] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._wanted, self._to_fetch = trio.open_memory_channel[str](_WAITING)

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
        self._again.set()
        while self._ended < wanted:
            await self._round_over.wait()
        return self.problem

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
                    fetcher, organisation_id, client_id, self._statement_keys, self._clock.now()
                )
        except (OSError, ssl.SSLError) as error:
            return DocumentFault(f"certificates of the trust settings: {type(error).__name__}")
        if isinstance(found, Client):
            self._known.install_client(client_id, found)
            self._dirty_clients.add(client_id)
            self._endless.add(client_id)
            await self._keep("trust.looked")
        return found

    async def _rest(self, failures: int) -> bool:
        """Wait for the next round: the interval with a little jitter, less after failures, none when asked; tell whether asked."""
        interval = min(self._settings.refresh, self._settings.keys_refresh)
        if failures:
            interval = min(interval, _RETRY_S[min(failures, len(_RETRY_S)) - 1])
        jitter = int.from_bytes(self._dice.token(2)) / 65536 * 0.1
        due = self._clock.now_ms() + interval * 1000 * (1 - jitter)
        while self._clock.now_ms() < due and not self._again.is_set():
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
        problems: list[Problem] = []
        try:
            async with self._fetching(anew=anew) as fetcher:
                await self._look_at_shared(fetcher, problems)
                await self._look_at_clients(fetcher, problems)
                await self._ask_ocsp(fetcher, anew=anew)
                await self._look_at_ends(fetcher)
        except (OSError, ssl.SSLError, ValueError) as error:
            problems.append(DocumentFault(f"trust settings: {type(error).__name__}: {error}"))
        self._after(problems)
        await self._keep("trust.refreshed")
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
            revoked = await look_at_revocations(fetcher, authorities, self._clock.now())
            if isinstance(revoked, Revoked):
                self._known.revoked = revoked
            else:
                problems.append(revoked)
        self._known.changed()

    async def _look_at_index(self, fetcher: Fetcher) -> Problem | None:
        """Install the buckets that changed, in small steps."""
        found = await look_at_index(fetcher)
        if not isinstance(found, tuple):
            return found
        buckets, confirmed = found
        for bucket, content in (buckets or {}).items():
            if self._known.install_bucket(bucket, content):
                self._dirty_buckets.add(bucket)
                await trio.lowlevel.checkpoint()
        self._known.date_index(confirmed)
        return None

    async def _look_at_clients(self, fetcher: Fetcher, problems: list[Problem]) -> None:
        """Look at every client, a few at a time."""
        waiting = iter(self._wanted_clients().items())

        async def look() -> None:
            for client_id, organisation_id in waiting:
                await self._look_at_one(fetcher, client_id, organisation_id, problems)

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
    ) -> None:
        found = await look_at_client(
            fetcher,
            organisation_id,
            client_id,
            self._statement_keys,
            self._clock.now(),
            self._known.clients.get(client_id),
        )
        if isinstance(found, DocumentFault | Unreachable):
            problems.append(found)
            return
        after = found if isinstance(found, Client) else None
        before = self._known.clients.get(client_id)
        if after is not None and before is not None:
            after = msgspec.structs.replace(after, ends=_ends_of(after, before))
        if client_id not in self._known.clients or not _same(before, after):
            self._dirty_clients.add(client_id)
            self._endless.add(client_id)
        self._known.install_client(client_id, after)

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
        self._sweep_radar()
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
        clients = (client for client in self._known.clients.values() if client is not None)
        return nearest(
            (
                *scan_files(files, now),
                *scan_seen(self._known.seen.values(), now),
                *scan_ends(clients, now),
            )
        )

    def _sweep_radar(self) -> None:
        """Count what ends soon, and note each end once per mark."""
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

    async def fly(self) -> None:
        """Fetch the key sets that somebody waits for, until cancelled."""
        async with trio.open_nursery() as nursery:
            async for client_id in self._to_fetch:
                nursery.start_soon(self._fetch_keys, client_id)

    async def _fetch_keys(self, client_id: str) -> None:
        """Fetch one key set and wake all who wait for it."""
        client = self._known.clients.get(client_id)
        try:
            if client is not None:
                await self._fetch_keys_of(client)
        finally:
            self._flights.pop(client_id).set()

    async def _fetch_keys_of(self, client: Client) -> None:
        with trio.move_on_after(self._limits.trust_fetch_s):
            try:
                async with self._fetching(anew=True) as fetcher:
                    found = await look_at_keys(fetcher, client, client.fetched)
            except (OSError, ssl.SSLError) as error:
                self._observer.note("trust.keys_failed", why=type(error).__name__)
                return
            if not isinstance(found, Client):
                self._observer.note("trust.keys_failed", why=described(found))
                return
            if self._known.clients.get(client.client_id) is client:
                self._known.install_client(client.client_id, found)

    async def refresh_keys(self, client_id: str) -> None:
        """Fetch the client's key set once if the rate allows; return when it is in, or after the deadline.

        Cancellation: harmless; the fetch goes on for the others that wait.
        """
        landed = self._flights.get(client_id)
        if landed is None:
            landed = self._take_off(client_id)
        if landed is not None:
            with trio.move_on_after(self._limits.trust_fetch_s):
                await landed.wait()

    def _take_off(self, client_id: str) -> trio.Event | None:
        """Ask the background for one key set, if the client is known and its rate allows."""
        if self._known.clients.get(client_id) is None or not self._allowed(client_id):
            return None
        landed = self._flights[client_id] = trio.Event()
        try:
            self._wanted.send_nowait(client_id)
        except (trio.WouldBlock, trio.BrokenResourceError):
            del self._flights[client_id]
            return None
        return landed

    def _allowed(self, client_id: str) -> bool:
        now = trio.current_time()
        left, since = self._rates.get(client_id, (float(_BURST), now))
        left = min(_BURST, left + (now - since) / _REFILL_S)
        if left < 1:
            return False
        self._rates[client_id] = (left - 1, now)
        return True

    async def _keep(self, change: str) -> None:
        """Keep what changed, and the dates, a batch per commit."""
        buckets, self._dirty_buckets = self._dirty_buckets, set()
        clients, self._dirty_clients = self._dirty_clients, set()
        settings = [
            encode_bucket(self._seal, bucket, self._known.buckets[bucket])
            for bucket in sorted(buckets)
        ]
        settings += [
            encode_client(self._seal, client_id, _undated(self._known.clients.get(client_id)))
            for client_id in sorted(clients)
        ]
        ended = self._known.forget_ended(self._clock.now())
        settings.append(encode_dates(self._seal, self._dates()))
        changes = [*(Drop("setting", SEEN + serial) for serial in ended), *puts(settings)]
        for batch in _batches(changes):
            if not await keep(self._keeper, batch, self._event(change, len(batch))):
                self._dirty_buckets |= buckets
                self._dirty_clients |= clients
                self._observer.note("trust.snapshot_not_kept")
                return

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

    def _dates(self) -> Dates:
        dated = {cid: c.fetched for cid, c in self._known.clients.items() if c is not None}
        return Dates(
            index=self._known.index.fetched,
            clients=dated,
            revoked=self._known.revoked,
            ocsp=self._known.ocsp,
            seen=tuple(self._known.seen),
            failed=self._known.failed_at,
        )


def _undated(client: Client | None) -> Client | None:
    """Return a client as it is kept: its date is kept with all the others'."""
    return None if client is None else msgspec.structs.replace(client, fetched=0)


def _same(before: Client | None, after: Client | None) -> bool:
    return _undated(before) == _undated(after)


def _ends_of(after: Client, before: Client) -> dict[str, int]:
    """Return what is known of the ends of a client's published keys, those that are gone left out."""
    kids = published_kids(after)
    return {kid: end for kid, end in before.ends.items() if kid in kids}


def _batches(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    return (changes[at : at + _BATCH] for at in range(0, len(changes), _BATCH))
