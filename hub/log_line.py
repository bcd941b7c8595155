"""The JSON log line of one answer."""

import msgspec


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one answer's line; what is empty is left out."""

    time: int
    face: str
    method: str
    status: int
    us: int
    address: str
    interaction_id: str = ""
    client_id: str = ""
    consent_id: str = ""
    route: str = ""
    verdict: str = ""
    check: str = ""
    code: str = ""
    bank_us: int = 0
    octets_in: int = 0
    octets_out: int = 0
