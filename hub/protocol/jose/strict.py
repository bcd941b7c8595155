"""Strict base64url and strict JSON: one text has one meaning, or is refused.

Invariants. ``decode_b64url`` accepts exactly the texts that ``b64url`` makes: no padding, no foreign characters, no
stray low bits, so a token has one spelling. ``decode_json`` refuses duplicate members (other decoders keep the last
one silently), NaN and infinities, integers beyond 64 bits (nothing behind us can write them), lone surrogates, nesting deeper
than 64 (before anything is built of it), and text that is not UTF-8.

Source: RFC 7515 section 2 and 4; RFC 8259 section 4; RFC 8725 section 2.4.
"""

import math
import re
from base64 import urlsafe_b64encode
from json import JSONDecoder
from typing import Any, Final

import msgspec
import orjson

from hub.protocol.jose.values import JoseFault

DEPTH: Final = 64
_TO_STANDARD: Final = bytes.maketrans(b'-_+/="\\', b"+/     ")
_OCTETS: Final = msgspec.json.Decoder(bytes)
"""Of base64 in quotes, the standard's alphabet and padding only; two and a half times as fast as ``binascii``."""
_WHOLE: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""The last characters that leave no stray bits, by the length of the last group."""
_NOT_NESTING: Final = bytes(octet for octet in range(256) if octet not in b'"[]{}')
_ALIKE: Final = bytes.maketrans(b"{}[]", b"()()")
_DEEP: Final = b"(" * (DEPTH + 1)
_SURE: Final = 18
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
"""Integers of 64 bits: what every encoder behind us can write; texts of up to ``_SURE`` characters always fit."""
_SHORT: Final = 4096
"""Longer texts are not written again: a token may not be copied often before it is believed."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def b64url(octets: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def decode_b64url(text: str | bytes) -> bytes | None:
    """Return the octets of a canonical unpadded base64url text, or None."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        rest = len(raw) % 4
        octets = _OCTETS.decode(b'"%b%b"' % (raw.translate(_TO_STANDARD), b"=" * (-rest % 4)))
    except ValueError:
        return None
    return octets if not rest or raw[-1] in _WHOLE[rest] else None


class _RefusedJsonError(ValueError):
    """Carry the fault out of the decoder's hooks."""

    def __init__(self, check: str, why: str) -> None:
        super().__init__(why)
        self.fault = JoseFault(check, why)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedJsonError("jose.duplicate_member", "a JSON member occurs twice")
    return members


def _constant(name: str) -> Any:
    raise _RefusedJsonError("jose.json", f"{name} is not a JSON number")


def _int(text: str) -> int:
    value = int(text)
    if len(text) > _SURE and not _LEAST <= value <= _MOST:
        raise _RefusedJsonError("jose.json", "a number is out of range")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedJsonError("jose.json", "a number is out of range")
    return value


_DECODER: Final = JSONDecoder(
    object_pairs_hook=_members, parse_constant=_constant, parse_float=_float, parse_int=_int
)


def plain_json(octets: bytes) -> Any:
    """Return what ``decode_json`` would, of a text that is written as most write it; None where it must look itself.

    The quick decoder keeps the last of two members of one name, and makes a large integer a rounded number. Either comes out
    as another text when it is written again: what comes out as it came in holds neither.
    """
    if len(octets) > _SHORT or octets.count(b"{") + octets.count(b"[") > DEPTH:
        return None
    try:
        value = orjson.loads(octets)
    except orjson.JSONDecodeError:
        return None
    return value if orjson.dumps(value) == octets else None


def decode_json(octets: bytes) -> Any | JoseFault:
    """Decode JSON strictly; the fault is ``jose.json`` or ``jose.duplicate_member``."""
    try:
        text = octets.decode("utf-8")
        if octets.count(b"{") + octets.count(b"[") > DEPTH and _too_deep(octets):
            return JoseFault("jose.json", f"JSON is nested deeper than {DEPTH} levels")
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            _encodable(value)
    except _RefusedJsonError as refused:
        return refused.fault
    except ValueError:
        return JoseFault("jose.json", "not valid JSON in UTF-8")
    return value


def _encodable(value: Any) -> None:
    """Raise ValueError if a string holds a lone surrogate."""
    for text in _strings(value):
        text.encode("utf-8")


def _strings(value: Any) -> list[str]:
    found: list[str] = []
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            rest.extend(item)
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return found


def _too_deep(octets: bytes) -> bool:
    """Tell whether brackets outside of strings nest deeper than DEPTH; each round takes the innermost pairs away.

    What is no JSON may be called too deep, or be left to the decoder, which refuses it.
    """
    plain = octets.replace(rb"\\", b"").replace(rb"\"", b"").translate(_ALIKE, _NOT_NESTING)
    # Two quotes side by side are an empty string now, or make one string of two: either way they count for nothing.
    rest = b"".join(plain.replace(b'""', b"").split(b'"')[::2])
    for _ in range(DEPTH):
        if _DEEP in rest:
            return True
        rest = rest.replace(b"()", b"")
    return bool(rest)
