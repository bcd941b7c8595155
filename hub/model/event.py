"""The audit event, version 1: what happened, who did it, which check decided; never a payload.

The schema is closed and versioned, holds only strings, integers and booleans, and each event is a leaf of the
RFC 6962 tree from the first one on. The leaf is exactly ``leaf_bytes(event)``; the stored bytes are the truth,
verifiers hash bytes and never re-serialise. Adding a field makes version 2. Identifiers of customers never
occur; a consent id does.
"""

from enum import StrEnum
from typing import Final

import msgspec

from hub.model.terms import Face


class Kind(StrEnum):
    """Enumerate what can happen."""

    CALL = "call"
    """One request and its answer at a face."""
    INTENT = "intent"
    """A side effect at the bank is about to be asked for (payments)."""
    OUTCOME = "outcome"
    """What became of an intent."""
    OPENED = "opened"
    """A streamed answer begins."""
    CLOSED = "closed"
    """A streamed answer has ended."""
    REFUSED = "refused"
    """An aggregate of refusals before a caller was identified (per network, reason and minute)."""
    CONSENT = "consent"
    """A consent changed its state."""
    TOKEN = "token"  # noqa: S105 - a kind of event
    """Tokens were issued or revoked."""
    REGISTRATION = "registration"
    """A TPP was registered, activated, blocked or re-synchronised."""
    CONFIGURATION = "configuration"
    KEY = "key"
    ADMIN = "admin"
    """An operator acted or read."""
    NODE = "node"
    """Start, stop, failure, recovery."""


class Verdict(StrEnum):
    """Say how it ended."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


EVENT_VERSION: Final = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one audit event.

    Attributes:
        kind: What happened.
        time_ms: Wall time, milliseconds since 1970 UTC.
        interaction_id: ``x-fapi-interaction-id`` of the call, or a UUID made for it.
        face: The face it happened at.
        client_id: The calling client, once identified.
        organisation_id: Its organisation.
        x5t_s256: Thumbprint of the caller's certificate.
        consent_id: The consent concerned.
        route: The route's id (``account-information.accounts``, ``par``, ``heimdall.auth``).
        verdict: How it ended.
        check: The deciding check where it was refused or failed.
        code: The standard's error code that was answered.
        status: The HTTP status that was answered; 0 where there is none.
        octets_in: Size of the request body.
        octets_out: Size of the answer's body.
        hub_us: Time spent in the Hub, microseconds.
        bank_us: Time spent waiting for the bank, microseconds.
        subject: What was changed (a record's id), where the event is a change.
        change: From and to (``AwaitingAuthorization>Authorized``), or the action's name.
        count: How many refusals an aggregate stands for.
        approved: The digest of what the customer approved, in the event of the approval and of tokens issued for it.
    """

    v: int = EVENT_VERSION
    kind: Kind
    time_ms: int
    interaction_id: str = ""
    face: Face = Face.NODE
    client_id: str = ""
    organisation_id: str = ""
    x5t_s256: str = ""
    consent_id: str = ""
    route: str = ""
    verdict: Verdict = Verdict.ALLOWED
    check: str = ""
    code: str = ""
    status: int = 0
    octets_in: int = 0
    octets_out: int = 0
    hub_us: int = 0
    bank_us: int = 0
    subject: str = ""
    change: str = ""
    count: int = 0
    approved: str = ""


_ENCODER: Final = msgspec.json.Encoder()


def leaf_bytes(event: Event) -> bytes:
    """Return the canonical bytes of an event: JSON, members in the order of the schema, defaults omitted but ``v``."""
    return b'{"v":%d,' % event.v + _ENCODER.encode(event)[1:]
