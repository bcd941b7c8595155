"""What the rest of the Hub asks of the bank: one call, one answer or one Fault, under one deadline."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from hub.model.fault import Fault
from hub.model.http import Headers


class BankCall(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request to Ozone Connect.

    Attributes:
        method: Upper case.
        path: Below the base URL and the family's base path; begins with ``/``.
        family: ``data-sharing``, ``service-initiation``, ``products``, ``events`` or ``echo``: selects the base path.
        query: Raw, without ``?``.
        headers: The ``o3-*`` headers and the content type; the bearer is added by ``upstream``.
        body: Complete.
        stream: Or in pieces (file uploads).
        scope: Goes into the bearer's ``scope`` claim (hub-behaviour 9).
        bearer: The bank's own token for this call (``ConnectToken``), instead of ours; a secret.
        deadline_ms: For the whole exchange.
        repeatable: May be sent once more if provably nothing was received (GETs).
        stream_answer: Hand over the answer's body as a stream when it exceeds 64 KiB.
    """

    method: str
    path: str
    family: str = "data-sharing"
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    scope: str = ""
    bearer: str = ""
    deadline_ms: int = 10_000
    repeatable: bool = False
    stream_answer: bool = False


class BankAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the bank's answer: status, headers in lower case, the body complete or as a stream, and the time it took."""

    status: int
    headers: Headers
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    bank_us: int = 0

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header given in lower case, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class BankStreamBroken(Exception):  # noqa: N818 - a stream that broke is not a bug
    """Tell the reader of a streamed answer that it broke off; ``fault`` says how."""

    def __init__(self, fault: Fault) -> None:
        """Carry a Fault of ``Bank.exchange``."""
        super().__init__(fault.check)
        self.fault = fault


class Bank(Protocol):
    """Exchange calls with the bank."""

    async def exchange(self, call: BankCall) -> BankAnswer | Fault:
        """Send one call and return its answer.

        Faults (source ``bank``, status 500 unless said, code ``GenericRecoverableError``): ``bank.unreachable``,
        ``bank.tls``, ``bank.timeout``, ``bank.reset``, ``bank.malformed``, ``bank.circuit_open``, ``bank.busy``.
        ``private`` says whether anything may have been processed (``sent=yes|no``).

        Cancellation: the exchange is abandoned and its connection not used again.
        """
        ...
