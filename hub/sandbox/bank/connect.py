"""Ozone Connect as this bank serves it: who calls is checked, then which operation, then what it may see.

Order of the checks: health checks (no bearer); the Hub's certificate; its bearer; the ``o3-*`` headers; the route; the
consent (this bank keeps what its customer agreed to, and serves nothing outside of it, whatever the Hub says); the account's
own state. Answers are ``{data, meta}``, refusals ``{errorCode, errorMessage}``.

Sources: Ozone Connect bank data sharing v2.1.11, health check v2.1.2.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, final
from urllib.parse import parse_qs, unquote

import msgspec
import orjson

from hub.sandbox.bank.bearer import Gate, Refusal, Subject
from hub.sandbox.bank.book import Book, Granted, customer_by_user
from hub.sandbox.bank.people import Account, Customer
from hub.sandbox.site import SiteRequest, SiteResponse

Json = dict[str, Any]
Item = TypeVar("Item")
_NEEDED: Final = (
    "o3-caller-org-id",
    "o3-caller-client-id",
    "o3-caller-software-statement-id",
    "o3-api-uri",
    "o3-api-operation",
    "o3-ozone-interaction-id",
)
BLOCKED: Final = {
    "Suspended": "Consent.AccountTemporarilyBlocked",
    "Inactive": "Consent.AccountTemporarilyBlocked",
    "Dormant": "Consent.AccountTemporarilyBlocked",
    "Closed": "Consent.PermanentAccountAccessFailure",
    "Deceased": "Consent.PermanentAccountAccessFailure",
    "Unclaimed": "Consent.PermanentAccountAccessFailure",
}
"""The code that a blocked account's state is refused with."""
_LARGEST_PAGE: Final = 1_000


class Refused(Exception):  # noqa: N818 - it carries a refusal to the one place that answers it
    """Carry a refusal out of an operation."""

    def __init__(self, refusal: Refusal) -> None:
        """Take what is to be answered."""
        super().__init__(refusal.code)
        self.refusal = refusal


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one call that came from the Hub."""

    request: SiteRequest
    query: dict[str, list[str]]
    parts: tuple[str, ...]
    book: Book

    def one(self, name: str) -> str:
        """Return a query parameter's first value, or an empty string."""
        return self.query.get(name, [""])[0]

    def json(self) -> Json:
        """Return the body as an object; refused where it is none."""
        try:
            return msgspec.json.decode(self.request.body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise refused(400, "Body.InvalidFormat", "the body is not a JSON object") from None

    def customer(self) -> Customer:
        """Return the customer that ``o3-psu-identifier`` names; refused where there is none."""
        text = self.request.header("o3-psu-identifier")
        try:
            who = msgspec.json.decode(base64.b64decode(text, validate=True), type=dict[str, Any])
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise refused(400, "Consent.InvalidUserIdentifier", "unreadable identifier") from None
        customer = customer_by_user(str(who.get("userId", "")))
        if customer is None:
            raise refused(400, "Consent.InvalidUserIdentifier", "no such customer")
        return customer

    def consent(self) -> Granted:
        """Return what the customer agreed to under ``o3-consent-id``; refused where that is nothing."""
        granted = self.book.granted(self.request.header("o3-consent-id"))
        if granted is None or granted.user_id != self.customer().user_id:
            raise refused(400, "Consent.Invalid", "no customer of this bank gave that consent")
        return granted

    def consented_account(self, account_id: str) -> Account:
        """Return an account of the consent, whatever its state; refused where it is outside."""
        account = self.book.account(account_id)
        if account is None or account_id not in self.consent().accounts:
            raise refused(
                403, "Consent.PermanentAccountAccessFailure", "the account is not in the consent"
            )
        return account

    def open_account(self) -> Account:
        """Return the path's account of the consent; refused where it is outside or blocked."""
        account = self.consented_account(self.parts[1])
        code = BLOCKED.get(account.status)
        if code is not None:
            raise refused(403, code, f"the account is {account.status}")
        return account


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an operation's answer: JSON (None for an empty body) or raw octets of another type."""

    status: int = 200
    body: Json | None = None
    raw: bytes = b""
    media_type: str = "application/json"


Operation = Callable[[Call], Answer]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Bind a method and path template (``*`` for one segment) to an operation and the bearer scopes that fit."""

    method: str
    template: tuple[str, ...]
    operation: Operation
    scopes: frozenset[str] = frozenset()


def route(method: str, path: str, operation: Operation, *scopes: str) -> Route:
    """Make a Route from a path such as ``/accounts/*/balances``."""
    return Route(
        method=method,
        template=tuple(path.strip("/").split("/")),
        operation=operation,
        scopes=frozenset(scopes),
    )


def refused(status: int, code: str, message: str) -> Refused:
    """Make a Refused."""
    return Refused(Refusal(status, code, message))


def paged(
    call: Call,
    items: Sequence[Item],
    shape: Callable[[Item], Json] | None = None,
    *,
    paginated: bool = False,
) -> Answer:
    """Answer one page of a list (``page`` from 1, ``page-size`` 1 to 1,000, default 100), each item shaped when shown."""
    page, size = _whole(call, "page", 1), min(_whole(call, "page-size", 100), _LARGEST_PAGE)
    pages = -(-len(items) // size)
    cut = items[(page - 1) * size : page * size]
    shown = list(cut) if shape is None else [shape(item) for item in cut]
    about: Json = {"totalPages": pages, "totalRecords": len(items)}
    if paginated:
        about = {"paginated": pages > 1, **about}
    return Answer(body={"data": shown, "meta": about})


def _whole(call: Call, name: str, default: int) -> int:
    text = call.one(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 1_000_000:
        raise refused(400, "Resource.InvalidFormat", f"{name} is not a number above zero")
    return int(text)


def _matches(template: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return len(template) == len(parts) and all(
        want in {"*", got} for want, got in zip(template, parts, strict=True)
    )


def respond(status: int, body: Json | None) -> SiteResponse:
    """Answer JSON, or nothing."""
    if body is None:
        return SiteResponse(status=status)
    headers = (("content-type", "application/json"), ("cache-control", "no-store"))
    return SiteResponse(status=status, headers=headers, body=orjson.dumps(body))


def respond_refusal(refusal: Refusal) -> SiteResponse:
    """Answer a refusal in the documented shape."""
    return respond(refusal.status, {"errorCode": refusal.code, "errorMessage": refusal.message})


@final
class OzoneConnect:
    """Answer the Hub's calls; a ``SiteHandler``."""

    __slots__ = ("_book", "_gate", "_host", "_provider_id", "_routes")

    def __init__(
        self,
        *,
        book: Book,
        gate: Gate,
        provider_id: str,
        host: str,
        routes: tuple[Route, ...],
    ) -> None:
        """Take the book, the gate, this bank's code and host name, and its routes."""
        self._book = book
        self._gate = gate
        self._provider_id = provider_id
        self._host = host
        self._routes = routes

    async def __call__(self, request: SiteRequest) -> SiteResponse:
        """Answer one call."""
        parts = tuple(unquote(part) for part in request.path.strip("/").split("/"))
        if parts in {("hello",), ("hello-mtls",), ("echo-cert",)} and request.method == "GET":
            return self._health(parts[0], request)
        subject = self._gate.certificate(request.certificate)
        if isinstance(subject, Refusal):
            return respond_refusal(subject)
        found = [r for r in self._routes if _matches(r.template, parts)]
        matched = next((r for r in found if r.method == request.method), None)
        refusal = await self._admitted(request, subject, matched)
        if refusal is not None:
            return respond_refusal(refusal)
        if matched is None:
            return respond_refusal(
                Refusal(405 if found else 404, "Resource.InvalidFormat", "no such operation")
            )
        self._book.catch_up()
        query = parse_qs(request.query, keep_blank_values=True)
        call = Call(request=request, query=query, parts=parts, book=self._book)
        return self._performed(matched, call)

    async def _admitted(
        self, request: SiteRequest, subject: Subject, matched: Route | None
    ) -> Refusal | None:
        scopes = matched.scopes if matched is not None else frozenset[str]()
        refusal = await self._gate.bearer(request.header("authorization"), subject, scopes)
        if refusal is not None:
            return refusal
        if request.header("o3-provider-id") != self._provider_id:
            return Refusal(400, "Resource.InvalidFormat", "o3-provider-id is not this bank's")
        missing = [name for name in _NEEDED if not request.header(name)]
        if missing:
            return Refusal(400, "Resource.InvalidFormat", f"header {missing[0]} is missing")
        return None

    @staticmethod
    def _performed(matched: Route, call: Call) -> SiteResponse:
        try:
            answer = matched.operation(call)
        except Refused as error:
            return respond_refusal(error.refusal)
        if answer.media_type != "application/json":
            headers = (("content-type", answer.media_type),)
            return SiteResponse(status=answer.status, headers=headers, body=answer.raw)
        return respond(answer.status, answer.body)

    def _health(self, name: str, request: SiteRequest) -> SiteResponse:
        about: Json = {"connectionEstablished": True, "hostName": self._host}
        if name == "hello":
            return respond(200, {**about, "mtlsStatus": "not-checked"})
        subject = self._gate.certificate(request.certificate)
        if isinstance(subject, Refusal):
            return respond(401, {"errorMessage": subject.message})
        if name == "echo-cert":
            shown = {"subject": subject.subject, "issuer": subject.issuer}
            about["clientCertificate"] = shown
        return respond(200, {**about, "mtlsStatus": "established"})
