"""Which bearer a bank wants, and the token endpoint of a bank that has one of its own."""

import ssl
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import trio

from hub.config import BankSettings
from hub.model.clock import Clock, Dice
from hub.model.fault import Fault
from hub.protocol.jose import PrivateKey
from hub.upstream.bearer import (
    ApiKey,
    AskToken,
    Bearer,
    ClientCredentials,
    JwtAuth,
    NoBearer,
    TokenAnswer,
    subject_of,
)
from hub.upstream.exchange import Progress, Upload, converse, finish
from hub.upstream.faults import bank_failure
from hub.upstream.h1 import AnswerReader, request_head
from hub.upstream.tls import open_connection

_TOKEN_OCTETS: Final = 65536
_TOKEN_S: Final = 3.0


def make_bearer(
    settings: BankSettings,
    *,
    key: PrivateKey,
    clock: Clock,
    dice: Dice,
    life: int,
    ask: AskToken,
) -> Bearer:
    """Make what authenticates us as the settings want it.

    Raises:
        OSError: A file cannot be read.
        ValueError: What the chosen way needs is not configured.
    """
    if settings.auth == "jwt":
        return JwtAuth(
            subject=subject_of(settings.certificate.read_bytes()),
            audience=settings.audience,
            key=key,
            clock=clock,
            dice=dice,
            life=life,
        )
    if settings.auth == "api_key" and settings.api_key is not None:
        return ApiKey(settings.api_key)
    if settings.auth == "oauth" and settings.client_secret is not None:
        secret = settings.client_secret
        return ClientCredentials(client_id=settings.client_id, secret=secret, ask=ask, clock=clock)
    if settings.auth == "mtls":
        return NoBearer()
    raise ValueError(f"bank.auth = {settings.auth!r} lacks its credentials file")


class TokenEndpoint:
    """Ask the bank's own authorization server, over a connection per question: one comes every few minutes."""

    def __init__(self, url: str, context: Callable[[], ssl.SSLContext]) -> None:
        """Take its https URL, and what gives the TLS context in use."""
        self._url = urlsplit(url)
        self._context = context

    async def ask(self, form: bytes, headers: Mapping[str, str]) -> TokenAnswer | Fault:
        """Post a form.

        Faults: ``bank.unreachable``.

        Cancellation: harmless.
        """
        with trio.move_on_after(_TOKEN_S):
            return await self._ask(form, headers)
        return bank_failure("bank.unreachable", "token endpoint: no answer in time", sent=False)

    async def _ask(self, form: bytes, headers: Mapping[str, str]) -> TokenAnswer | Fault:
        host, port, authority = origin_of(f"https://{self._url.netloc}")
        fields = [(b"content-type", b"application/x-www-form-urlencoded")]
        fields += [(name.encode(), value.encode()) for name, value in headers.items()]
        head = request_head("POST", self._url.path or "/", authority, tuple(fields), len(form))
        try:
            connection = await open_connection(host, port, self._context())
        except OSError as error:
            return bank_failure("bank.unreachable", f"token endpoint: {error}", sent=False)
        reader = AnswerReader(_TOKEN_OCTETS, _TOKEN_OCTETS)
        body: list[bytes] = []
        try:
            fault = await converse(connection, head, Upload(form, None, ()), reader, Progress())
            fault = fault or await finish(connection, reader, body, _TOKEN_OCTETS)
        finally:
            connection.close()
        if fault is not None:
            return bank_failure("bank.unreachable", f"token endpoint: {fault.check}", sent=False)
        return TokenAnswer(reader.status, b"".join(body))


def origin_of(url: str) -> tuple[str, int, bytes]:
    """Return host, port and the value of the ``host`` header of an https URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443, parts.netloc.encode("ascii")
