"""How an order can end that is not refused: paid now, found out late, or answered before."""

import msgspec

from hub.gateway.idempotency import Stored, Use
from hub.gateway.payment_outcome import Moment, Outcome
from hub.gateway.values import Reply
from hub.model.fault import Fault
from hub.model.records import Attempt


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a payment whose outcome is known and not yet written: what to answer, and what to write with the answer."""

    shown: Reply | Fault
    attempt: Attempt
    version: int
    outcome: Outcome
    use: Use
    at: Moment
    bank_us: int


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the answer to an order whose outcome was found without its request: the first to hear it; kept for the next."""

    shown: Reply | Fault
    attempt: Attempt
    version: int
    use: Use


class Replayed(msgspec.Struct, frozen=True):
    """Hold the answer that the first request under a key got."""

    stored: Stored
