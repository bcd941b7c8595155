"""The Trust Framework as the rest of the Hub sees it: judged in memory, refreshed in the background.

Theory. ``run`` owns the only nursery: in it the refresher keeps the mirror fresh, and registrations that somebody
changed are read again. Requests never fetch anything themselves, except a TPP's own registration.

Invariant. A changed registration is refused from the moment the keeper announces it until it is read again, so a block
holds when it is acknowledged.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

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
from hub.protocol.jose import PublicKey, encrypts
from hub.protocol.peer import read_peer
from hub.state.keeper import Invalidation, Keeper, Put, Query
from hub.trust.decide import Bounds, refuse
from hub.trust.enrol import Enrolment
from hub.trust.known import Known
from hub.trust.push import Notifications, read_push_key
from hub.trust.radar import Blip
from hub.trust.refresher import Refresher
from hub.trust.seal import Seal
from hub.trust.snapshot import (
    BUCKETS,
    CLIENT,
    DATES,
    INDEX,
    PUSHED,
    REVOKED,
    SEEN,
    Dates,
    encode_seen,
    load,
    load_client,
    load_dates,
    load_met,
    load_revoked,
)
from hub.trust.view import Risk


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
        watched: Mapping[str, Path] = MappingProxyType({}),
        seal: Seal,
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
            watched: Certificate files on the expiry radar besides ours for the framework, by what they are.
            seal: Put on what is kept of the framework; the same in every process of the tenant.
            leader: False: the snapshot is somebody else's work; read it from the keeper as it changes.
        """
        self._settings = settings
        self._keeper = keeper
        self._also = {client: organisation for organisation, client in also}
        self._leader = leader
        self._limits = limits
        bounds = Bounds(read=settings.outage_read, pay=settings.outage_pay)
        self._known = Known(bounds, crl=bool(settings.crl), failed_at=clock.now())
        self._refresher = Refresher(
            settings=settings,
            limits=limits,
            keeper=keeper,
            clock=clock,
            dice=dice,
            observer=observer,
            known=self._known,
            wanted=self._wanted_clients,
            watched=watched,
            seal=seal,
        )
        self._seal = seal
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._known.met = self._met
        self._changed: set[tuple[str, str]] = set()
        self._heard = (SEEN, PUSHED) if leader else ("trust/",)
        self._wake = trio.Event()
        self._pushed: tuple[int, str] = (0, "")
        self._notifications = Notifications(
            read_push_key(settings.push_key) if settings.push_key else b"",
            keeper=keeper,
            clock=clock,
            dice=dice,
            seal=seal,
        )
        self._enrolment = Enrolment(
            keeper=keeper,
            clock=clock,
            dice=dice,
            auto_activate=settings.auto_activate,
            look=self._refresher.look,
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

    def vet(self, peer: Peer, now: int) -> Fault | None:
        """Return what speaks against a certificate of a party that needs no registration (the bank), or None.

        Faults: ``trust.certificate_missing``, ``trust.certificate_expired``, ``trust.certificate_revoked``,
        ``trust.certificate_unknown_organisation``, ``trust.organisation_inactive``; ``trust.stale`` while nothing at
        all is known of the framework.
        """
        if not peer.present:
            return refuse("trust.certificate_missing")
        check = self._known.vet(peer, now)
        if check:
            return refuse(check)
        self._known.meet(peer)
        return None

    def explain(self, client_id: str) -> Fault | None:
        """Return the first check that a client fails whatever certificate it presents, or None."""
        return self._known.explain(client_id)

    def key(self, client_id: str, kid: str, use: str) -> PublicKey | None:
        """Return the client's current key with that ``kid`` and ``use``, or None."""
        return self._known.keys(client_id).get((kid, use))

    def encryption_key(self, client_id: str) -> PublicKey | None:
        """Return the client's newest key that can be encrypted to (the last of its set), or None."""
        keys = self._known.keys(client_id)
        return next((key for key in reversed(keys.values()) if encrypts(key)), None)

    async def refresh_keys(self, client_id: str) -> None:
        """Fetch the client's key set once if the rate allows; return when it is in, or after the deadline.

        Cancellation: harmless; the fetch goes on for the others that wait.
        """
        await self._refresher.flights.refresh_keys(client_id)

    # -- for node, portal and operators

    def tpp_routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers of this package on the TPP edge, by method and path."""
        return {**self._enrolment.routes(), **self._notifications.routes()}

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
            "problem": self._refresher.problem,
            "notified": self._pushed[0],
            "notification": self._pushed[1],
        }

    def expiries(self) -> tuple[Blip, ...]:
        """Return what ends within sixty days or has ended, nearest first."""
        return self._refresher.expiries()

    async def refresh(self) -> str:
        """Look at everything now: the framework pushed, or an operator asks. Return the problem, empty for none.

        Cancellation: harmless; the round goes on.
        """
        return await self._refresher.refresh()

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
                nursery.start_soon(self._refresher.flights.fly)
                if self._leader:
                    await nursery.start(self._refresher.run)
                task_status.started()
        finally:
            unwatch()

    def _wanted_clients(self) -> dict[str, str]:
        """Return the clients to mirror with their organisations: registered ones, and the bank's own."""
        registered = {r.client_id: r.organisation_id for r in self._known.registrations.values()}
        return self._also | registered

    async def _load(self) -> None:
        dates = await load_dates(self._keeper, self._seal)
        for bucket in BUCKETS:
            content = await load(self._keeper, self._seal, INDEX + bucket)
            if content is not None:
                self._known.install_bucket(bucket, content)
        self._known.revoked = await load_revoked(self._keeper, self._seal)
        self._apply_dates(dates)
        for serial in await load_met(self._keeper, self._seal):
            await self._load_seen(serial)
        for registration in await self._registrations():
            self._known.install_registration(registration.client_id, registration)
        for client_id in self._wanted_clients():
            await self._load_client(client_id)
        self._known.changed()
        await self._tell_of_broken_seals()

    async def _tell_of_broken_seals(self) -> None:
        """Say what was kept but is not ours or not whole; it is as if it had never been kept."""
        broken, self._seal.broken = self._seal.broken, []
        if not broken:
            return
        self._observer.note("trust.snapshot_rejected", records=len(broken), first=broken[0])
        event = self._event(
            "trust.loaded",
            verdict=Verdict.REFUSED,
            check="trust.snapshot_rejected",
            subject=broken[0][:64],
            count=len(broken),
        )
        await self._keeper.commit([], [event])

    async def _load_seen(self, serial: str) -> None:
        certificate = await load(self._keeper, self._seal, SEEN + serial)
        if certificate is None or serial in self._known.seen:
            return
        peer = read_peer(certificate, address="", tls_version="")
        if not isinstance(peer, Fault):
            self._known.remember(serial, certificate, peer.not_after)

    def _met(self, serial: str) -> None:
        """Hear of a certificate that was not met before: it is kept for the process that asks about it, and for a restart."""
        self._changed.add(("met", serial))
        self._wake.set()

    async def _tell_met(self, serial: str) -> None:
        certificate = self._known.seen.get(serial)
        if certificate is not None:
            event = self._event("trust.met", subject=serial[:64])
            await self._keeper.commit([Put(encode_seen(self._seal, serial, certificate))], [event])

    def _event(self, change: str, **members: Any) -> Event:
        return Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            change=change,
            **members,
        )

    async def _load_client(self, client_id: str) -> None:
        stored = await load_client(self._keeper, self._seal, client_id)
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
        elif what.kind != "setting" or not what.key.startswith(self._heard):
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
                elif kind == "met":
                    await self._tell_met(key)
                else:
                    await self._reload_snapshot(key)
            await self._tell_of_broken_seals()

    async def _reload_registration(self, client_id: str) -> None:
        """Read one registration again; one that changed meanwhile is left to the next reading."""
        before = self._known.loading.get(client_id, 0)
        found = await self._keeper.lookup(Registration, client_id)
        if self._known.loading.get(client_id, 0) != before:
            return
        self._known.install_registration(client_id, None if found is None else found[0])
        if found is not None and client_id not in self._known.clients:
            await self._load_client(client_id)

    async def _reload_snapshot(self, key: str) -> None:
        """Read one record of the snapshot again, which another process has written."""
        if key.startswith(SEEN):
            await self._load_seen(key.removeprefix(SEEN))
        elif key == PUSHED:
            await self._notified()
        elif key == DATES:
            self._apply_dates(await load_dates(self._keeper, self._seal))
        elif key.startswith(INDEX):
            content = await load(self._keeper, self._seal, key)
            if content is not None:
                self._known.install_bucket(key.removeprefix(INDEX), content)
        elif key.startswith(CLIENT):
            await self._load_client(key.removeprefix(CLIENT))
        elif key == REVOKED:
            fetched = self._known.revoked.fetched
            read = await load_revoked(self._keeper, self._seal)
            self._known.revoked = msgspec.structs.replace(read, fetched=fetched)
        self._known.changed()

    async def _notified(self) -> None:
        """Hear that the framework has pushed: look at everything, if that is this process's work."""
        content = await load(self._keeper, self._seal, PUSHED) if self._leader else None
        if content is not None:
            text = content.decode(errors="replace")
            shown = "".join(char if char.isprintable() else " " for char in text)
            self._pushed = (self._clock.now(), shown)
            self._refresher.ask()

    def _apply_dates(self, dates: Dates) -> None:
        revoked = msgspec.structs.replace(self._known.revoked, fetched=dates.revoked)
        self._known.revoked = revoked
        self._known.ocsp = dict(dates.ocsp)
        self._known.confirmed, self._known.late = dates.clients, dates.late
        if self._leader:
            self._known.failed_at = max(self._known.failed_at, dates.failed)
        elif dates.failed:
            self._known.failed_at = dates.failed
        self._known.date_index(dates.index)
