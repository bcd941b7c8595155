"""The consent as PAR stages it, and as a token answer shows it.

Source: hub APIs 3.2 and 3.3 (the record's fields); routes 5.5 (``authorization_details`` of the token answer).
"""

from datetime import UTC, datetime
from typing import Any, Final

from hub.authz.detail_checks import moment_of
from hub.authz.facts import Facts
from hub.authz.tables import DETAIL_TYPES, LODGED
from hub.model.consent import Consent, ConsentType, Status, status_at
from hub.model.http import Request

_SECRET_HEADERS: Final = frozenset(
    {b"authorization", b"proxy-authorization", b"cookie", b"dpop", b"x-client-cert"}
)
_PII: Final = "PersonalIdentifiableInformation"


def staged(
    facts: Facts,
    request: Request,
    *,
    group_id: str,
    request_uri: str,
    url: str,
    now_ms: int,
    interaction_id: str,
) -> Consent:
    """Make the consent of a pushed request that passed every check, awaiting its authorization.

    Args:
        facts: What was checked.
        request: The call.
        group_id: The group that it joins; empty: it is the first of its own.
        request_uri: What it is staged with.
        url: What the TPP called.
        now_ms: The moment, milliseconds.
        interaction_id: Of the call.
    """
    detail, asked, caller = facts.detail, facts.asked, facts.caller
    row = DETAIL_TYPES[detail["type"]]
    consent_id = str(asked["ConsentId"])
    return Consent(
        id=consent_id,
        consent_type=row.consent_type,
        rar_type=row.rar_type,
        standard_version=row.standard_version,
        client_id=caller.client_id,
        organisation_id=caller.organisation_id,
        status=Status.AWAITING,
        group_id=group_id or consent_id,
        par_id=request_uri,
        request=dict(detail),
        request_headers=_kept_headers(request, interaction_id),
        body=_body(facts, row.consent_type),
        tpp=caller.tpp_block(),
        request_url=url,
        created_ms=now_ms,
        updated_ms=now_ms,
        expires=moment_of(asked["ExpirationDateTime"]) or facts.now,
        authorization_expires=moment_of(asked.get("AuthorizationExpirationDateTime")) or 0,
    )


def _body(facts: Facts, consent_type: ConsentType) -> dict[str, Any]:
    data = dict(facts.asked)
    if consent_type is ConsentType.SERVICE_INITIATION:
        data.pop(_PII, None)
    moment = timestamp(facts.now)
    data |= {
        "Status": str(Status.AWAITING),
        "CreationDateTime": moment,
        "StatusUpdateDateTime": moment,
    }
    body: dict[str, Any] = {"Data": data}
    if "subscription" in facts.detail:
        body["Subscription"] = facts.detail["subscription"]
    return body


def _kept_headers(request: Request, interaction_id: str) -> dict[str, str]:
    kept = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in request.headers
        if name not in _SECRET_HEADERS
    }
    return {**kept, "x-fapi-interaction-id": interaction_id}


def timestamp(seconds: int) -> str:
    """Return an RFC 3339 date-time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def granted(consent: Consent, now: int, resource_base: str) -> list[dict[str, Any]]:
    """Return the ``authorization_details`` of a token answer: the consent as it stands now, and where it is read.

    Args:
        consent: The consent.
        now: Seconds since 1970.
        resource_base: Our own base URL, for links.
    """
    data = {**consent.body.get("Data", {}), "Status": str(status_at(consent, now))}
    where = LODGED[consent.consent_type].format(version=consent.standard_version)
    links: dict[str, Any] = {"Self": f"{resource_base}{where}/{consent.id}"}
    if consent.consent_type is ConsentType.SERVICE_INITIATION:
        links["Related"] = []
    shown = {**consent.body, "Data": data, "Links": links}
    if consent.consent_type is ConsentType.INSURANCE:
        shown.setdefault("Meta", {})
    return [{"type": consent.rar_type, "consent": shown}]
