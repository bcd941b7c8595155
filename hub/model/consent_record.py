"""The consent as the bank sees it: the Consent Manager's record, also the body of events, validate and augment.

Source: hub-apis 3.2, 3.3, 3.5.
"""

from typing import Any

from hub.model.consent import Consent, ConsentType
from hub.model.consent_change import as_of


def consent_record(consent: Consent, now: int) -> dict[str, Any]:
    """Return the record of a consent as it is at ``now`` (seconds since 1970).

    Members that no one has set yet are left out; ``updatedAt`` is in milliseconds.
    """
    current = as_of(consent, now * 1000)
    record: dict[str, Any] = {
        "id": current.id,
        "parId": current.par_id,
        "rarType": current.rar_type,
        "standardVersion": current.standard_version,
        "consentGroupId": current.group_id,
        "requestUrl": current.request_url,
        "consentType": str(current.consent_type),
        "status": str(current.status),
        "request": current.request,
        "requestHeaders": current.request_headers,
        "consentBody": _body(current),
        "interactionId": current.interaction_id,
        "tpp": current.tpp,
        "ozoneSupplementaryInformation": {},
        "updatedAt": consent.updated_ms,
        "psuIdentifiers": current.psu_identifiers,
        "accountIds": list(current.account_ids or current.insurance_policy_ids),
        "insurancePolicyIds": list(current.insurance_policy_ids),
        "supplementaryInformation": current.supplementary,
        "authorizationChannel": current.authorization_channel,
        "ConnectToken": current.connect_token,
        "consentUsage": current.usage,
    }
    return {name: value for name, value in record.items() if value or name in _ALWAYS}


_ALWAYS = frozenset(
    {"id", "consentType", "status", "request", "requestHeaders", "consentBody", "tpp"}
    | {"ozoneSupplementaryInformation", "updatedAt"}
)


def _body(consent: Consent) -> dict[str, Any]:
    data = {**consent.body.get("Data", {}), "Status": str(consent.status)}
    if consent.consent_type is ConsentType.INSURANCE:
        data.pop("StatusUpdateDateTime", None)  # closed there, and not declared
    return {**consent.body, "Data": data}
