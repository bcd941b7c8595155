"""HTTP/2, what a server writes: the header block of an answer, as literals, most of it written before.

Fields whose values come again are remembered as they were checked and written, in a bounded memory: only those of a few
names, none of which ever holds a secret or an identity. Source: RFC 9113 section 8.3.2; RFC 7541 section 6.2.2.
"""

from typing import Final

from hub.model.http import Headers
from hub.protocol import heads
from hub.protocol.hpack import Field, encode_field, literal_name, literal_value

_REMEMBERED_MOST: Final = 1024
_SHORT: Final = 96
_COMING_AGAIN: Final = frozenset(
    (b"cache-control", b"content-length", b"content-type", b"date", b"referrer-policy", b"vary", b"x-content-type-options")
)  # fmt: skip
_WRITTEN: Final[dict[Field, bytes]] = {}
_OWN_ID: Final = literal_name(b"x-fapi-interaction-id")


def answer_block(status: int, headers: Headers) -> bytes:
    """Write the header block of an answer; the same for every connection.

    Args:
        status: Three digits.
        headers: Lower case names.

    Raises:
        ValueError: A field would split or spoil the answer (``heads.check_answer``).
    """
    known = _WRITTEN.get
    return b"".join([_STATUS[status], *[known(field) or _write(field) for field in headers]])


def _write(field: Field) -> bytes:
    """Check and write a field; remember it if it will come again."""
    heads.check_answer((field,))
    name, value = field
    if name == b"x-fapi-interaction-id":  # the one field of every answer that never comes again
        return _OWN_ID + literal_value(value)
    written = encode_field(name, value)
    if name in _COMING_AGAIN and len(value) <= _SHORT:
        if len(_WRITTEN) >= _REMEMBERED_MOST:
            _WRITTEN.clear()
        _WRITTEN[field] = written
    return written


_STATUS: Final = {status: encode_field(b":status", b"%d" % status) for status in range(100, 1000)}
