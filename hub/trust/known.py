"""All that is known of the framework and of this tenant's registrations, in memory, and the judgement made from it.

Theory. Parts are installed whole; each installation begins a new epoch, and what was derived in an older one (warm
callers) is not used again, so that derived values can never outlive their sources. The organisations come in buckets, so
that a change of one costs one bucket's decoding and no more; the dates of all clients are one number, and those that
differ from it. So no installation walks over all that is known: whoever serves requests in the same process would wait
for it. A warm caller is one dictionary look-up and three comparisons: the certificate's thumbprint stands for all that
was checked of it.

A client that is registered here but of which the framework has not told us yet (or again) is ``loading``: refused with
``trust.stale`` and a short ``Retry-After``, never with a verdict on a fact that we do not have.
"""

from collections.abc import Callable
from typing import Final, final

import msgspec

from hub.model.caller import Caller, Peer
from hub.model.fault import Fault
from hub.model.records import Registration
from hub.protocol.jose import PublicKey
from hub.trust.decide import Bounds, Standing, caller_of, decide, decide_standing, loading, refuse
from hub.trust.mirror import ACTIVE, Client, Index, Revoked
from hub.trust.refresh import usable_keys
from hub.trust.revocation import OcspAnswer
from hub.trust.snapshot import read_bucket
from hub.trust.view import Risk

_WARM: Final = 50_000
_SEEN: Final = 10_000
_WEEK: Final = 7 * 86_400


class _Warm(msgspec.Struct, frozen=True):
    caller: Caller
    not_after: int
    age: int
    epoch: int


@final
class Known:
    """Hold the parts, and judge."""

    def __init__(self, bounds: Bounds, *, crl: bool, failed_at: int) -> None:
        """Begin knowing nothing.

        Args:
            bounds: The outage policy.
            crl: Whether a revocation list is part of what must be fresh.
            failed_at: Seconds; the moment of the start, so that nothing known counts as stale.
        """
        self._bounds = bounds
        self._crl = crl
        self.index = Index()
        self.buckets: dict[str, bytes] = {}
        """Encoded content of each bucket of the index."""
        self.met: Callable[[str], None] = _nobody_asks
        """Told the serial number of each certificate that was not met before."""
        self.clients: dict[str, Client | None] = {}
        """None: the framework said that it does not know it."""
        self.confirmed = 0
        """When the framework last confirmed all clients but the ``late`` ones, seconds; 0 for never."""
        self.late: dict[str, int] = {}
        """When it last confirmed the others."""
        self.registrations: dict[str, Registration] = {}
        self.loading: dict[str, int] = {}
        """How often a registration changed since it was read; a reading that was overtaken is not installed."""
        self.revoked = Revoked()
        self.ocsp: dict[str, OcspAnswer] = {}
        self.seen: dict[str, bytes] = {}
        """Certificates in use by serial number, for the background's OCSP questions."""
        self.seen_until: dict[str, int] = {}
        """When each of them ends, seconds."""
        self.failed_at = failed_at
        self._epoch = 0
        self._keys: dict[str, dict[tuple[str, str], PublicKey]] = {}
        self._warm: dict[str, _Warm] = {}

    def changed(self) -> None:
        """Begin a new epoch: use nothing again that was derived; call it after each installation."""
        self._epoch += 1

    def install_bucket(self, bucket: str, content: bytes) -> bool:
        """Put one bucket of organisations in the place of its former self; tell whether it is another."""
        former = self.buckets.get(bucket)
        if former == content:
            return False
        self.buckets[bucket] = content
        for organisation in () if former is None else read_bucket(former):
            self.index.organisations.pop(organisation.id, None)
        self.index.organisations.update((o.id, o) for o in read_bucket(content))
        self.changed()
        return True

    def date_index(self, fetched: int) -> None:
        """Say when the list of organisations was last confirmed."""
        self.index = msgspec.structs.replace(self.index, fetched=fetched)
        self.changed()

    def install_client(self, client_id: str, client: Client | None) -> None:
        """Put the framework's word on one client in the place of its former one; its keys stay parsed if they are the same."""
        former = self.clients.get(client_id)
        self.clients[client_id] = client
        self.changed()
        if client is None or former is None or _keys_of(former) != _keys_of(client):
            self._keys.pop(client_id, None)

    def install_registration(self, client_id: str, registration: Registration | None) -> None:
        """Put this tenant's registration of one client in the place of its former one."""
        self.loading.pop(client_id, None)
        if registration is None:
            self.registrations.pop(client_id, None)
        else:
            self.registrations[client_id] = registration
        self.changed()

    def distrust_registration(self, client_id: str) -> None:
        """Refuse a client until its changed registration is read again."""
        self.loading[client_id] = self.loading.get(client_id, 0) + 1
        self.changed()

    def judge(self, peer: Peer, now: int, risk: Risk) -> Caller | Fault:
        """Return the caller behind a peer, or the first check that failed."""
        bound = self._bounds.of(risk)
        warm = self._warm.get(peer.x5t_s256)
        if (
            warm is not None
            and warm.epoch == self._epoch
            and now < warm.not_after
            and warm.age <= bound
        ):
            return warm.caller
        if peer.present and self._is_revoked(peer):
            return refuse("trust.certificate_revoked", f"serial {peer.serial}")
        standing = self.standing(peer.client_id)
        if standing is None and peer.present and not self._lists(peer.organisation_id):
            return self._unknown(bound)
        fault = decide(peer, standing, now, bound)
        if fault is not None or standing is None:
            return fault or refuse("trust.not_registered")
        return self._remember(peer, standing)

    def _unknown(self, bound: int) -> Fault:
        """Refuse an organisation that is not listed, or say that we cannot know."""
        age = self.failed_at - self.index.fetched
        if age > bound:
            return refuse("trust.stale", f"index {age} s old")
        return refuse("trust.certificate_unknown_organisation", "organisation is not listed")

    def _lists(self, organisation_id: str) -> bool:
        return organisation_id.lower() in self.index.organisations

    def _remember(self, peer: Peer, standing: Standing) -> Caller | Fault:
        caller = caller_of(standing)
        if caller is None:
            return refuse("trust.software_statement_inactive")
        caller = msgspec.structs.replace(caller, x5t_s256=peer.x5t_s256)
        if len(self._warm) >= _WARM and peer.x5t_s256 not in self._warm:
            del self._warm[next(iter(self._warm))]
        age = standing.age_at_failure
        self._warm[peer.x5t_s256] = _Warm(caller, peer.not_after, age, self._epoch)
        self.meet(peer)
        return caller

    def meet(self, peer: Peer) -> None:
        """Remember a certificate in use, for OCSP and the radar."""
        if peer.serial not in self.seen and len(self.seen) < _SEEN:
            self.remember(peer.serial, peer.certificate, peer.not_after)
            self.met(peer.serial)

    def remember(self, serial: str, certificate: bytes, until: int) -> None:
        """Put a certificate among those in use."""
        self.seen[serial] = certificate
        self.seen_until[serial] = until

    def forget_ended(self, now: int) -> list[str]:
        """Forget the certificates that have ended (a week ago, so that the radar has told of them); return their serials."""
        ended = [serial for serial, until in self.seen_until.items() if until + _WEEK <= now]
        for serial in ended:
            self.seen.pop(serial, None)
            del self.seen_until[serial]
        return ended

    def vet(self, peer: Peer, now: int) -> str:
        """Return the check that speaks against a peer whatever its registration; empty for none."""
        organisation = self.index.organisations.get(peer.organisation_id.lower())
        if peer.not_after <= now:
            return "trust.certificate_expired"
        if not self.index.fetched:
            return "trust.stale"
        if self._is_revoked(peer):
            return "trust.certificate_revoked"
        if organisation is None:
            return "trust.certificate_unknown_organisation"
        return "" if organisation.status == ACTIVE else "trust.organisation_inactive"

    def _is_revoked(self, peer: Peer) -> bool:
        if peer.serial in self.revoked.serials:
            return True
        answer = self.ocsp.get(peer.serial)
        if answer is not None and answer.revoked:
            return True  # until a newer answer says otherwise: silence takes nothing back
        client = self.clients.get(peer.client_id)
        return client is not None and peer.x5t_s256 in client.revoked

    def caller(self, client_id: str) -> Caller | None:
        """Return a client that would pass every check that needs no certificate, or None."""
        standing = self.standing(client_id)
        if standing is None or standing.loading:
            return None
        if decide_standing(standing, self._bounds.read) is not None:
            return None
        return caller_of(standing)

    def explain(self, client_id: str) -> Fault | None:
        """Return the first check that a client fails whatever certificate it presents, or None."""
        standing = self.standing(client_id)
        if standing is None:
            return refuse("trust.not_registered")
        if standing.loading:
            return loading()
        return decide_standing(standing, self._bounds.read)

    def standing(self, client_id: str) -> Standing | None:
        """Return all that is known of a client, or None where nothing is."""
        if client_id not in self.registrations and client_id not in self.loading:
            return None
        registration = self.registrations.get(client_id)
        if client_id in self.loading or registration is None or client_id not in self.clients:
            return Standing(registration=registration, loading=True)
        client = self.clients[client_id]
        return Standing(
            organisation=self.index.organisations.get(registration.organisation_id.lower()),
            client=client,
            registration=registration,
            age_at_failure=self.failed_at - self._oldest(client_id if client is not None else ""),
        )

    def confirmed_at(self, client_id: str) -> int:
        """Return when the framework last confirmed what we know of a client, seconds; 0 for never."""
        return self.late.get(client_id, self.confirmed)

    def _oldest(self, client_id: str) -> int:
        dates = [self.index.fetched]
        if client_id:
            dates.append(self.confirmed_at(client_id))
        if self._crl:
            dates.append(self.revoked.fetched)
        return min(dates)

    def age_at_failure(self) -> int:
        """Return the age of the oldest shared part at the last failed refresh; 0 or less for fresh."""
        return self.failed_at - self._oldest("")

    def keys(self, client_id: str) -> dict[tuple[str, str], PublicKey]:
        """Return a client's keys by ``kid`` and ``use``, parsed once."""
        if client_id not in self._keys:
            client = self.clients.get(client_id)
            if client is None:
                return {}
            self._keys[client_id] = usable_keys(client)
        return self._keys[client_id]


def _keys_of(client: Client) -> tuple[bytes, tuple[str, ...]]:
    return client.key_set, client.revoked


def _nobody_asks(_serial: str) -> None:
    """Tell nobody."""
