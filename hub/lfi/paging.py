"""Filters and pages of the Consent Manager's lists.

Source: hub-apis 3.1; decisions.md section 2 (``updatedAt``).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hub.model.consent import ConsentType, Status
from hub.model.fault import Fault, caller_fault
from hub.state.keeper import Query

DEFAULT_SIZE: Final = 25
LARGEST_SIZE: Final = 500
_SECONDS_BELOW: Final = 10**11


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a list asks for; pages count from 1, ``updated_after`` is in milliseconds, -1 for any."""

    page: int = 1
    size: int = DEFAULT_SIZE
    consent_type: str = ""
    status: str = ""
    updated_after: int = -1


def read_wanted(query: Mapping[str, str], *, stream: bool) -> Wanted | Fault:
    """Read the query of a list; unknown parameters are ignored.

    Args:
        query: Decoded.
        stream: Whether ``updatedAt`` means something here.

    Faults: 400 ``Resource.InvalidFormat``, naming the parameter.
    """
    page = _whole(query, "page", 1)
    if isinstance(page, Fault):
        return page
    size = _whole(query, "pageSize", DEFAULT_SIZE)
    if isinstance(size, Fault):
        return size
    updated = _moment(query.get("updatedAt", "")) if stream else -1
    if isinstance(updated, Fault):
        return updated
    for name, known in (("consentType", ConsentType), ("status", Status)):
        if query.get(name) and query[name] not in known.__members__.values():
            return _wrong(name, f"expected one of {', '.join(known)}")
    return Wanted(
        page=page,
        size=min(size, LARGEST_SIZE),
        consent_type=query.get("consentType", ""),
        status=query.get("status", ""),
        updated_after=updated,
    )


def query_of(wanted: Wanted, *also: tuple[str, str | int]) -> Query:
    """Return the store's query of a list, oldest change first."""
    where = [*also]
    if wanted.consent_type:
        where.append(("type", wanted.consent_type))
    if wanted.status:
        where.append(("status", wanted.status))
    at_least = (("updated", wanted.updated_after + 1),) if wanted.updated_after >= 0 else ()
    return Query(
        kind="consent",
        where=tuple(where),
        at_least=at_least,
        order="updated",
        offset=(wanted.page - 1) * wanted.size,
        limit=wanted.size,
        count=True,
    )


def meta_of(wanted: Wanted, total: int) -> dict[str, Any]:
    """Return the ``meta`` of a list."""
    return {
        "pageNumber": wanted.page,
        "pageSize": wanted.size,
        "totalPages": -(-total // wanted.size),
        "totalRecords": total,
    }


def _whole(query: Mapping[str, str], name: str, default: int) -> int | Fault:
    value = query.get(name, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) >= 1):
        return _wrong(name, "expected a whole number from 1 on")
    return int(value)


def _moment(value: str) -> int | Fault:
    if not value:
        return -1
    try:
        number = float(value)
        moment = int(number * 1000 if number < _SECONDS_BELOW else number)
    except (ValueError, OverflowError):
        return _wrong("updatedAt", "expected a number: milliseconds (or seconds) since 1970")
    if not 0 <= moment < 2**53:
        return _wrong("updatedAt", "expected a number: milliseconds (or seconds) since 1970")
    return moment


def _wrong(name: str, why: str) -> Fault:
    return caller_fault(
        400, "Resource.InvalidFormat", f"{name}: {why}", check="lfi.query", path=name
    )
