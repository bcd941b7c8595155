"""Faults as answers of the resource endpoints, and the bank's errors as Faults.

A TPP reads ``{"Errors": [{Code, Message, Path?}]}`` with 400, 403, 409 and 500; every other status has no body. A bank says
``{errorCode, errorMessage}``; its code is copied where it is one of the standard's or namespaced, and only its message
goes on, cut to length: nothing else of the bank's answer leaves the Hub.

Source: errors.md sections 1 to 7; decisions.md section 4.
"""

import re
from typing import Any, Final

import msgspec
import orjson

from hub.model.fault import Fault, Source, bank_fault
from hub.model.http import Headers, Response
from hub.protocol.jose import DPOP_ALGS
from hub.upstream.bank import BankAnswer

_ALGS: Final = f'algs="{" ".join(DPOP_ALGS)}"'.encode()
WITH_BODY: Final = frozenset({400, 403, 409, 500})
GENERIC: Final = frozenset({"GenericError", "GenericRecoverableError"})
LISTED_403: Final = GENERIC | {
    "AccessToken.InvalidScope",
    "Consent.TransientAccountAccessFailure",
    "Consent.AccountTemporarilyBlocked",
    "Consent.PermanentAccountAccessFailure",
}
STANDARD: Final = LISTED_403 | {
    "Body.InvalidFormat",
    "Consent.BusinessRuleViolation",
    "Consent.FailsControlParameters",
    "Consent.Invalid",
    "Consent.InvalidUserIdentifier",
    "Event.UnexpectedEvent",
    "JWE.DecryptionError",
    "JWE.InvalidHeader",
    "JWS.InvalidClaim",
    "JWS.InvalidHeader",
    "JWS.InvalidPayload",
    "JWS.InvalidSignature",
    "JWS.Malformed",
    "Resource.InvalidFormat",
}
"""The codes that the standard names."""
BANKS_OWN: Final = "LFI.*"
_NAMESPACED: Final = re.compile(r"[A-Za-z]+\.[A-Za-z0-9]+")
_MESSAGE: Final = 500
_CODE: Final = 128
_INVALID_TOKEN: Final = b'Bearer error="invalid_token"'


class BankError(msgspec.Struct, frozen=True):
    """Hold what a bank may say with an error; both members may be missing, or null."""

    errorCode: str | None = ""  # noqa: N815 - the standard's names
    errorMessage: str | None = ""  # noqa: N815


def error_body(fault: Fault, url: str = "") -> dict[str, Any]:
    """Return the standard's error object of a Fault; ``url`` is where its check is explained."""
    item: dict[str, Any] = {
        "Code": fault.code or "GenericError",
        "Message": (fault.public or "The request was refused.")[:_MESSAGE],
    }
    if fault.path:
        item["Path"] = json_path(fault.path)[:_MESSAGE]
    if url:
        item["Url"] = url
    return {"Errors": [item]}


def json_path(pointer: str) -> str:
    """Return a JSON pointer as the JSON path that the standard shows (``$.Data.Amount``)."""
    steps = pointer.removeprefix("/").split("/") if pointer else []
    return "$" + "".join(f"[{s}]" if s.isdigit() else f".{s}" for s in steps)


def recorded_code(fault: Fault) -> str:
    """Return a Fault's code for the audit log; of a code of the bank's own only that it was one: it may say anything."""
    known = not fault.code or fault.code in STANDARD or fault.source is not Source.BANK
    return fault.code if known else BANKS_OWN


def error_headers(fault: Fault, *, allow: tuple[str, ...] = (), url: str = "") -> Headers:
    """Return the headers that a refusal needs besides its media type; ``url`` is where its check is explained."""
    headers: list[tuple[bytes, bytes]] = []
    if fault.status == 401:
        plain = challenge(fault)
        more = f', error_uri="{url}"'.encode() if url and b"error=" in plain else b""
        headers.append((b"www-authenticate", plain + more))
    if fault.nonce:
        headers.append((b"dpop-nonce", fault.nonce.encode()))
    if fault.status == 405:
        headers.append((b"allow", ", ".join(allow).encode()))
    if fault.status in {429, 503}:
        headers.append((b"retry-after", str(fault.retry_after or 1).encode()))
    return tuple(headers)


def challenge(fault: Fault) -> bytes:
    """Return how to authenticate instead.

    Source: RFC 6750 section 3.1 (no error where nothing was presented); RFC 9449 sections 7.1 and 9.
    """
    if fault.check == "token.missing":
        return b"Bearer"
    if fault.check == "dpop.nonce":
        return b'DPoP error="use_dpop_nonce", ' + _ALGS
    if fault.check.startswith("dpop."):
        return b'DPoP error="invalid_dpop_proof", ' + _ALGS
    return _INVALID_TOKEN


def bare(status: int, headers: Headers = ()) -> Response:
    """Return an answer without a body that no cache keeps."""
    return Response(status=status, headers=((b"cache-control", b"no-store"), *headers))


def unrecorded(fault: Fault, *headers: tuple[bytes, bytes]) -> Response:
    """Answer that nothing can be served while nothing can be recorded."""
    retry = str(fault.retry_after or 1).encode()
    return bare(503, ((b"retry-after", retry), *headers))


def too_deep() -> Fault:
    """Return what is said of a bank's answer that nests more deeply than can be written."""
    text = "The bank's answer cannot be read."
    return bank_fault(500, "GenericError", text, check="bank.unmappable", private="depth")


def bank_error(answer: BankAnswer, *, payment: bool, finds: bool) -> Fault:
    """Map a bank's answer that is no success.

    Args:
        answer: With a status other than 2xx.
        payment: The operation creates a payment (409 is declared for it).
        finds: The operation declares 404.
    """
    said = _read(answer.body)
    text = (said.errorMessage or "The bank refused the request.")[:_MESSAGE]
    code = said.errorCode or ""
    lawful = code in GENERIC or (len(code) <= _CODE and _NAMESPACED.fullmatch(code) is not None)
    match answer.status:
        case 400:
            if not lawful:
                return _refused(400, *_foreign(code, text))
            return _refused(400, code, text)
        case 401:
            return _failed(
                "GenericError", "bank.unauthorized", "the bank did not accept our credentials"
            )
        case 403:
            return _refused(403, code if code in LISTED_403 or lawful else "GenericError", text)
        case 404:
            return _refused(404, "", "") if finds else _refused(400, "Resource.InvalidFormat", text)
        case 409:
            generic = code if code in GENERIC else "GenericError"
            return _refused(409 if payment else 400, code if payment and lawful else generic, text)
        case 429:
            fault = _refused(429, "", "")
            return msgspec.structs.replace(fault, retry_after=_retry_after(answer))
        case 500:
            return _failed(code if lawful else "GenericError", "bank.error", "status 500")
        case status if 400 <= status < 500:
            return _refused(400, "GenericError", text)
        case status:
            generic = "GenericError" if payment else "GenericRecoverableError"
            return _failed(generic, "bank.error", f"status {status}")


def _read(body: bytes) -> BankError:
    try:
        return msgspec.json.decode(body, type=BankError)
    except msgspec.DecodeError:
        return BankError()


def _foreign(code: str, text: str) -> tuple[str, str]:
    """Put a code that is not the standard's under the namespace of the bank."""
    word = re.sub(r"[^A-Za-z0-9]", "", code)[:64]
    return (f"LFI.{word}", text) if word else ("GenericError", text)


def _refused(status: int, code: str, text: str) -> Fault:
    return bank_fault(status, code, text, check="bank.refused")


def _failed(code: str, check: str, private: str) -> Fault:
    return bank_fault(
        500, code, "The bank could not serve the request.", check=check, private=private
    )


def _retry_after(answer: BankAnswer) -> int:
    value = answer.header(b"retry-after") or b""
    return min(int(value), 86_400) if value.isdigit() and len(value) < 6 else 1


def at_resources(fault: Fault) -> Fault:
    """Return a trust or store Fault as resource endpoints say it: 401 without a body, our own trouble as 500.

    Source: decisions.md section 1, last row.
    """
    if fault.check.startswith("trust.") and fault.check != "trust.stale":
        return msgspec.structs.replace(fault, status=401, code="", public="")
    if fault.source is Source.HUB or fault.check == "trust.stale":
        return msgspec.structs.replace(
            fault,
            status=500,
            code="GenericRecoverableError",
            public="The Hub cannot serve this now.",
        )
    return fault


def encoded(fault: Fault) -> bytes:
    """Return the JSON of a Fault's error object; empty for a status that has no body."""
    return orjson.dumps(error_body(fault)) if fault.status in WITH_BODY else b""
