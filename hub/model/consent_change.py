"""A consent becomes another: status with its mirrors, what runs out by itself, the digest of what was approved."""

import hashlib
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from hub.model.consent import Consent, Status, status_at


@lru_cache(maxsize=256)
def date_time_of(seconds: int) -> str:
    """Return the RFC 3339 text of a moment in seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_data(consent: Consent, **members: Any) -> Consent:
    """Return the consent with these members of ``consentBody.Data``."""
    data = {**consent.body.get("Data", {}), **members}
    return msgspec.structs.replace(consent, body={**consent.body, "Data": data})


def with_status(consent: Consent, status: Status, now_ms: int, *, revoked_by: str = "") -> Consent:
    """Return the consent in a new state, with every mirror of it; whether it may is asked before (``may_become``).

    Args:
        consent: As it was.
        status: The new state.
        now_ms: The moment of the change, milliseconds.
        revoked_by: ``LFI``, ``TPP``, ``LFI.InitiatedByUser`` or ``TPP.InitiatedByUser``, with ``Revoked``.
    """
    members: dict[str, Any] = {
        "Status": str(status),
        "StatusUpdateDateTime": date_time_of(now_ms // 1000),
    }
    if revoked_by:
        members["RevokedBy"] = revoked_by
    changed = with_data(consent, **members)
    return msgspec.structs.replace(changed, status=status, updated_ms=now_ms)


def as_of(consent: Consent, now_ms: int) -> Consent:
    """Return the consent with the status that holds at ``now_ms``, written or not."""
    status = status_at(consent, now_ms // 1000)
    return consent if status is consent.status else with_status(consent, status, now_ms)


def approved_digest(consent: Consent) -> str:
    """Return the base64url SHA-256 of what the customer approved: request, customer, accounts, policies.

    The text hashed is JSON with sorted members and no white space, so that it is the same for the same content.
    """
    content = {
        "ConsentId": consent.id,
        "request": consent.request.get("consent", {}),
        "psuIdentifiers": consent.psu_identifiers,
        "accountIds": consent.account_ids,
        "insurancePolicyIds": consent.insurance_policy_ids,
    }
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
