"""Who is calling: the decision of the Trust Framework, pure, in memory, explained by the name of the failed check.

Theory. A ``Standing`` is all that is known of one client at one moment: the framework's word on its organisation and
application, this tenant's registration with its three levels, and how old each of these is. ``decide`` walks the checks
in the order in which they can be explained, and stops at the first that fails.

Outage policy. The age of a standing is that of its oldest part. What counts against a bound is the age at the last
*failed* attempt to refresh it: while the framework answers, a snapshot is as good as the refresh interval promises, and
a clock that jumps (sandbox) does not make it stale before anybody looked. Bounds are per class of risk; beyond them the
refusal says so (503, ``trust.stale``).

Sources: hub-behaviour.md section 3; decisions.md section 1, last row; trust-framework.md 7.
"""

from typing import Final

import msgspec

from hub.model.caller import Caller, Peer
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.records import Registration
from hub.trust.mirror import ACTIVE, Client, Organisation
from hub.trust.view import Risk

_PUBLIC: Final = {
    "trust.certificate_missing": "A client certificate of the Trust Framework is required.",
    "trust.certificate_expired": "The client certificate is past its end of validity.",
    "trust.certificate_revoked": "The client certificate has been revoked.",
    "trust.certificate_unknown_organisation": "The certificate's organisation or client is not as registered.",
    "trust.organisation_inactive": "The organisation is not active in the Trust Framework.",
    "trust.software_statement_inactive": "The software statement is not known to the Trust Framework.",
    "trust.client_inactive": "The application is not active in the Trust Framework.",
    "trust.not_registered": "The client is not registered with this bank: call the registration endpoint first.",
    "trust.not_activated": "The client is registered but not yet activated by this bank.",
    "trust.blocked": "The client is blocked by this bank.",
}
CHECKS: Final = (*_PUBLIC, "trust.stale")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Hold how old (seconds) the framework's last word may be, per class of risk."""

    read: int
    pay: int

    def of(self, risk: Risk) -> int:
        """Return the bound of a class."""
        return self.pay if risk is Risk.PAY else self.read


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is known of one client.

    Attributes:
        organisation: None where the framework does not list it.
        client: None where the framework does not know it.
        registration: None where it never registered here.
        age_at_failure: Age of the oldest part at the last failed refresh, seconds; 0 or less for fresh.
        loading: Its registration has changed and is being read again.
    """

    organisation: Organisation | None = None
    client: Client | None = None
    registration: Registration | None = None
    age_at_failure: int = 0
    loading: bool = False


def refuse(check: str, private: str = "") -> Fault:
    """Make the Fault of a check, as the authorization server answers it."""
    if check == "trust.stale":
        fault = hub_fault(
            503,
            "temporarily_unavailable",
            "The Trust Framework could not be reached for too long; try again later.",
            check=check,
            private=private,
        )
        return msgspec.structs.replace(fault, retry_after=30)
    return caller_fault(401, "invalid_client", _PUBLIC[check], check=check, private=private)


def loading() -> Fault:
    """Make the Fault of a client whose registration is being read again: a moment later it is known."""
    return msgspec.structs.replace(refuse("trust.stale", "registration changes"), retry_after=1)


def decide(peer: Peer, standing: Standing | None, now: int, bound: int) -> Fault | None:
    """Return the first check that a peer fails, or None.

    Args:
        peer: As TLS proved it; the caller has excluded revoked certificates already.
        standing: Of the client that the peer names; None where nothing is known.
        now: Seconds.
        bound: How old the framework's last word may be, seconds.
    """
    if not peer.present:
        return refuse("trust.certificate_missing")
    if peer.not_after <= now:
        return refuse("trust.certificate_expired", f"not after {peer.not_after}")
    if standing is None:
        return refuse("trust.not_registered")
    if standing.loading:
        return loading()
    known = standing.registration or standing.client
    if known is not None and known.organisation_id != peer.organisation_id:
        return refuse("trust.certificate_unknown_organisation", "subject OU is not the client's")
    return decide_standing(standing, bound)


def decide_standing(standing: Standing, bound: int) -> Fault | None:
    """Return the first check that a client fails, whoever presents it, or None."""
    if standing.age_at_failure > bound:
        return refuse("trust.stale", f"{standing.age_at_failure} s old, bound {bound} s")
    if standing.organisation is None:
        return refuse("trust.certificate_unknown_organisation", "organisation is not listed")
    if standing.organisation.status != ACTIVE:
        return refuse("trust.organisation_inactive", f"status {standing.organisation.status!r}")
    if standing.client is None:
        return refuse("trust.software_statement_inactive")
    if standing.client.status != ACTIVE:
        return refuse("trust.client_inactive", f"status {standing.client.status!r}")
    return _decide_registration(standing.registration)


def _decide_registration(registration: Registration | None) -> Fault | None:
    if registration is None:
        return refuse("trust.not_registered")
    levels = {
        "TPP": registration.tpp_state,
        "software statement": registration.statement_state,
        "client": registration.client_state,
    }
    for name, state in levels.items():
        if state == "blocked":
            return refuse("trust.blocked", f"the {name} is blocked")
    for name, state in levels.items():
        if state != "active":
            return refuse("trust.not_activated", f"the {name} is {state}")
    return None


def caller_of(standing: Standing) -> Caller | None:
    """Return the caller that a complete standing describes, without a certificate."""
    organisation, client, registration = (
        standing.organisation,
        standing.client,
        standing.registration,
    )
    if organisation is None or client is None or registration is None:
        return None
    return Caller(
        client_id=client.client_id,
        organisation_id=client.organisation_id,
        software_statement_id=client.software_statement_id,
        tpp_id=registration.tpp_id,
        tpp_name=organisation.name,
        roles=tuple(role for role in client.roles if role in organisation.roles),
        redirect_uris=client.redirect_uris,
        webhook_uris=client.webhook_uris,
        dpop_bound=client.dpop_bound,
        decoded_ssa=client.decoded_ssa,
    )
