"""The Trust Framework as the rest of the Hub sees it: judged in memory, refreshed in the background.

Theory. ``run`` owns the only nursery. In it: rounds of refreshing at the configured interval (by wall time, looked at
every second, so that a moved sandbox clock is noticed), fetches of single key sets for those who wait in
``refresh_keys``, and the re-reading of registrations that somebody changed. Requests never fetch anything themselves,
except a TPP's own registration.

Invariants. A part is replaced only by a newer one that was verified; a failed fetch leaves the old part and moves
``failed_at``. A changed registration is refused from the moment the keeper announces it until it is read again, so a
block holds when it is acknowledged. One fetch per client however many wait, and at most ``_BURST`` in quick succession,
then one per ``_REFILL_S`` seconds.
"""

import ssl
from collections.abc import Mapping, Sequence
from typing import Final, final

import msgspec
import trio

from hub.config import Limits, Tenant, TrustSettings
from hub.model.caller import Caller, Peer
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.http import Handler
from hub.model.records import Registration
from hub.observe import Observer
from hub.protocol.jose import PublicKey
from hub.state.keeper import Invalidation, Keeper, Query
from hub.trust.decide import Bounds
from hub.trust.enrol import Enrolment
from hub.trust.fetch import Absent, Document, Fetcher, Memory, fetching
from hub.trust.known import Known
from hub.trust.mirror import Client, DocumentFault, Index, Revoked
from hub.trust.refresh import (
    Problem,
    described,
    look_at_client,
    look_at_index,
    look_at_keys,
    look_at_revocations,
    look_at_statement_keys,
)
from hub.trust.revocation import ask_for, read_authorities, read_ocsp
from hub.trust.snapshot import (
    CLIENT,
    DATES,
    INDEX,
    Dates,
    encode_client,
    encode_dates,
    encode_index,
    keep,
    load_client,
    load_dates,
    load_index,
)
from hub.trust.view import Risk

_LOOK_S: Final = 1.0
_RETRY_S: Final = (1, 2, 5, 10, 20, 30)
_BURST: Final = 3
_REFILL_S: Final = 20
_WAITING: Final = 1000


@final
class Trust:
    """Keep the mirror fresh, and judge by it. Implements ``TrustView``."""

    def __init__(
        self,
        *,
        settings: TrustSettings,
        tenant: Tenant,
        keeper: Keeper,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        limits: Limits,
        also: Sequence[tuple[str, str]] = (),
        leader: bool = True,
    ) -> None:
        """Know nothing yet; ``run`` begins.

        Args:
            settings: Where the framework is, and the outage policy.
            tenant: Whose Hub this is.
            keeper: For registrations and the snapshot.
            clock: Wall time.
            dice: For jitter and ids.
            observer: For notes and gauges.
            limits: Bounds on documents and time.
            also: Pairs of organisation and client whose keys are mirrored without a registration (the bank's own).
            leader: False: the snapshot is somebody else's work; read it from the keeper as it changes.
        """
        self._settings = settings
        self._tenant = tenant
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._limits = limits
        self._also = {client: organisation for organisation, client in also}
        self._leader = leader
        bounds = Bounds(read=settings.outage_read, pay=settings.outage_pay)
        self._known = Known(bounds, crl=bool(settings.crl), failed_at=clock.now())
        self._memory = Memory()
        self._statement_keys: tuple[PublicKey, ...] = ()
        self._kept: dict[str, bytes] = {}
        self._problem = "not yet refreshed"
        self._begun = 0
        self._ended = 0
        self._round_over = trio.Event()
        self._flights: dict[str, trio.Event] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._wanted, self._to_fetch = trio.open_memory_channel[str](_WAITING)
        self._changed: set[tuple[str, str]] = set()
        self._wake = trio.Event()
        self._again = trio.Event()
        self._enrolment = Enrolment(
            keeper=keeper,
            clock=clock,
            dice=dice,
            auto_activate=settings.auto_activate,
            look=self.look,
            vet=lambda peer: self._known.vet(peer, clock.now()),
            installed=self._reload_registration,
        )

    # -- TrustView

    def judge(self, peer: Peer, now: int, risk: Risk = Risk.READ) -> Caller | Fault:
        """Return the caller behind a peer, or the Fault that says which check failed."""
        return self._known.judge(peer, now, risk)

    def caller(self, client_id: str) -> Caller | None:
        """Return a registered and active client by id, or None."""
        return self._known.caller(client_id)

    def explain(self, client_id: str) -> Fault | None:
        """Return the first check that a client fails whatever certificate it presents, or None."""
        return self._known.explain(client_id)

    def key(self, client_id: str, kid: str, use: str) -> PublicKey | None:
        """Return the client's current key with that ``kid`` and ``use``, or None."""
        return self._known.keys(client_id).get((kid, use))

    def encryption_key(self, client_id: str) -> PublicKey | None:
        """Return the client's newest ``enc`` key (the last of its set), or None."""
        keys = self._known.keys(client_id)
        return next((key for (_, use), key in reversed(keys.items()) if use == "enc"), None)

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

    # -- for node, portal and operators

    def tpp_routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers of this package on the TPP edge, by method and path."""
        return self._enrolment.routes()

    def ready(self) -> bool:
        """Tell whether the snapshot is good enough for reads: there is one, and its outage bound is not reached."""
        return bool(self.status()["ready"])

    def status(self) -> dict[str, object]:
        """Return readiness for ``/readyz`` and the portal: fresh enough for reads, how old, and the last problem."""
        age = max(0, self._known.age_at_failure())
        return {
            "ready": self._known.index.fetched > 0 and age <= self._settings.outage_read,
            "payments": self._known.index.fetched > 0 and age <= self._settings.outage_pay,
            "fetched": self._known.index.fetched,
            "organisations": len(self._known.index.organisations),
            "clients": len(self._known.clients),
            "registrations": len(self._known.registrations),
            "revoked": len(self._known.revoked.serials),
            "problem": self._problem,
        }

    async def refresh(self) -> str:
        """Look at everything now: the framework pushed, or an operator asks. Return the problem, empty for none.

        Cancellation: harmless; the round goes on.
        """
        wanted = self._begun + 1
        self._again.set()
        while self._ended < wanted:
            await self._round_over.wait()
        return self._problem

    async def look(self, organisation_id: str, client_id: str) -> Client | Absent | Problem:
        """Fetch one client and its organisation now, install them, and return the client.

        Cancellation: nothing is installed half.
        """
        try:
            async with fetching(self._settings, self._limits, self._clock, self._memory) as fetcher:
                if organisation_id.lower() not in self._known.index.organisations:
                    index = await look_at_index(fetcher, self._known.index, self._clock.now())
                    if isinstance(index, Index):
                        self._known.index = index
                        self._known.changed()
                if not self._statement_keys:
                    await self._learn_statement_keys(fetcher)
                found = await look_at_client(
                    fetcher, organisation_id, client_id, self._statement_keys, self._clock.now()
                )
        except (OSError, ssl.SSLError) as error:
            return DocumentFault(f"certificates of the trust settings: {type(error).__name__}")
        if isinstance(found, Client):
            self._known.install_client(client_id, found)
            await self._keep_clients([client_id])
        return found

    # -- the background

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load the stored snapshot, look at the framework once, then keep the mirror fresh until cancelled.

        Started when the first look is over, successful or not: without a snapshot everything is refused with
        ``trust.stale`` until the framework answers.

        Cancellation: the ordinary end; the snapshot stays as last kept.
        """
        await self._load()
        unwatch = self._keeper.watch(self._forget)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_changes)
                nursery.start_soon(self._fly)
                failures = 0 if not self._leader or await self._round() else 1
                task_status.started()
                while True:
                    await self._rest(failures)
                    if self._leader:
                        failures = 0 if await self._round() else failures + 1
        finally:
            unwatch()

    async def _rest(self, failures: int) -> None:
        """Wait for the next round: the interval with a little jitter, less after failures, none when asked."""
        interval = min(self._settings.refresh, self._settings.keys_refresh)
        if failures:
            interval = min(interval, _RETRY_S[min(failures, len(_RETRY_S)) - 1])
        jitter = int.from_bytes(self._dice.token(2)) / 65536 * 0.1
        due = self._clock.now_ms() + interval * 1000 * (1 - jitter)
        while self._clock.now_ms() < due and not self._again.is_set():
            with trio.move_on_after(_LOOK_S):
                await self._again.wait()
        if self._again.is_set():
            self._again = trio.Event()

    async def _round(self) -> bool:
        """Look at everything once; tell whether all of it answered."""
        self._begun += 1
        problems: list[Problem] = []
        try:
            async with fetching(self._settings, self._limits, self._clock, self._memory) as fetcher:
                await self._look_at_shared(fetcher, problems)
                wanted = self._wanted_clients()
                async with trio.open_nursery() as nursery:
                    for client_id, organisation_id in wanted.items():
                        nursery.start_soon(
                            self._look_at_one, fetcher, client_id, organisation_id, problems
                        )
                await self._ask_ocsp(fetcher)
        except (OSError, ssl.SSLError, ValueError) as error:
            problems.append(DocumentFault(f"trust settings: {type(error).__name__}: {error}"))
        self._after(problems)
        await self._keep_round()
        self._ended = self._begun
        self._round_over.set()
        self._round_over = trio.Event()
        return not problems

    def _wanted_clients(self) -> dict[str, str]:
        registered = {r.client_id: r.organisation_id for r in self._known.registrations.values()}
        return self._also | registered

    async def _look_at_shared(self, fetcher: Fetcher, problems: list[Problem]) -> None:
        now = self._clock.now()
        index = await look_at_index(fetcher, self._known.index, now)
        if isinstance(index, Index):
            self._known.index = index
        else:
            problems.append(index)
        problem = await self._learn_statement_keys(fetcher)
        if problem is not None:
            problems.append(problem)
        if self._settings.crl:
            authorities = read_authorities(self._settings.ca)
            revoked = await look_at_revocations(fetcher, authorities, now)
            if isinstance(revoked, Revoked):
                self._known.revoked = revoked
            else:
                problems.append(revoked)
        self._known.changed()

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
            fetcher, organisation_id, client_id, self._statement_keys, self._clock.now()
        )
        if isinstance(found, Client):
            self._known.install_client(client_id, found)
        elif isinstance(found, Absent):
            self._known.install_client(client_id, None)
        else:
            problems.append(found)

    async def _ask_ocsp(self, fetcher: Fetcher) -> None:
        """Ask about each certificate in use whose last answer has run out; silence changes nothing."""
        if not self._settings.ocsp:
            return
        authorities = read_authorities(self._settings.ca)
        now = self._clock.now()
        for serial, certificate in list(self._known.seen.items()):
            last = self._known.ocsp.get(serial)
            if last is not None and now + self._settings.refresh < last.until:
                continue
            question = ask_for(certificate, authorities)
            answer = await fetcher.ask_ocsp(question) if question is not None else None
            if isinstance(answer, Document):
                read = read_ocsp(answer.body, certificate, authorities, now)
                if not isinstance(read, DocumentFault):
                    self._known.ocsp[serial] = read
        self._known.changed()

    def _after(self, problems: Sequence[Problem]) -> None:
        """Note how a round went."""
        if problems:
            self._known.failed_at = self._clock.now()
            self._problem = described(problems[0])
            self._observer.note("trust.refresh_failed", problems=len(problems), why=self._problem)
        else:
            self._problem = ""
        self._known.changed()
        age = self._clock.now() - self._known.index.fetched if self._known.index.fetched else -1
        self._observer.gauge("hub_trust_age_seconds", "Age of the trust snapshot", age)
        self._observer.gauge(
            "hub_trust_clients", "Clients in the trust snapshot", len(self._known.clients)
        )

    # -- key sets on demand

    async def _fly(self) -> None:
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
                async with fetching(
                    self._settings, self._limits, self._clock, self._memory
                ) as fetcher:
                    found = await look_at_keys(fetcher, client, client.fetched)
            except (OSError, ssl.SSLError) as error:
                self._observer.note("trust.keys_failed", why=type(error).__name__)
                return
            if not isinstance(found, Client):
                self._observer.note("trust.keys_failed", why=described(found))
                return
            if self._known.clients.get(client.client_id) is client:
                self._known.install_client(client.client_id, found)

    # -- the snapshot and the registrations

    async def _load(self) -> None:
        dates = await load_dates(self._keeper)
        self._known.index = await load_index(self._keeper, dates.index)
        self._known.revoked = dates.revoked
        for registration in await self._registrations():
            self._known.install_registration(registration.client_id, registration)
        for client_id in self._wanted_clients():
            await self._load_client(client_id, dates.clients.get(client_id, 0))
        self._known.changed()

    async def _load_client(self, client_id: str, fetched: int) -> None:
        stored = await load_client(self._keeper, client_id, fetched)
        if stored is not None:
            self._known.install_client(client_id, stored.client)

    async def _registrations(self) -> list[Registration]:
        found: list[Registration] = []
        while True:
            page = await self._keeper.search(
                Query(kind="registration", offset=len(found), limit=1000)
            )
            found += [i.record for i in page.items if isinstance(i.record, Registration)]
            if len(page.items) < 1000 or len(found) >= self._limits.trust_clients:
                return found

    def _forget(self, what: Invalidation) -> None:
        """Hear that a record changed: distrust a registration at once, and have it read again."""
        if what.kind == "registration":
            self._known.distrust_registration(what.key)
        elif what.kind != "setting" or self._leader or not what.key.startswith("trust/"):
            return
        self._changed.add((what.kind, what.key))
        self._wake.set()

    async def _follow_changes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            changed, self._changed = self._changed, set()
            for kind, key in changed:
                if kind == "registration":
                    await self._reload_registration(key)
                else:
                    await self._reload_snapshot(key)

    async def _reload_registration(self, client_id: str) -> None:
        """Read one registration again; one that changed meanwhile is left to the next reading."""
        before = self._known.loading.get(client_id, 0)
        found = await self._keeper.lookup(Registration, client_id)
        if self._known.loading.get(client_id, 0) != before:
            return
        self._known.install_registration(client_id, None if found is None else found[0])
        if found is not None and client_id not in self._known.clients:
            await self._load_client(client_id, 0)

    async def _reload_snapshot(self, key: str) -> None:
        dates = await load_dates(self._keeper)
        if key == INDEX:
            self._known.index = await load_index(self._keeper, dates.index)
        elif key == DATES:
            self._apply_dates(dates)
        elif key.startswith(CLIENT):
            client_id = key.removeprefix(CLIENT)
            await self._load_client(client_id, dates.clients.get(client_id, 0))
        self._known.changed()

    def _apply_dates(self, dates: Dates) -> None:
        self._known.revoked = dates.revoked
        self._known.index = msgspec.structs.replace(self._known.index, fetched=dates.index)
        for client_id, fetched in dates.clients.items():
            client = self._known.clients.get(client_id)
            if client is not None:
                dated = msgspec.structs.replace(client, fetched=fetched)
                self._known.install_client(client_id, dated)

    async def _keep_round(self) -> None:
        """Keep what changed, and the dates."""
        index = encode_index(self._known.index)
        settings = [index] if self._kept.get(INDEX) != index.value else []
        await self._keep_clients(list(self._known.clients), settings)

    async def _keep_clients(self, client_ids: Sequence[str], more: Sequence = ()) -> None:  # type: ignore[type-arg]
        settings = list(more)
        for client_id in client_ids:
            undated = self._known.clients[client_id]
            if undated is not None:
                undated = msgspec.structs.replace(undated, fetched=0)
            setting = encode_client(client_id, undated)
            if self._kept.get(setting.name) != setting.value:
                settings.append(setting)
        settings.append(encode_dates(self._dates()))
        event = Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            verdict=Verdict.FAILED if self._problem else Verdict.ALLOWED,
            check="trust.refresh" if self._problem else "",
            change="trust.refreshed",
            count=len(settings),
        )
        if await keep(self._keeper, settings, event):
            self._kept.update((setting.name, setting.value) for setting in settings)
        else:
            self._observer.note("trust.snapshot_not_kept")

    def _dates(self) -> Dates:
        dated = {cid: c.fetched for cid, c in self._known.clients.items() if c is not None}
        return Dates(index=self._known.index.fetched, clients=dated, revoked=self._known.revoked)
