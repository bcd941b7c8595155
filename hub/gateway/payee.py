"""Confirmation of payee: ask the bank whose account it is, say only whether the name fits.

The bank is asked with its own member names (``GivenName`` becomes ``firstName``); it answers with customers and their
claims, of which nothing goes on but a masked name where the match is not perfect. No such account: 204. Discovery answers
from the framework which bank an IBAN belongs to.

Source: routes.md T13, T14; decisions.md section 4.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
import orjson

from hub.gateway.names import PARTIAL, YES, best_match, indicator, masked
from hub.gateway.values import Call, Reply
from hub.model.fault import Fault, bank_fault, caller_fault

_IBAN: Final = re.compile(r"AE[0-9]{2}[0-9]{3}[0-9]{16}")
_BANK_NAMES: Final = {
    "FullName": "fullName",
    "GivenName": "firstName",
    "LastName": "lastName",
    "BusinessName": "businessName",
}


class Endpoints(msgspec.Struct, frozen=True):
    """Hold where a bank is reached: its discovery document and its resource server."""

    discovery: str
    resources: str


Directory = Callable[[str], Awaitable[Endpoints | None]]
"""Tell a bank's endpoints by the three digits of its code in an IBAN."""


def payee_question(body: dict[str, Any]) -> bytes:
    """Return the bank's question of a TPP's validated one."""
    data = body["Data"]
    name = {_BANK_NAMES[member]: value for member, value in data["Name"].items()}
    account = {"schemeName": "IBAN", "identification": data["Identification"], "name": name}
    return orjson.dumps({"data": {"account": account}})


class Marks(msgspec.Struct, frozen=True):
    """Hold from which score on a name matches, and from which in part."""

    yes: float = YES
    partial: float = PARTIAL


def payee_answer(
    call: Call, body: dict[str, Any], answer: Any, resource_base: str, marks: Marks
) -> Reply | Fault:
    """Return the TPP's answer to its question, given the bank's decoded one.

    Faults: 500 ``GenericError``, check ``bank.unmappable``.
    """
    name = body["Data"]["Name"]
    given = name.get("FullName") or name["BusinessName"]
    try:
        customers = answer.get("data") or []
        names = [n for customer in customers for n in _names(customer)]
    except (AttributeError, TypeError):
        text = "The bank's answer cannot be read."
        return bank_fault(500, "GenericError", text, check="bank.unmappable", private=call.route.id)
    if not names:
        return Reply(status=204)
    score, best = best_match(given, names, yes=marks.yes)
    data = {"NameMatchIndicator": indicator(score, yes=marks.yes, partial=marks.partial)}
    if score < marks.yes:
        data["MaskedName"] = masked(best)
    return Reply(status=200, value=_enveloped(call, data, resource_base))


def _names(customer: dict[str, Any]) -> Iterator[str]:
    """Yield every name that a customer's claims give."""
    for claim in customer.get("verifiedClaims") or []:
        person, organisation = claim.get("claims") or {}, claim.get("organisationClaims") or {}
        parts = (person.get("givenName"), person.get("familyName"))
        for name in (
            person.get("fullName"),
            organisation.get("name"),
            " ".join(filter(None, parts)),
        ):
            if isinstance(name, str) and name.strip():
                yield name


async def discover(
    call: Call, body: dict[str, Any], directory: Directory | None, resource_base: str
) -> Reply | Fault:
    """Return which bank an account is with.

    Faults: 400 ``Body.InvalidFormat`` for what is no IBAN of the country; 404 for a bank that is not in the framework.

    Cancellation: harmless.
    """
    iban = body["Data"]["Identification"].replace(" ", "").upper()
    if not is_iban(iban):
        text = "/Data/Identification: expected an IBAN of the United Arab Emirates"
        path = "/Data/Identification"
        return caller_fault(400, "Body.InvalidFormat", text, check="payee.iban", path=path)
    found = await directory(iban[4:7]) if directory is not None else None
    if found is None:
        return caller_fault(404, "", "", check="payee.bank_unknown")
    data = {"DiscoveryEndpointUrl": found.discovery, "ResourceServerUrl": found.resources}
    return Reply(status=200, value=_enveloped(call, data, resource_base))


def is_iban(text: str) -> bool:
    """Tell whether a text is an IBAN of the country with the right check digits (ISO 13616)."""
    if _IBAN.fullmatch(text) is None:
        return False
    turned = text[4:] + text[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _enveloped(call: Call, data: dict[str, Any], resource_base: str) -> dict[str, Any]:
    return {"Data": data, "Links": {"Self": resource_base + call.request.path}, "Meta": {}}
