"""HPACK: our own decoder (Huffman by whole octets) and an encoder that keeps no state. RFC 7541.

Theory of operation. A Huffman string is decoded by an automaton with one table row per inner node of the code's
tree and one step per octet: ``row[octet]`` gives the next row and the symbols that became complete. A row is an end
row if the bits since the last symbol are at most seven ones (section 5.2). Short strings repeat and are cached. The
encoder writes literals without indexing, names from the static table where it can: 2 us for an answer's head, and
nothing that a table-size change could desynchronise.
"""

from collections import deque
from functools import lru_cache
from typing import Final, final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

TABLE_OCTETS: Final = 4096
"""The dynamic table's size: the protocol's default, never changed by us."""
EMPTY_TABLE: Final = b"\x20"
"""What a block begins with that says that the table is of no size from now on (section 6.3)."""
_EOS: Final = 256
_SHORT: Final = 96
_STATIC: Final[tuple[Field, ...]] = tuple(
    (bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE
)
_STATIC_COUNT: Final = len(_STATIC)


class HpackError(Exception):
    """The block cannot be decoded; the connection's state is lost (COMPRESSION_ERROR)."""


class ListTooLarge(HpackError):  # noqa: N818 - a bound, not a bug
    """The decoded fields exceed the bound (section 6.5.2 of RFC 9113 counts 32 octets per field)."""


_Row = list["tuple[_Row, bytes] | None"]


def _tree() -> list[list[int]]:
    """Return the code's tree: node -> [child of 0, child of 1]; a leaf is -1 - symbol."""
    nodes: list[list[int]] = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        at = 0
        for shift in range(length - 1, 0, -1):
            bit = (code >> shift) & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = -1 - symbol
    return nodes


def _nibbles(nodes: list[list[int]]) -> list[list[tuple[int, bytes] | None]]:
    """Return, for each node and four bits, where they lead and what they complete; None at EOS."""
    table: list[list[tuple[int, bytes] | None]] = []
    for start in range(len(nodes)):
        steps: list[tuple[int, bytes] | None] = []
        for value in range(16):
            at, said = start, b""
            for shift in (3, 2, 1, 0):
                at = nodes[at][(value >> shift) & 1]
                if at < 0:
                    symbol, at = -1 - at, 0
                    if symbol == _EOS:
                        at = -1
                        break
                    said += bytes((symbol,))
            steps.append(None if at < 0 else (at, said))
        table.append(steps)
    return table


def _automaton() -> tuple[_Row, frozenset[int]]:
    """Return the first row, and the identities of the end rows."""
    nodes = _tree()
    nibbles = _nibbles(nodes)
    rows: list[_Row] = [[None] * 256 for _ in nodes]
    for row, first in zip(rows, nibbles, strict=True):
        for octet in range(256):
            high = first[octet >> 4]
            low = None if high is None else nibbles[high[0]][octet & 15]
            if high is not None and low is not None:
                row[octet] = (rows[low[0]], high[1] + low[1])
    ends, at = {id(rows[0])}, 0
    for _ in range(7):
        at = nodes[at][1]
        ends.add(id(rows[at]))
    return rows[0], frozenset(ends)


_FIRST, _ENDS = _automaton()


def huffman(data: bytes) -> bytes:
    """Decode a Huffman string.

    Raises:
        HpackError: EOS inside, or padding that is not up to seven ones.

    Source: RFC 7541 section 5.2.
    """
    row = _FIRST
    parts: list[bytes] = []
    append = parts.append
    try:
        for octet in data:
            row, said = row[octet]  # type: ignore[misc]  # None (EOS) raises TypeError
            append(said)
    except TypeError:
        raise HpackError("EOS in a string") from None
    if id(row) not in _ENDS:
        raise HpackError("padding")
    return b"".join(parts)


_huffman_cached: Final = lru_cache(maxsize=4096)(huffman)


@final
class Decoder:
    """Decode the header blocks of one connection, in order."""

    __slots__ = ("_limit", "_most", "_size", "_table", "changes")

    def __init__(self, header_octets: int) -> None:
        """Start with an empty table; ``header_octets`` bounds the decoded list of one block."""
        self._table: deque[Field] = deque()
        self._size = 0
        self._most = TABLE_OCTETS
        self._limit = header_octets
        self.changes = 0
        """Counts changes of the table: while it stands still, the same octets mean the same fields."""

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block.

        Raises:
            HpackError: the block is not valid HPACK.
            ListTooLarge: its fields exceed the bound.

        Source: RFC 7541 sections 3 and 6.
        """
        fields: list[Field] = []
        append = fields.append
        at, end, total, limit = 0, len(block), 0, self._limit
        table = self._table
        try:
            while at < end:
                octet = block[at]
                if 0x80 < octet < 0xFF:  # the usual case, without a call
                    index, at = octet - 0x81, at + 1
                    field = (
                        _STATIC[index] if index < _STATIC_COUNT else table[index - _STATIC_COUNT]
                    )
                elif octet & 0x80:
                    index, at = _integer(block, at, 0x7F)
                    field = self._indexed(index)
                elif octet & 0xE0 == 0x20:
                    if fields:
                        raise HpackError("size update inside a block")
                    size, at = _integer(block, at, 0x1F)
                    self._resize(size)
                    continue
                else:
                    field, at = self._literal(block, at, octet)
                name, value = field
                total += len(name) + len(value) + 32
                if total > limit:
                    raise ListTooLarge
                append(field)
        except IndexError:
            raise HpackError("truncated") from None
        return fields

    def _indexed(self, index: int) -> Field:
        if index > _STATIC_COUNT:
            return self._table[index - _STATIC_COUNT - 1]
        if not index:
            raise HpackError("index 0")
        return _STATIC[index - 1]

    def _literal(self, block: bytes, at: int, octet: int) -> tuple[Field, int]:
        """Read a literal, with (``octet & 0x40``) or without indexing; short plain strings without a call."""
        index, at = (octet & (0x3F if octet & 0x40 else 0x0F)), at + 1
        if index:
            if index == (0x3F if octet & 0x40 else 0x0F):
                index, at = _integer(block, at - 1, index)
            name = self._indexed(index)[0]
        elif (size := block[at]) < 0x7F:
            at += 1 + size
            name = block[at - size : at]
        else:
            name, at = _string(block, at)
        if (size := block[at]) < 0x7F:
            at += 1 + size
            value = block[at - size : at]
        else:
            value, at = _string(block, at)
        if at > len(block):
            raise HpackError("truncated")
        field = name, value
        if octet & 0x40:
            self._add(field)
        return field, at

    def _add(self, field: Field) -> None:
        if not self._most:
            return
        self.changes += 1
        self._table.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + 32
        self._evict()

    def _resize(self, size: int) -> None:
        if size > TABLE_OCTETS:
            raise HpackError("table size")
        if size != self._most:
            self.changes += 1
            self._most = size
            self._evict()

    def _evict(self) -> None:
        while self._size > self._most:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + 32


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Read a prefixed integer: its value and where it ends; at most four octets follow the prefix (section 5.1)."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > 21:
            raise HpackError("integer")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    octet = block[at]
    coded = octet & 0x80
    if octet & 0x7F != 0x7F:
        length, at = octet & 0x7F, at + 1
    else:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise HpackError("truncated")
    raw = block[at:end]
    if not coded:
        return raw, end
    return (_huffman_cached(raw) if length <= _SHORT else huffman(raw)), end


_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_WHOLE: Final = {
    field: bytes((0x80 | index,)) for index, field in enumerate(_STATIC, 1) if field[1]
}


def _prefixed(value: int, mask: int) -> bytes:
    if value < mask:
        return bytes((value,))
    out = bytearray((mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_LENGTHS: Final = tuple([bytes((size,)) for size in range(0x7F)])


def literal_name(name: bytes) -> bytes:
    """Return the beginning of a literal without indexing (RFC 7541 section 6.2.2); ``literal_value`` follows."""
    index = _NAMES.get(name, 0)
    return _prefixed(index, 0x0F) if index else b"\0" + _prefixed(len(name), 0x7F) + name


def literal_value(value: bytes) -> bytes:
    """Return a string literal that is not Huffman-coded (section 5.2)."""
    size = len(value)
    return (_LENGTHS[size] if size < 0x7F else _prefixed(size, 0x7F)) + value


def encode_field(name: bytes, value: bytes) -> bytes:
    """Return one field of a block; it is not remembered, since it may be a secret."""
    whole = _WHOLE.get((name, value))
    return whole if whole is not None else literal_name(name) + literal_value(value)


def encode(fields: tuple[Field, ...]) -> bytes:
    """Return a header block of literals without indexing and static entries; the same for every connection.

    Source: RFC 7541 section 6.2.2.
    """
    return b"".join([encode_field(name, value) for name, value in fields])
