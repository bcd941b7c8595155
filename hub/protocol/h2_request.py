"""HTTP/2, what a client writes: the header block of a request, as literals, most of it written before.

A block depends on nothing that a connection knows, so it may be written before there is one. Fields that come again are
remembered as they were written, in a bounded memory; what is long or of one request alone is not. What would not survive
as one request is never written. Source: RFC 9113 sections 8.2, 8.3.1; RFC 7541 section 6.2.2.
"""

import re
from functools import lru_cache
from typing import Final

from hub.model.http import Headers
from hub.protocol import heads
from hub.protocol.hpack import Field, encode, literal_name, literal_value

_WRITTEN_MOST: Final = 16_384
_SHORT: Final = 192
OF_ONE_REQUEST: Final = frozenset(
    (b"content-length", b"o3-caller-interaction-id", b"o3-ozone-interaction-id")
)
"""Their values are new each time: not worth remembering."""
_TARGET: Final = re.compile(rb"/[\x21-\x22\x24-\x7e]*")
_DROPPED: Final = frozenset(
    (b"connection", b"host", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)  # fmt: skip


def request_block(method: bytes, authority: bytes, target: bytes, headers: Headers) -> bytes:
    """Write the header block of a request; the same for every connection.

    Args:
        method: Upper case token.
        authority: ``host[:port]``.
        target: Path and query in origin form.
        headers: Lower case names; what HTTP/2 has no place for is left out.

    Raises:
        ValueError: A part would not survive as one request; what came from outside must have been refused before.
    """
    if _TARGET.fullmatch(target) is None:
        raise ValueError("not fit for a request: target")
    known = _WRITTEN.get
    parts = [known(field) or _write(field) for field in headers]
    return b"".join((_start(method, authority), _PATH, literal_value(target), *parts))


def field_block(name: bytes, value: bytes) -> bytes:
    """Write one field, or nothing for one that HTTP/2 has no place for.

    Raises:
        ValueError: It would not survive.
    """
    head = _name(name)
    if value.translate(None, heads.VALUE_OCTETS) or value.strip(b" \t") != value:
        raise ValueError("not fit for a request: field value")
    return head + literal_value(value) if head else b""


_WRITTEN: Final[dict[Field, bytes]] = {}
"""Fields that come again, written; bounded."""


def _write(field: Field) -> bytes:
    """Write a field; remember it unless it is long or of this request alone."""
    written = field_block(*field)
    if len(written) <= _SHORT and field[0] not in OF_ONE_REQUEST:
        if len(_WRITTEN) >= _WRITTEN_MOST:
            _WRITTEN.clear()
        _WRITTEN[field] = written
    return written


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    """Write a field's name; nothing for one that HTTP/2 has no place for."""
    if name in _DROPPED:
        return b""
    if heads.check_fields([(name, b"")]):
        raise ValueError("not fit for a request: field name")
    return literal_name(name)


_PATH: Final = literal_name(b":path")


@lru_cache(maxsize=64)
def _start(method: bytes, authority: bytes) -> bytes:
    if not method.isalpha() or not method.isupper():
        raise ValueError("not fit for a request: method")
    return encode(((b":method", method), (b":scheme", b"https"), (b":authority", authority)))
