"""What the rest of the Hub asks of the Trust Framework: a decision in memory, explained; never a wait on the network.

``judge`` answers from the last good snapshot and this tenant's registrations: chain and dates were TLS's business,
revocation, organisation, software statement, client, roles and the three levels of activation are decided here.
``key`` gives a parsed public key; an unknown ``kid`` is worth one ``refresh_keys`` (rate-limited, one fetch however
many wait), which only the authorization server and the message-signing stage may call, never the hot path.

Faults of ``judge`` (check names are stable): ``trust.certificate_missing``, ``trust.certificate_revoked``,
``trust.certificate_unknown_organisation``, ``trust.organisation_inactive``, ``trust.software_statement_inactive``,
``trust.client_inactive``, ``trust.not_registered``, ``trust.not_activated``, ``trust.blocked``, ``trust.stale``.
Their status and code are those of the authorization server (401 ``invalid_client``; 503 for ``stale``); resource
endpoints render them as their own (decisions.md section 1, last row).
"""

from enum import StrEnum
from typing import Protocol

from hub.model.caller import Caller, Peer
from hub.model.fault import Fault
from hub.protocol.jose import PublicKey


class Risk(StrEnum):
    """Say how much an outdated snapshot may be trusted for: reads longer than payments."""

    READ = "read"
    PAY = "pay"


class TrustView(Protocol):
    """Decide who a peer is, and give the keys of known clients and organisations."""

    def judge(self, peer: Peer, now: int, risk: Risk = Risk.READ) -> Caller | Fault:
        """Return the caller behind a peer, or the Fault that says which check failed."""
        ...

    def vet(self, peer: Peer, now: int) -> Fault | None:
        """Return what speaks against a certificate of a party that needs no registration (the bank), or None."""
        ...

    def caller(self, client_id: str) -> Caller | None:
        """Return a registered and active client by id (for the bank's ``GET /auth``), or None."""
        ...

    def explain(self, client_id: str) -> Fault | None:
        """Return the first check that a client fails whatever certificate it presents, or None."""
        ...

    def key(self, client_id: str, kid: str, use: str) -> PublicKey | None:
        """Return the client's current key with that ``kid`` and ``use`` (``sig`` or ``enc``), or None."""
        ...

    def encryption_key(self, client_id: str) -> PublicKey | None:
        """Return the client's newest key that can be encrypted to, or None."""
        ...

    async def refresh_keys(self, client_id: str) -> None:
        """Fetch the client's key set once if the rate allows; return when it is in, or after the deadline.

        Cancellation: harmless; the fetch goes on for the others that wait.
        """
        ...
