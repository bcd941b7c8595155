"""What the bank may change in a consent: its patch, read in every published spelling, and what becomes of the consent.

Theory. The published body has member names with dots in them; guides draw the same nested. ``read_patch`` brings both to
the dotted form and holds it against the closed list of the consent's own type. ``apply_patch`` then decides: a transition
must be lawful for the bank, an authorization needs a customer and accounts, what the customer approved does not change
afterwards, and a terminal consent changes no more. Both are pure; their refusals name the member and what was expected.

Source: hub-apis 3.4; hub-behaviour 5.4; decisions.md section 2; consents 4 and 7.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hub.model.consent import TERMINAL, Consent, ConsentType, Party, Status, may_become
from hub.model.consent_change import approved_digest, as_of, with_data, with_status
from hub.model.fault import Fault, caller_fault
from hub.model.shape import (
    AMOUNT,
    Check,
    anything,
    boolean,
    date_time,
    items,
    members,
    number,
    one_of,
    text,
)

REVOKED_BY: Final = one_of("LFI", "TPP", "LFI.InitiatedByUser", "TPP.InitiatedByUser")
_STATUS: Final = one_of("Authorized", "Rejected", "Revoked", "Expired", "Consumed", "Suspended")
_CURRENCY: Final = text(3, 3, "[A-Z]{3}")
_DATA: Final = "consentBody.Data."
_NESTED: Final = frozenset({"consentBody", "consentBody.Data", "consentBody.Meta"})

_COMMON: Final[Mapping[str, Check]] = {
    "psuIdentifiers": members({"userId": text(1, 256)}, closed=False),
    "supplementaryInformation": anything,
    "status": _STATUS,
    "consentBody.Data.Status": _STATUS,
    "consentBody.Data.RevokedBy": REVOKED_BY,
    "authorizationChannel": one_of("App", "Web"),
    "consentBody.Data.OpenFinanceBilling": members({"IsLargeCorporate": boolean}),
    "consentUsage": members(
        {}, {"lastDataShared": date_time, "lastServiceInitiationAttempt": date_time}
    ),
}
_MULTIPLE: Final = members(
    {},
    {
        "TotalRequired": number,
        "Authorizations": items(
            members(
                {},
                {
                    "AuthorizerId": text(),
                    "AuthorizerType": text(),
                    "AuthorizationDate": date_time,
                    "AuthorizationStatus": one_of("Pending", "Approved", "Rejected"),
                },
            )
        ),
    },
)
_PAYMENT: Final[Mapping[str, Check]] = {
    "accountIds": items(text(1, 40), 0, 1),
    "consentBody.Data.ExchangeRate": members(
        {
            "UnitCurrency": _CURRENCY,
            "ExchangeRate": number,
            "RateType": one_of("Actual", "Agreed", "Indicative"),
        },
        {"ContractIdentification": text(1, 256), "ExpirationDateTime": date_time},
    ),
    "consentBody.Data.Charges": items(
        members(
            {
                "ChargeBearer": one_of("BorneByCreditor", "BorneByDebtor", "Shared"),
                "Type": one_of("VAT", "Fees"),
                "Amount": AMOUNT,
            }
        )
    ),
    "consentBody.Meta.MultipleAuthorizers": _MULTIPLE,
    "ConnectToken": text(1, 8192, r"[\x21-\x7e]+"),
}
FIELDS: Final[Mapping[ConsentType, Mapping[str, Check]]] = {
    ConsentType.ACCOUNT_ACCESS: {**_COMMON, "accountIds": items(text(1, 40), 1)},
    ConsentType.SERVICE_INITIATION: {**_COMMON, **_PAYMENT},
    ConsentType.INSURANCE: {**_COMMON, "insurancePolicyIds": items(text(1, 128), 1)},
}
"""The closed list of what each consent type's patch may hold."""


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a patch in dotted form whose members are of the right shape; ``status`` None where it names none."""

    fields: dict[str, Any]
    status: Status | None = None


def _malformed(field: str, why: str) -> Fault:
    return caller_fault(
        400, "Body.InvalidFormat", f"{field}: {why}", check="consent.patch_format", path=field
    )


def _unlawful(field: str, why: str, check: str = "consent.transition") -> Fault:
    return caller_fault(
        400, "Consent.BusinessRuleViolation", f"{field}: {why}", check=check, path=field
    )


def read_patch(consent_type: ConsentType, body: Any) -> Patch | Fault:
    """Read a patch for a consent of that type.

    Faults: 400 ``Body.InvalidFormat``, naming the member.
    """
    if not isinstance(body, dict):
        return _malformed("body", "expected a JSON object")
    fields: dict[str, Any] = {}
    clash = _flatten("", body, fields)
    if clash:
        return _malformed(clash, "stands twice with different values")
    known = FIELDS[consent_type]
    for name, value in fields.items():
        if name not in known:
            return _malformed(
                name[:128], f"is not known for {consent_type}; known are {', '.join(sorted(known))}"
            )
        wrong = known[name](value)
        if wrong is not None:
            return _malformed(name + wrong.path, wrong.expected)
    if "authorizationChannel" not in fields:
        return _malformed("authorizationChannel", "is required: App or Web")
    return _with_status_of(fields)


def _flatten(prefix: str, body: Mapping[str, Any], fields: dict[str, Any]) -> str:
    """Bring nested members to their dotted names; return a name that stands twice with different values."""
    for name, value in body.items():
        dotted = f"{prefix}{name}"
        if dotted in _NESTED and isinstance(value, dict):
            if clash := _flatten(f"{dotted}.", value, fields):
                return clash
        elif dotted in fields and fields[dotted] != value:
            return dotted
        else:
            fields[dotted] = value
    return ""


def _with_status_of(fields: dict[str, Any]) -> Patch | Fault:
    named = {fields[key] for key in ("status", "consentBody.Data.Status") if key in fields}
    if len(named) > 1:
        return _malformed("status", "differs from consentBody.Data.Status")
    status = Status(named.pop()) if named else None
    if "consentBody.Data.RevokedBy" in fields and status is not Status.REVOKED:
        return _malformed("consentBody.Data.RevokedBy", "goes with the status Revoked only")
    return Patch(fields=fields, status=status)


def apply_patch(consent: Consent, patch: Patch, now_ms: int) -> Consent | Fault:
    """Decide a patch of the bank; the very same object comes back if nothing changes.

    Faults: 400 ``Consent.BusinessRuleViolation`` for what is not lawful, 400 ``Body.InvalidFormat`` for what an
    authorization lacks.
    """
    current = as_of(consent, now_ms)
    if current.status in TERMINAL:
        return _repeat(consent, current, patch)
    fault = _transition_fault(current, patch) or _approval_fault(current, patch.fields)
    if fault is not None:
        return fault
    changed = _with_fields(current, _open_fields(current, patch.fields))
    if patch.status in {None, current.status}:
        if changed == current:
            return consent
        return msgspec.structs.replace(changed, updated_ms=now_ms)
    return _with_transition(changed, patch, now_ms)


def _repeat(consent: Consent, current: Consent, patch: Patch) -> Consent | Fault:
    """Answer a patch of a terminal consent: the same state again is nothing new, all else is refused."""
    if patch.status is not current.status:
        return _unlawful(
            "status", f"the consent is {current.status}, which is final; nothing in it changes"
        )
    return consent


def _transition_fault(current: Consent, patch: Patch) -> Fault | None:
    if patch.status is None or patch.status is current.status:
        return None
    if may_become(current.consent_type, current.status, patch.status, Party.BANK):
        return None
    return _unlawful("status", f"a consent that is {current.status} cannot become {patch.status}")


def _approval_fault(current: Consent, fields: Mapping[str, Any]) -> Fault | None:
    """Refuse another customer or other accounts once the customer has approved."""
    for name, value in _approved(current).items():
        if name in fields and not _same(fields[name], value):
            return _unlawful(name, "does not change after the authorization", "consent.approved")
    return None


def _approved(current: Consent) -> dict[str, Any]:
    """Return what the customer approved, by the names of the patch; nothing before that."""
    if current.status is Status.AWAITING:
        return {}
    held = {
        "psuIdentifiers": current.psu_identifiers,
        "accountIds": list(current.account_ids),
        "insurancePolicyIds": list(current.insurance_policy_ids),
    }
    return {name: value for name, value in held.items() if value}


def _same(said: Any, held: Any) -> bool:
    """Tell whether a bank says what is held; accounts have no order."""
    return said == held or (isinstance(held, list) and set(said) == set(held))


def _open_fields(current: Consent, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields that can still change: what was approved stays as it was hashed."""
    settled = _approved(current)
    return {name: value for name, value in fields.items() if name not in settled}


def _with_fields(consent: Consent, fields: Mapping[str, Any]) -> Consent:
    changed = msgspec.structs.replace(
        consent,
        psu_identifiers=fields.get("psuIdentifiers", consent.psu_identifiers),
        account_ids=tuple(fields.get("accountIds", consent.account_ids)),
        insurance_policy_ids=tuple(fields.get("insurancePolicyIds", consent.insurance_policy_ids)),
        supplementary=fields.get("supplementaryInformation", consent.supplementary),
        authorization_channel=fields.get("authorizationChannel", consent.authorization_channel),
        connect_token=fields.get("ConnectToken", consent.connect_token),
        usage={**consent.usage, **fields.get("consentUsage", {})},
    )
    data = {
        name.removeprefix(_DATA): value
        for name, value in fields.items()
        if name in {f"{_DATA}ExchangeRate", f"{_DATA}Charges"}
    }
    billing = fields.get(f"{_DATA}OpenFinanceBilling")
    if billing is not None:
        held = changed.body.get("Data", {}).get("OpenFinanceBilling", {})
        data["OpenFinanceBilling"] = {**held, **billing}
    if data:
        changed = with_data(changed, **data)
    authorizers = fields.get("consentBody.Meta.MultipleAuthorizers")
    if authorizers is not None:
        meta = {**changed.body.get("Meta", {}), "MultipleAuthorizers": authorizers}
        changed = msgspec.structs.replace(changed, body={**changed.body, "Meta": meta})
    return changed


def _with_transition(changed: Consent, patch: Patch, now_ms: int) -> Consent | Fault:
    status = patch.status
    assert status is not None  # noqa: S101 - the caller has looked
    if status is Status.AUTHORIZED and changed.status is Status.AWAITING:
        fault = _missing_for_authorization(changed)
        if fault is not None:
            return fault
        changed = msgspec.structs.replace(changed, digest=approved_digest(changed))
    revoked_by = ""
    if status is Status.REVOKED:
        revoked_by = patch.fields.get("consentBody.Data.RevokedBy", "LFI")
    return with_status(changed, status, now_ms, revoked_by=revoked_by)


def _missing_for_authorization(consent: Consent) -> Fault | None:
    """Name what an authorization lacks: the customer, and the accounts or policies."""
    if not (consent.psu_identifiers or {}).get("userId"):
        return _malformed("psuIdentifiers", "is required with the status Authorized")
    if consent.consent_type is ConsentType.INSURANCE:
        if not consent.insurance_policy_ids:
            return _malformed("insurancePolicyIds", "is required with the status Authorized")
    elif not consent.account_ids:
        return _malformed("accountIds", "is required with the status Authorized")
    return None


def revoke(consent: Consent, revoked_by: str, now_ms: int, party: Party) -> Consent | Fault:
    """Decide a revocation; the very same object comes back if it is revoked already.

    Faults: 400 ``Consent.BusinessRuleViolation`` from every other terminal state.
    """
    current = as_of(consent, now_ms)
    if current.status is Status.REVOKED:
        return consent
    if not may_become(current.consent_type, current.status, Status.REVOKED, party):
        return _unlawful("consentId", f"a consent that is {current.status} cannot be revoked")
    return with_status(current, Status.REVOKED, now_ms, revoked_by=revoked_by)
