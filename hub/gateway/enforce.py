"""Enforce: may this token do this, under this consent, to this account; pure decisions in a fixed order.

Order: kind of token, scope, role, then the consent's type, version, state and permissions, then the account. What is not
allowed by the token's own nature is said first; whether an account exists is never said.

Source: decisions.md section 4; errors.md section 7; routes.md section 3.
"""

from typing import Final

from hub.gateway.values import Access, Call
from hub.gateway.verify import denied
from hub.model.caller import Caller
from hub.model.consent import Consent, Status, status_at
from hub.model.fault import Fault, caller_fault
from hub.model.records import AccessToken
from hub.model.route import Route, TokenKind


def _scope_fault(text: str, check: str) -> Fault:
    return caller_fault(403, "AccessToken.InvalidScope", text, check=check)


def enforce(call: Call, access: Access) -> Fault | None:
    """Return why a call is refused, or None.

    Faults: 403 ``AccessToken.InvalidScope`` (``enforce.token_kind``, ``enforce.scope``, ``enforce.role``,
    ``enforce.consent_type``, ``enforce.version``, ``enforce.permission``); 401 (``enforce.revoked``); 403
    ``Consent.AccountTemporarilyBlocked`` (``enforce.suspended``); 400 ``Consent.Invalid`` (``enforce.status``); 403
    ``Consent.PermanentAccountAccessFailure`` (``enforce.account``).
    """
    consent = access.consent
    if (
        consent is not None
        and _was_permitted(call.route, access)
        and status_at(consent, call.now) is Status.AUTHORIZED
    ):
        return _account_fault(call, access)
    fault = _token_fault(call.route, access)
    if fault is not None or consent is None:
        return fault
    if status_at(consent, call.now) is Status.REVOKED:
        return denied("enforce.revoked")
    if call.route.token is not TokenKind.USER:
        return None
    fault = _consent_fault(call, access)
    if fault is None:
        _remember(call.route, access)
    return fault or _account_fault(call, access)


Permit = tuple[Route, Caller, AccessToken, Consent]
_KEPT_MOST: Final = 8192
"""Entries: the consents in use at once, by the routes each is used for; more are made anew each time."""
_PERMITTED: Final[dict[tuple[int, str], Permit]] = {}
"""Who was permitted what: everything of the decision that depends on neither the moment nor the account. All four are frozen
and shared; a change of any makes another object, for which the decision is made anew and takes the place of the one before."""


def _was_permitted(route: Route, access: Access) -> bool:
    caller, token, consent = access.caller, access.token, access.consent
    kept = _PERMITTED.get((id(route), token.digest))
    return (
        kept is not None
        and kept[0] is route
        and kept[1] is caller
        and kept[2] is token
        and kept[3] is consent
    )


def _remember(route: Route, access: Access) -> None:
    caller, token, consent = access.caller, access.token, access.consent
    if consent is None:
        return
    if len(_PERMITTED) >= _KEPT_MOST:
        _PERMITTED.clear()
    _PERMITTED[id(route), token.digest] = (route, caller, token, consent)


def _token_fault(route: Route, access: Access) -> Fault | None:
    user = bool(access.token.consent_id)
    if (route.token is TokenKind.USER and not user) or (route.token is TokenKind.CLIENT and user):
        return _scope_fault(f"This operation wants a {route.token} token.", "enforce.token_kind")
    scopes = set(access.token.scope.split())
    if route.scopes and not scopes & set(route.scopes):
        wanted = " or ".join(route.scopes)
        return _scope_fault(f"This operation wants the scope {wanted}.", "enforce.scope")
    if route.roles and not set(access.caller.roles) & set(route.roles):
        return _scope_fault("The TPP does not hold the role for this operation.", "enforce.role")
    return None


def _consent_fault(call: Call, access: Access) -> Fault | None:
    consent, route = access.consent, call.route
    if consent is None:
        return None
    if route.consent_types and consent.consent_type not in route.consent_types:
        return _scope_fault("The consent is for another service.", "enforce.consent_type")
    if consent.standard_version != route.version:
        return _scope_fault("The consent is of another version.", "enforce.version")
    match status_at(consent, call.now):
        case Status.AUTHORIZED:
            pass
        case Status.SUSPENDED:
            code, text = "Consent.AccountTemporarilyBlocked", "The consent is suspended."
            return caller_fault(403, code, text, check="enforce.suspended")
        case status:
            text = f"The consent is {status}, not Authorized."
            return caller_fault(400, "Consent.Invalid", text, check="enforce.status")
    if route.permissions and not access.permissions & set(route.permissions):
        wanted = " or ".join(route.permissions)
        return _scope_fault(f"The consent lacks the permission {wanted}.", "enforce.permission")
    return None


def _account_fault(call: Call, access: Access) -> Fault | None:
    name = call.route.account_parameter
    if not name or access.consent is None:
        return None
    if call.parameters.get(name) in access.consent.account_ids:
        return None
    text = "The consent does not give access to this account."
    code = "Consent.PermanentAccountAccessFailure"
    return caller_fault(403, code, text, check="enforce.account")
