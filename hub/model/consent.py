"""The consent: its record, its states, and the table of lawful transitions.

Theory. The Hub's record is the single source of truth. ``status`` is what was last written; what holds *now* is
``status_at(consent, now)``: an Authorized consent past its expiry is Expired from the exact second on, an awaiting
one past its authorization window is Rejected, whether or not a sweep has written it yet. Every reader asks
``status_at``; the sweep only makes it visible as an event. A transition not in ``LAWFUL`` does not exist.

Sources: consents.md section 4; decisions.md section 2.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec


class Status(StrEnum):
    """Enumerate the seven states of the standard."""

    AWAITING = "AwaitingAuthorization"
    AUTHORIZED = "Authorized"
    REJECTED = "Rejected"
    SUSPENDED = "Suspended"
    CONSUMED = "Consumed"
    EXPIRED = "Expired"
    REVOKED = "Revoked"


TERMINAL: Final = frozenset({Status.REJECTED, Status.CONSUMED, Status.EXPIRED, Status.REVOKED})


class Party(StrEnum):
    """Say who acts on a consent."""

    BANK = "bank"
    TPP = "tpp"
    HUB = "hub"


LAWFUL: Final[Mapping[tuple[Status, Status], frozenset[Party]]] = {
    (Status.AWAITING, Status.AUTHORIZED): frozenset({Party.BANK}),
    (Status.AWAITING, Status.REJECTED): frozenset({Party.BANK, Party.HUB}),
    (Status.AWAITING, Status.EXPIRED): frozenset({Party.BANK, Party.HUB}),
    (Status.AWAITING, Status.REVOKED): frozenset({Party.BANK, Party.TPP}),
    (Status.AUTHORIZED, Status.SUSPENDED): frozenset({Party.BANK}),
    (Status.AUTHORIZED, Status.CONSUMED): frozenset({Party.BANK, Party.HUB}),
    (Status.AUTHORIZED, Status.EXPIRED): frozenset({Party.BANK, Party.HUB}),
    (Status.AUTHORIZED, Status.REVOKED): frozenset({Party.BANK, Party.TPP}),
    (Status.SUSPENDED, Status.AUTHORIZED): frozenset({Party.BANK}),
    (Status.SUSPENDED, Status.EXPIRED): frozenset({Party.BANK, Party.HUB}),
    (Status.SUSPENDED, Status.REVOKED): frozenset({Party.BANK, Party.TPP}),
}
"""From and to, with who may do it. Consumed exists for service initiation only (checked by ``may_become``)."""


class ConsentType(StrEnum):
    """Enumerate the Consent Manager's consent types."""

    ACCOUNT_ACCESS = "cbuae-account-access-consents"
    SERVICE_INITIATION = "cbuae-service-initiation-consents"
    INSURANCE = "cbuae-insurance-consents"


class Consent(msgspec.Struct, frozen=True, kw_only=True, tag="consent"):
    """Hold one consent as the Hub keeps it (Consent Manager record, hub-apis 3.2).

    Attributes:
        id: ``Data.ConsentId``, UUID.
        consent_type: One of ``ConsentType``.
        rar_type: ``urn:openfinanceuae:account-access-consent:v2.1``.
        standard_version: ``v2.1``.
        client_id: The TPP client it belongs to.
        organisation_id: Its organisation.
        status: As last written; ask ``status_at`` for what holds.
        group_id: ``BaseConsentId``, or ``id`` for the root of a group.
        par_id: The ``request_uri`` it was staged with.
        request: The authorization detail as received: ``{type, consent, subscription?}``.
        request_headers: Headers of the PAR call, credentials removed (retained.toml).
        body: ``consentBody``: ``{Data, Meta?, Subscription?}``, the current state.
        tpp: The ``tpp`` block.
        request_url: The URL that the TPP called.
        created_ms: When it was staged.
        updated_ms: When it last changed.
        expires: ``ExpirationDateTime`` in seconds.
        authorization_expires: ``AuthorizationExpirationDateTime`` in seconds; 0 for none.
        psu_identifiers: As patched by the bank; None before.
        account_ids: As patched by the bank.
        insurance_policy_ids: As patched by the bank.
        authorization_channel: ``App``, ``Web`` or empty.
        interaction_id: Heimdall interaction of the authorization.
        supplementary: ``supplementaryInformation`` as patched by the bank.
        connect_token: ``ConnectToken`` as patched by the bank; a secret, never logged.
        usage: ``consentUsage``.
        digest: Canonical hash of what the customer approved; empty before.
    """

    id: str
    consent_type: ConsentType
    rar_type: str
    standard_version: str
    client_id: str
    organisation_id: str
    status: Status
    group_id: str
    par_id: str
    request: dict[str, Any]
    request_headers: dict[str, str]
    body: dict[str, Any]
    tpp: dict[str, Any]
    request_url: str
    created_ms: int
    updated_ms: int
    expires: int
    authorization_expires: int = 0
    psu_identifiers: dict[str, Any] | None = None
    account_ids: tuple[str, ...] = ()
    insurance_policy_ids: tuple[str, ...] = ()
    authorization_channel: str = ""
    interaction_id: str = ""
    supplementary: dict[str, Any] | None = None
    connect_token: str = ""
    usage: dict[str, str] = {}
    digest: str = ""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    def indexes(self) -> dict[str, tuple[str | int, ...]]:
        """Return what the store finds it by."""
        user = (self.psu_identifiers or {}).get("userId")
        return {
            "psu": (str(user),) if user else (),
            "account": tuple(dict.fromkeys(self.account_ids + self.insurance_policy_ids)),
            "group": (self.group_id,),
            "type": (str(self.consent_type),),
            "status": (str(self.status),),
            "client": (self.client_id,),
            "organisation": (self.organisation_id,),
            "updated": (self.updated_ms,),
            "due": (_due(self),) if self.status not in TERMINAL else (),
        }

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself; what is long over is looked for (``lfi.forgetting``)."""
        return None


def _due(consent: Consent) -> int:
    if consent.status is Status.AWAITING and consent.authorization_expires:
        return min(consent.authorization_expires, consent.expires)
    return consent.expires


def spellings(identifier: object) -> tuple[str, ...]:
    """Return how a UUID may be spelt that is the same as this one: as it came, and in the other case (RFC 9562 section 4)."""
    if not isinstance(identifier, str) or len(identifier) > 128:
        return ()
    return tuple(dict.fromkeys((identifier, identifier.swapcase())))


def status_at(consent: Consent, now: int) -> Status:
    """Return the status that holds at ``now`` (seconds since 1970), to the exact second."""
    if consent.status in TERMINAL:
        return consent.status
    window = consent.authorization_expires
    if consent.status is Status.AWAITING and window and window <= min(now, consent.expires):
        return Status.REJECTED
    if consent.expires <= now:
        return Status.EXPIRED
    return consent.status


def may_become(consent_type: ConsentType, old: Status, new: Status, party: Party) -> bool:
    """Tell whether ``party`` may take a consent from ``old`` to ``new``."""
    if new is Status.CONSUMED and consent_type is not ConsentType.SERVICE_INITIATION:
        return False
    return party in LAWFUL.get((old, new), frozenset())
