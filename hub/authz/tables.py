"""The ecosystem's tables: what each role may ask for, and what each type of authorization detail stands for.

Source: Trust Framework roles and scopes; the UAE standard's authorization details v2.1.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from hub.model.consent import ConsentType


class DetailType(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a type of authorization detail stands for."""

    rar_type: str
    consent_type: ConsentType
    scope: str
    roles: frozenset[str]
    standard_version: str = "v2.1"


DETAIL_TYPES: Final = {
    row.rar_type: row
    for row in (
        DetailType(
            rar_type="urn:openfinanceuae:account-access-consent:v2.1",
            consent_type=ConsentType.ACCOUNT_ACCESS,
            scope="accounts",
            roles=frozenset({"BDSP"}),
        ),
        DetailType(
            rar_type="urn:openfinanceuae:service-initiation-consent:v2.1",
            consent_type=ConsentType.SERVICE_INITIATION,
            scope="payments",
            roles=frozenset({"BSIP"}),
        ),
        DetailType(
            rar_type="urn:openfinanceuae:insurance-consent:v2.1",
            consent_type=ConsentType.INSURANCE,
            scope="insurance",
            roles=frozenset({"ISP", "IDSP"}),
        ),
    )
}

LODGED: Final = {
    ConsentType.ACCOUNT_ACCESS: "/open-finance/account-information/{version}/account-access-consents",
    ConsentType.SERVICE_INITIATION: "/open-finance/payment/{version}/payment-consents",
    ConsentType.INSURANCE: "/open-finance/insurance/{version}/insurance-consents",
}
"""Where a TPP reads its consents."""

_EVERY_ROLE: Final = ("openid", "products", "atm", "tpp-reports")
_SCOPES_OF_ROLE: Final = {
    "BDSP": ("accounts",),
    "BSIP": ("payments", "accounts", "confirmation-of-payee", "fx", "account-opening"),
    "ISP": ("insurance",),
    "IDSP": ("insurance",),
}
"""BSIP has ``accounts`` for payment consents that ask for account permissions."""

CONSENT_SCOPES: Final = frozenset({"openid", "accounts", "payments", "insurance"})
"""What an authorization request may ask for; the other scopes are for client credentials."""

SCOPES: Final = tuple(
    dict.fromkeys(
        (*_EVERY_ROLE, *(scope for scopes in _SCOPES_OF_ROLE.values() for scope in scopes))
    )
)


def scopes_of(roles: Iterable[str]) -> frozenset[str]:
    """Return the scopes that a client with these roles may have."""
    held = [scope for role in roles for scope in _SCOPES_OF_ROLE.get(role, ())]
    return frozenset((*_EVERY_ROLE, *held)) if held else frozenset()
