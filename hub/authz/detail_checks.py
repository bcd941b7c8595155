"""What is asked for: exactly one authorization detail of a type the client may use, and the rules of its kind.

Source: RFC 9396 sections 2 and 5; the UAE standard's requirement pages; decisions 1 and 2.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from re import compile as pattern
from typing import Any, Final

from hub.authz.facts import Facts, refuse
from hub.authz.tables import DETAIL_TYPES
from hub.model.consent import ConsentType
from hub.model.fault import Fault
from hub.protocol.oauth import parse_scope, show

_UUID4: Final = pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_PARTY: Final = frozenset({"ReadParty", "ReadPartyUser", "ReadPartyUserIdentity"})
_ACCOUNTS: Final = frozenset({"ReadAccountsBasic", "ReadAccountsDetail"})
_NEEDS_ACCOUNTS_SCOPE: Final = _ACCOUNTS | {"ReadBalances"}
_DEPENDENT_OF: Final[Mapping[ConsentType, Callable[[frozenset[str]], frozenset[str]]]] = {
    ConsentType.ACCOUNT_ACCESS: lambda names: names - _PARTY - _ACCOUNTS,
    ConsentType.SERVICE_INITIATION: lambda names: names & {"ReadBalances"},
    ConsentType.INSURANCE: lambda _: frozenset(),
}


def _bad(check: str, public: str, path: str = "") -> Fault:
    return refuse("invalid_authorization_details", check, public, path=path)


def detail_single(facts: Facts) -> Fault | None:
    """Expect an array with exactly one object that has a type."""
    came = facts.claims.get("authorization_details")
    if isinstance(came, list) and len(came) == 1 and isinstance(facts.detail.get("type"), str):
        return None
    got = f"{len(came)} elements" if isinstance(came, list) else show(came)
    public = f"authorization_details: expected one object with a type, got {got}"
    return _bad("detail.single", public)


def detail_type(facts: Facts) -> Fault | None:
    """Expect a type of this Hub that one of the client's roles may use."""
    came = facts.detail.get("type")
    row = DETAIL_TYPES.get(str(came))
    if row is None:
        public = f"authorization_details type: expected one of {', '.join(DETAIL_TYPES)}, got {show(came)}"
        return _bad("detail.type", public)
    if row.roles.isdisjoint(facts.caller.roles):
        roles = " or ".join(sorted(row.roles))
        public = f"authorization_details type: expected one that the client's roles allow, got one for {roles}"
        return _bad("detail.type", public)
    return None


def _permissions(facts: Facts) -> frozenset[str]:
    """Return the names among the permissions, whatever else stands there: the schema judges that."""
    came = facts.asked.get("Permissions")
    listed = came if isinstance(came, list) else []
    return frozenset(name for name in listed if isinstance(name, str))


def detail_scope(facts: Facts) -> Fault | None:
    """Expect the scope that belongs to the type, and accounts where account permissions are asked for."""
    wanted = {DETAIL_TYPES[facts.detail["type"]].scope}
    if wanted == {"payments"} and _permissions(facts) & _NEEDS_ACCOUNTS_SCOPE:
        wanted |= {"accounts"}
    missing = wanted - set(parse_scope(facts.claims.get("scope")) or ())
    if not missing:
        return None
    public = f"scope: expected {' '.join(sorted(wanted))} for this type, {min(missing)} is missing"
    return refuse("invalid_scope", "detail.scope", public)


def detail_schema(facts: Facts) -> Fault | None:
    """Expect the element to satisfy the schema of its type."""
    if not isinstance(facts.detail.get("consent"), dict):
        return _bad("detail.schema", "authorization_details consent: expected an object")
    if facts.details_check is None:
        return None
    fault = facts.details_check(facts.detail["type"], dict(facts.detail))
    if fault is None:
        return None
    return _bad("detail.schema", f"authorization_details {fault.public}", fault.path)


def moment_of(text: object) -> int | None:
    """Return seconds since 1970 of an RFC 3339 date-time; None if it is not one or lacks an offset."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo is None:
        return None
    return int(moment.timestamp())


def is_consent_id(came: object) -> bool:
    """Tell whether this is a UUID, version 4, its letters in one case."""
    lower = came.lower() if isinstance(came, str) else ""
    return _UUID4.fullmatch(lower) is not None and came in {lower, lower.upper()}


def detail_consent_id(facts: Facts) -> Fault | None:
    """Expect ConsentId to be a UUID, version 4, its letters in one case, that no consent has yet in either."""
    came = facts.asked.get("ConsentId")
    if not is_consent_id(came):
        return _bad("detail.consent_id", f"ConsentId: expected a version 4 UUID, got {show(came)}")
    if facts.taken is not None:
        return _bad("detail.consent_id", "ConsentId: expected a new value, got one already used")
    return None


def detail_expiry(facts: Facts) -> Fault | None:
    """Expect ExpirationDateTime in the future, less than a year ahead."""
    came = facts.asked.get("ExpirationDateTime")
    moment = moment_of(came)
    if moment is not None and facts.now < moment < _year_after(facts.now):
        return None
    public = f"ExpirationDateTime: expected a time within the next year, got {show(came)}"
    return _bad("detail.expiry", public)


def _year_after(now: int) -> int:
    start = datetime.fromtimestamp(now, UTC)
    day = 28 if (start.month, start.day) == (2, 29) else start.day
    return int(start.replace(year=start.year + 1, day=day).timestamp())


def detail_authorization_expiry(facts: Facts) -> Fault | None:
    """Expect AuthorizationExpirationDateTime, if there, in the future and not after ExpirationDateTime."""
    came = facts.asked.get("AuthorizationExpirationDateTime")
    if came is None:
        return None
    moment, end = moment_of(came), moment_of(facts.asked.get("ExpirationDateTime"))
    if moment is not None and end is not None and facts.now < moment <= end:
        return None
    public = f"AuthorizationExpirationDateTime: expected a time before the expiry, got {show(came)}"
    return _bad("detail.authorization_expiry", public)


def detail_permissions(facts: Facts) -> Fault | None:
    """Expect ReadAccountsBasic or ReadAccountsDetail beside any permission on accounts."""
    names = _permissions(facts)
    kind = DETAIL_TYPES[facts.detail["type"]].consent_type
    dependent = _DEPENDENT_OF[kind](names)
    if not dependent or names & _ACCOUNTS:
        return None
    public = f"Permissions: expected ReadAccountsBasic or ReadAccountsDetail beside {show(min(dependent))}"
    return _bad("detail.permissions", public)


def detail_base(facts: Facts) -> Fault | None:
    """Expect BaseConsentId, if it is known here, to be a first consent of the same kind and organisation."""
    base = facts.base
    if base is None:
        return None
    same_kind = base.consent_type is DETAIL_TYPES[facts.detail["type"]].consent_type
    if (
        same_kind
        and base.organisation_id == facts.caller.organisation_id
        and base.group_id == base.id
    ):
        return None
    public = (
        "BaseConsentId: expected the first consent of a chain of the same kind and organisation"
    )
    return _bad("detail.base", public)


def detail_subscription(facts: Facts) -> Fault | None:
    """Expect an active webhook to be https, registered, and the client to have an encryption key."""
    webhook = _webhook(facts.detail.get("subscription"))
    if not webhook.get("IsActive"):
        return None
    url = webhook.get("Url")
    if not isinstance(url, str) or not url.startswith("https://"):
        return _bad("detail.subscription", f"subscription Url: expected https, got {show(url)}")
    if url not in facts.caller.webhook_uris:
        return _bad(
            "detail.subscription", f"subscription Url: expected a registered one, got {show(url)}"
        )
    if not facts.can_encrypt_to:
        return _bad(
            "detail.subscription", "subscription: expected an encryption key in the key set"
        )
    return None


def _webhook(subscription: object) -> dict[str, Any]:
    webhook = subscription.get("Webhook") if isinstance(subscription, dict) else None
    return webhook if isinstance(webhook, dict) else {}
