"""Enrich: from a permitted call to the bank's request: path, query, and the ``o3-*`` headers that say who and why.

Nothing of the TPP's own headers goes to the bank. Dates outside the consent's window are narrowed silently; where nothing of
the asked window lies in it, the list is shown empty.

Source: routes.md T0, T4, T5; ozone-connect.md section 2; hub-behaviour 7.2.
"""

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import orjson

from hub.contract import Context, plain_id
from hub.gateway.values import Access, Asked, Call
from hub.model.caller import Caller
from hub.model.consent import Consent
from hub.model.fault import Fault, caller_fault
from hub.model.http import Headers
from hub.model.route import Route
from hub.upstream.bank import BankCall

PAGE_SIZE: Final = 100
PAGE_SIZE_MOST: Final = 1000
PAGE_MOST: Final = 100_000
_KEPT_MOST: Final = 8192
"""Entries: the consents in use at once, by the routes each is used for; more are made anew each time."""
_SHORT: Final = 200
_JSON: Final[Headers] = ((b"content-type", b"application/json"),)
_PLAIN_TRANSACTIONS: Final = frozenset({"ReadTransactionsBasic", "ReadTransactionsDetail"})
_WINDOWS: Final = {
    "account-information.transactions": ("fromBookingDateTime", "toBookingDateTime"),
    "account-information.statements": ("fromStatementDate", "toStatementDate"),
}


def ask(call: Call, access: Access, resource_base: str, declared: tuple[str, ...]) -> Asked | Fault:
    """Return query and context of a call whose query was validated.

    Args:
        call: The call.
        access: Its access.
        resource_base: Our own base URL, for links.
        declared: The query parameters that the route knows; no others go to the bank.

    Faults: 400 ``Resource.InvalidFormat``, check ``request.paging``.
    """
    route, consent, request, fields = call.route, access.consent, call.request, call.fields
    path = request.path
    alike = not (
        request.query
        or route.consent_parameter
        or len(path) > _SHORT
        or b"page" in fields
        or b"page-size" in fields
    )
    name = (id(route), "" if consent is None else consent.id, path)
    if alike:
        kept = _ASKED.get(name)
        if (
            kept is not None
            and kept[0] is route
            and kept[1] is consent
            and kept[2] == resource_base
        ):
            return kept[3]
    asked = _asked(call, access, resource_base, declared)
    if alike and isinstance(asked, Asked):
        if len(_ASKED) >= _KEPT_MOST:
            _ASKED.clear()
        _ASKED[name] = (route, consent, resource_base, asked)
    return asked


_ASKED: Final[dict[tuple[int, str, str], tuple[Route, Consent | None, str, Asked]]] = {}
"""What was asked without a query or paging, by route, consent and path: the same each time; all of it is frozen and shared.

Named by the consent's id, so that its next version takes its place: a payment makes one each time.
"""


def _asked(
    call: Call, access: Access, resource_base: str, declared: tuple[str, ...]
) -> Asked | Fault:
    sent = parse_qsl(call.request.query, keep_blank_values=True) if call.request.query else []
    paging = dict(sent)
    page: int | None = 1
    size: int | None = PAGE_SIZE
    if call.route.method == "GET":  # the pages of what only the Hub looks at are none of the TPP's
        page = _whole(call, paging.get("page"), "page", 1, PAGE_MOST)
        size = _whole(call, paging.get("page-size"), "page-size", PAGE_SIZE, PAGE_SIZE_MOST)
    if page is None or size is None:
        text = f"page: expected 1 to {PAGE_MOST}; page-size: expected 1 to {PAGE_SIZE_MOST}"
        return caller_fault(400, "Resource.InvalidFormat", text, check="request.paging")
    given = [(n, v) for n, v in sent if n in declared]
    narrowed, blank = _narrow(call, dict(given), access.consent)
    pairs = list(narrowed.items())
    if plain_id(call.route.id) == "account-information.accounts" and access.consent is not None:
        pairs.append(("accountIds", ",".join(access.consent.account_ids)))
    query = urlencode(pairs, safe=",") if pairs else ""
    if call.route.paged:
        query += f"{'&' if query else ''}page={page}&page-size={size}"
    own = [*given, *([("page-size", str(size))] if size != PAGE_SIZE else [])]
    context = Context(
        url=resource_base + call.request.path,
        query=urlencode(own) if own else "",
        page=page,
        account_id=call.parameters.get(call.route.account_parameter, ""),
        permissions=access.permissions,
        extra=_known(call, access.consent),
        related=[] if call.route.consent_parameter else None,
    )
    path = bank_path(call.route.bank_path, call.parameters)
    return Asked(path=path, query=query, context=context, blank=blank)


def _known(call: Call, consent: Consent | None) -> dict[str, str]:
    """Return the members of ``Data`` that the Hub knows better than the bank."""
    if consent is None or not call.route.consent_parameter:
        return {}
    base = {"BaseConsentId": consent.group_id} if consent.group_id != consent.id else {}
    return {"ConsentId": consent.id, **base}


def _whole(call: Call, found: str | None, name: str, default: int, most: int) -> int | None:
    """Return a paging parameter from the query or, as the official collections send it, from a header."""
    if found is None:
        header = call.header(name.encode())
        found = None if header is None else header.decode("latin-1")
    if found is None:
        return default
    if not found.isascii() or not found.isdigit() or len(found) > 9:
        return None
    return int(found) if 1 <= int(found) <= most else None


def _narrow(
    call: Call, query: dict[str, str], consent: Consent | None
) -> tuple[dict[str, str], bool]:
    """Narrow the asked dates to the consent's, and say whether nothing is left."""
    window = _WINDOWS.get(plain_id(call.route.id))
    if window is None or consent is None:
        return query, False
    data = consent.body.get("Data", {})
    low, high = data.get("FromDate") or "", data.get("ToDate") or ""
    first, last = window
    start, end = ("T00:00:00Z", "T23:59:59Z") if "DateTime" in first else ("", "")
    out = dict(query)
    if low and out.get(first, "")[:10] < low:
        out[first] = low + start
    if high and (not out.get(last) or out[last][:10] > high):
        out[last] = high + end
    blank = bool(out.get(first) and out.get(last) and out[first][:10] > out[last][:10])
    if blank:
        day = low or high or out[last][:10]
        out[first], out[last] = day + start, day + start
    return out, blank


def bank_call(
    call: Call, access: Access, asked: Asked, provider_id: str, body: bytes = b""
) -> BankCall:
    """Return the request for the bank of a permitted call; ``body`` is in the bank's shape."""
    route = call.route
    headers = o3_headers(call, access, provider_id)
    if route.forward:
        headers += forwarded(call)
    if body:
        headers += _JSON
    return BankCall(
        method=route.bank_method,
        path=asked.path,
        family=route.bank_family,
        query=asked.query,
        headers=headers,
        body=body,
        scope=" ".join(route.scopes),
        deadline_ms=route.deadline_ms,
        repeatable=route.bank_method == "GET",
    )


def bank_path(template: str, parameters: Mapping[str, str]) -> str:
    """Fill a path at Ozone Connect; its parameters have the TPP's names but for the case of the first letter."""
    known = tuple(parameters.items())
    if sum(len(value) for _, value in known) > _SHORT:
        return _filled(template, known)
    return _filled_before(template, known)


def _filled(template: str, parameters: tuple[tuple[str, str], ...]) -> str:
    known = {name[:1].lower() + name[1:]: value for name, value in parameters}
    known.update(parameters)
    segments = [
        quote(known[s[1:-1]], safe="") if s.startswith("{") else s for s in template.split("/")
    ]
    return "/".join(segments)


_filled_before: Final = lru_cache(maxsize=2048)(_filled)


def o3_headers(call: Call, access: Access, provider_id: str) -> Headers:
    """Return the headers that tell the bank who calls, for whom, and by which consent."""
    caller, consent = access.caller, access.consent
    key = (caller.x5t_s256, "" if consent is None else consent.id, call.route.id, provider_id)
    kept = _KEPT.get(key)
    if kept is None or kept[0] is not caller or kept[1] is not consent:
        if len(_KEPT) >= _KEPT_MOST:
            _KEPT.clear()
        kept = _KEPT[key] = (caller, consent, _fixed_headers(call, access, provider_id))
    interaction_id = call.interaction_id.encode()
    if call.sent_id:
        return (
            *kept[2],
            (b"o3-ozone-interaction-id", interaction_id),
            (b"o3-caller-interaction-id", interaction_id),
        )
    return (*kept[2], (b"o3-ozone-interaction-id", interaction_id))


_KEPT: Final[dict[tuple[str, str, str, str], tuple[Caller, Consent | None, Headers]]] = {}
"""Headers by who calls, by which consent, for which route; callers and consents are shared and never changed."""


def _fixed_headers(call: Call, access: Access, provider_id: str) -> Headers:
    caller, consent = access.caller, access.consent
    headers = [
        ("accept", "application/json"),
        ("o3-provider-id", provider_id),
        ("o3-aspsp-id", provider_id),
        ("o3-caller-org-id", caller.organisation_id),
        ("o3-caller-client-id", caller.client_id),
        ("o3-caller-software-statement-id", caller.software_statement_id),
        ("o3-api-uri", call.route.path),
        ("o3-api-operation", call.route.method),
    ]
    if consent is not None:
        headers += [
            ("o3-consent-id", consent.id),
            ("o3-psu-identifier", psu_identifier(consent)),
        ]
        if _foreign_exchange_only(call, access):
            headers.append(("o3-fx-transactions", "true"))
    return tuple([(name.encode(), value.encode()) for name, value in headers])


def forwarded(call: Call) -> Headers:
    """Return the TPP's headers that the bank wants too."""
    return tuple(
        (name.encode(), value)
        for name in call.route.forward
        if (value := call.header(name.encode())) is not None
    )


def psu_identifier(consent: Consent) -> str:
    """Return the customer as the bank knows it: base64 of the JSON it patched in, of ``{}`` before that."""
    return b64encode(orjson.dumps(consent.psu_identifiers or {})).decode()


def _foreign_exchange_only(call: Call, access: Access) -> bool:
    return plain_id(call.route.id) == "account-information.transactions" and not (
        access.permissions & _PLAIN_TRANSACTIONS
    )


def blanked(given: Any) -> Any:
    """Return a bank's answer with its lists of data emptied."""
    data = given.get("data") if isinstance(given, dict) else None
    if isinstance(data, list):
        return {"data": []}
    if isinstance(data, dict):
        return {"data": {n: [] if isinstance(v, list) else v for n, v in data.items()}}
    return given
