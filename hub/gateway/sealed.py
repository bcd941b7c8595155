"""Sealed parts of a payment: passed on unread, their header checked: the algorithms, and a key that the bank still uses.

A part sealed for a key that the bank has withdrawn could be read by nobody; told at once, the TPP seals it anew. Where the key
store cannot be asked, the bank decides.

Source: routes.md T6; errors.md section 7 (JWE); consents.md section 5.2 rule 10. RFC 7516 section 7.1.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from hub.model.fault import Fault, caller_fault
from hub.protocol.jose import JWE_ALG, JWE_ENC, decode_b64url, decode_json

Current = Callable[[str], Awaitable[bool]]
"""Tell whether the bank's encryption key of that ``kid`` is current."""

_PARTS: Final = 5
_PATH: Final = "/Data/PersonalIdentifiableInformation"
_HEADER_MOST: Final = 2048


async def sealed_fault(body: dict[str, Any], current: Current | None) -> Fault | None:
    """Return why the sealed part of an order cannot be the bank's, or None; an order without one is fine, one in the clear not.

    Args:
        body: The order, judged by the contract.
        current: None where keys cannot be looked up.

    Faults: 400 ``JWE.DecryptionError`` (not five parts), ``JWE.InvalidHeader``; checks ``jwe.form``, ``jwe.header``,
    ``jwe.key``.

    Cancellation: harmless.
    """
    sealed = body.get("Data", {}).get("PersonalIdentifiableInformation")
    if sealed is None:
        return None
    parts = sealed.split(".") if isinstance(sealed, str) else []
    if len(parts) != _PARTS or not all(parts):
        return _fault("JWE.DecryptionError", "jwe.form", "expected a JWE of five parts")
    header = _header(parts[0])
    if (header.get("alg"), header.get("enc")) != (JWE_ALG, JWE_ENC):
        return _fault("JWE.InvalidHeader", "jwe.header", f"expected {JWE_ALG} with {JWE_ENC}")
    kid = header.get("kid")
    if not isinstance(kid, str):
        return _fault("JWE.InvalidHeader", "jwe.header", "expected a kid")
    if current is not None and not await current(kid):
        text = "the kid is not that of a current encryption key of the bank"
        return _fault("JWE.InvalidHeader", "jwe.key", text)
    return None


def _header(part: str) -> dict[str, Any]:
    if len(part) > _HEADER_MOST:
        return {}
    header = decode_json(decode_b64url(part) or b"null")
    return header if isinstance(header, dict) else {}


def _fault(code: str, check: str, text: str) -> Fault:
    return caller_fault(400, code, f"{_PATH}: {text}", check=check, path=_PATH)
