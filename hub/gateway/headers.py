"""What a request's headers say of the customer, judged: from which address, and when he was last at the TPP.

An address makes a call an attended one, so it must be one. Headers that nobody knows are nobody's business.

Source: routes.md section 2; fapi.md RS-11.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from hub.model.fault import Fault, caller_fault

_ADDRESS: Final = b"x-fapi-customer-ip-address"
_AUTH_DATE: Final = b"x-fapi-auth-date"
_MOMENT: Final = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    rb"[0-9]{2}:[0-9]{2}:[0-9]{2} (?:GMT|UTC)"
)
_LONGEST: Final = 45
"""Octets of an address as text."""


def customer_fault(fields: Mapping[bytes, bytes]) -> Fault | None:
    """Return what is wrong with what the headers say of the customer, or None.

    Faults: 400 ``Resource.InvalidFormat``, check ``request.header``.
    """
    address, moment = fields.get(_ADDRESS), fields.get(_AUTH_DATE)
    if address is not None and (len(address) > _LONGEST or not _is_address(address)):
        return _fault("x-fapi-customer-ip-address: expected an IPv4 or IPv6 address")
    if moment is not None and _MOMENT.fullmatch(moment) is None:
        return _fault("x-fapi-auth-date: expected a date like Tue, 11 Sep 2012 19:43:31 GMT")
    return None


@lru_cache(maxsize=4096)
def _is_address(text: bytes) -> bool:
    try:
        return bool(ip_address(text.decode("ascii")))
    except ValueError:
        return False


def _fault(text: str) -> Fault:
    return caller_fault(400, "Resource.InvalidFormat", text, check="request.header")
