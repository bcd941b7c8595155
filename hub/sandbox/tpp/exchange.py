"""One request, one answer: values that the protocol pairs make and read, and the wire that carries them over mTLS."""

import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, final

import httpx
import msgspec

from hub.sandbox.tpp.identity import Identity

CALL_S: Final = 15.0


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request: its body is a ``form``, ``json``, or ``content`` under the ``content-type`` of the headers."""

    method: str
    url: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    form: dict[str, str] | None = None
    json: dict[str, Any] | None = None
    content: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON, or None where it is not."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a refusal: OAuth's ``error`` or the standard's code, and its text."""

    status: int
    code: str
    text: str = ""

    @property
    def line(self) -> str:
        """Return it as one line."""
        return " ".join(part for part in (str(self.status or ""), self.code, self.text) if part)


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what an observer is shown after each exchange."""

    ask: Ask
    answer: Answer


Watch = Callable[[Exchange], None]


def refused(answer: Answer) -> Refused:
    """Read any of the standard's error bodies: OAuth's, the ``Errors`` array, ``errorCode``, or none."""
    body = answer.json()
    if not isinstance(body, dict):
        return Refused(
            status=answer.status, code="", text=answer.body[:200].decode(errors="replace")
        )
    if isinstance(body.get("error"), str):
        return Refused(
            status=answer.status, code=body["error"], text=str(body.get("error_description", ""))
        )
    errors = body.get("Errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code = first.get("Code") or body.get("errorCode") or ""
    text = first.get("Message") or body.get("errorMessage") or body.get("Message") or ""
    return Refused(status=answer.status, code=str(code), text=str(text))


@final
class Wire:
    """Carry exchanges over connections that present one client certificate; use as ``async with``."""

    def __init__(self, context: ssl.SSLContext, watch: Watch | None = None) -> None:
        """Take the TLS context, and an observer that is shown each exchange."""
        self._client = httpx.AsyncClient(
            verify=context, timeout=CALL_S, follow_redirects=False, trust_env=False
        )
        self._watch = watch

    @classmethod
    def of(cls, identity: Identity, watch: Watch | None = None) -> Self:
        """Return a wire that presents the identity's transport certificate."""
        return cls(identity.tls(), watch)

    async def __aenter__(self) -> Self:
        """Open the pool."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self._client.__aexit__(kind, error, trace)

    async def carry(self, ask: Ask) -> Answer:
        """Send one request and return its answer, whatever its status.

        Raises:
            httpx.HTTPError: No answer came within ``CALL_S`` seconds, or TLS refused.

        Cancellation: the connection is dropped.
        """
        got = await self._client.request(
            ask.method,
            ask.url,
            params=ask.query or None,
            headers=ask.headers,
            data=ask.form,
            json=ask.json,
            content=ask.content or None,
        )
        answer = Answer(status=got.status_code, headers=dict(got.headers), body=got.content)
        if self._watch is not None:
            self._watch(Exchange(ask=ask, answer=answer))
        return answer
