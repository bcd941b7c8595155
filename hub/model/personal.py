"""Identifiers that should be opaque but look like a person's: IBAN, Emirates ID, card number, e-mail address.

Each pattern is confirmed by its check digits where it has some, so that an opaque number is rarely mistaken for one.

Source: hub-behaviour 5.4 (opaque stable values); issue 6 point 9. ISO 13616 (IBAN), ISO/IEC 7812 (cards).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_EMIRATES_ID: Final = re.compile(r"784(19|20)[0-9]{2}[0-9]{8}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CARD: Final = re.compile(r"[2-6][0-9]{12,18}")
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}\.[A-Za-z]{2,24}")
_FIELDS: Final = (
    "psuIdentifiers",
    "accountIds",
    "insurancePolicyIds",
    "consentBody.Meta.MultipleAuthorizers",
)
"""Where a bank's patch identifies someone or something; who authorizes is shown to the TPP."""


def personal_kind(value: str) -> str:
    """Return what a value looks like; empty for nothing known."""
    if _EMAIL.fullmatch(value):
        return "an e-mail address"
    if _UUID.fullmatch(value):
        return ""
    bare = value.replace(" ", "").replace("-", "").upper()
    if _IBAN.fullmatch(bare) and _iban_fits(bare):
        return "an IBAN"
    if _EMIRATES_ID.fullmatch(bare):
        return "an Emirates ID"
    if _CARD.fullmatch(bare) and _luhn_fits(bare):
        return "a card number"
    return ""


def _iban_fits(bare: str) -> bool:
    digits = "".join(str(int(c, 36)) for c in bare[4:] + bare[:4])
    return int(digits) % 97 == 1


def _luhn_fits(digits: str) -> bool:
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if at % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def personal_members(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and likeness of each identifier in a patch that looks personal; never the value itself."""
    for field in _FIELDS:
        for path, value in _strings(field, fields.get(field)):
            kind = personal_kind(value)
            if kind:
                yield path, kind


def _strings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _strings(f"{path}[{at}]", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(f"{path}.{name[:64]}", item)
