"""Authorization details of the consents that the sample TPP asks for (consents.md sections 1 and 2)."""

from datetime import UTC, datetime
from typing import Any, Final

DATA_SHARING_TYPE: Final = "urn:openfinanceuae:account-access-consent:v2.1"
DATA_SHARING_SCOPE: Final = "accounts openid"
PERMISSIONS: Final = (
    "ReadAccountsBasic",
    "ReadAccountsDetail",
    "ReadBalances",
    "ReadTransactionsBasic",
    "ReadTransactionsDetail",
)


def data_sharing_consent(
    *,
    consent_id: str,
    expires: int,
    permissions: tuple[str, ...] = PERMISSIONS,
    from_date: str = "",
    to_date: str = "",
    base_consent_id: str = "",
) -> dict[str, Any]:
    """Return the authorization detail of a data-sharing consent.

    Args:
        consent_id: A UUID version 4, chosen by the TPP.
        expires: ``ExpirationDateTime``, seconds since 1970; within a year.
        permissions: What is asked for.
        from_date: ``YYYY-MM-DD``: first day of transactions; empty for no bound.
        to_date: Last day.
        base_consent_id: The first consent of the group that this one continues.
    """
    consent: dict[str, Any] = {
        "ConsentId": consent_id,
        "ExpirationDateTime": timestamp(expires),
        "Permissions": list(permissions),
        "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
    }
    optional = {"FromDate": from_date, "ToDate": to_date, "BaseConsentId": base_consent_id}
    consent |= {name: value for name, value in optional.items() if value}
    return {"type": DATA_SHARING_TYPE, "consent": consent}


def timestamp(seconds: int) -> str:
    """Return a date-time in UTC as the standard writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
