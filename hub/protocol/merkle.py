"""RFC 6962 Merkle tree: leaf and node hash, the growing edge, inclusion and consistency proofs, their verification.

Theory. The tree over ``n`` leaves is split at the largest power of two below ``n``. Its left parts are therefore
complete subtrees that never change again; ``(level, index)`` names the complete subtree over the leaves
``index << level`` to ``(index + 1 << level) - 1``. Everything that is not complete is recomputed from complete ones:

* ``Frontier`` holds the roots of the complete subtrees of the current size, one per set bit of the size, largest
  first. That is all that an appender needs: at most 63 hashes, whatever the size of the log.
* A proof is a list of hashes of ranges; a range that is not one complete subtree is folded from the complete ones it
  is made of. Who makes proofs therefore gives one function, ``complete(level, index)``, and nothing else.

Invariants. ``len(frontier.hashes) == frontier.size.bit_count()``. Proofs are exactly as long as the RFC says;
the verifiers refuse shorter and longer ones. Hashes are 32 octets.

Source: RFC 9162 section 2.1 (hashes: the same as RFC 6962 section 2.1).
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, final

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of the tree without leaves. Source: RFC 9162 section 2.1.1."""

HASH_OCTETS: Final = 32

Complete = Callable[[int, int], bytes]
"""Give the hash of the complete subtree ``(level, index)``."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash a leaf. Source: RFC 9162 section 2.1.1."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node. Source: RFC 9162 section 2.1.1."""
    return sha256(b"\x01" + left + right).digest()


@final
class Frontier:
    """Hold the growing edge of a tree: its size and the roots of its complete subtrees, largest first."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Continue a tree of ``size`` leaves.

        Raises:
            ValueError: The hashes cannot be those of a tree of that size.
        """
        self.size = size
        self.hashes = list(hashes)
        if size < 0 or len(self.hashes) != size.bit_count():
            raise ValueError(f"a frontier of size {size} cannot have {len(self.hashes)} hashes")
        if any(len(part) != HASH_OCTETS for part in self.hashes):
            raise ValueError("a hash of a frontier is not 32 octets long")

    def append(self, hashed: bytes, level: int = 0) -> None:
        """Add one leaf by its leaf hash, or a complete subtree over ``1 << level`` leaves by its root.

        Raises:
            ValueError: No subtree of that level begins here.
        """
        hashes, rest = self.hashes, self.size >> level
        if rest << level != self.size:
            raise ValueError(f"no subtree of level {level} begins at {self.size}")
        while rest & 1:
            hashed = node_hash(hashes.pop(), hashed)
            rest >>= 1
        hashes.append(hashed)
        self.size += 1 << level

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves, by their bytes; the same as ``append`` of each one's hash, without the calls."""
        hashes, size = self.hashes, self.size
        for leaf in leaves:
            hashed, rest = sha256(b"\x00" + leaf).digest(), size
            while rest & 1:
                hashed = sha256(b"\x01" + hashes.pop() + hashed).digest()
                rest >>= 1
            hashes.append(hashed)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """Return the root hash of the tree as it is now."""
        return fold(self.hashes)

    def copy(self) -> "Frontier":
        """Return an independent frontier of the same tree."""
        return Frontier(self.size, self.hashes)

    def pack(self) -> bytes:
        """Return the hashes in one piece, largest subtree first."""
        return b"".join(self.hashes)

    @classmethod
    def unpack(cls, size: int, packed: bytes) -> "Frontier":
        """Return the frontier that ``pack`` wrote.

        Raises:
            ValueError: The piece cannot be the frontier of a tree of that size.
        """
        cut = range(0, len(packed), HASH_OCTETS)
        return cls(size, [packed[at : at + HASH_OCTETS] for at in cut])


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the roots of neighbouring complete subtrees, largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for part in reversed(hashes[:-1]):
        root = node_hash(part, root)
    return root


def complete_parts(start: int, end: int) -> list[tuple[int, int]]:
    """Return the complete subtrees ``(level, index)`` that make up the leaves ``start`` to ``end - 1``, left to right.

    ``start`` must be the start of a subtree of the RFC's tree that holds ``end``: zero, or a multiple of a power of two
    that is not smaller than the range.
    """
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append((level, start >> level))
        start += 1 << level
    return parts


def range_hash(start: int, end: int, complete: Complete) -> bytes:
    """Return the hash of the RFC's subtree over the leaves ``start`` to ``end - 1``."""
    return fold([complete(level, index) for level, index in complete_parts(start, end)])


def root_hash(size: int, complete: Complete) -> bytes:
    """Return the root of the tree over the first ``size`` leaves."""
    return range_hash(0, size, complete)


def inclusion_proof(index: int, size: int, complete: Complete) -> list[bytes]:
    """Prove that the leaf ``index`` is in the tree of ``size`` leaves; the hash nearest to the leaf comes first.

    Raises:
        ValueError: There is no such leaf.

    Source: RFC 9162 section 2.1.3.1.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    start, end, proof = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_hash(middle, end, complete))
            end = middle
        else:
            proof.append(range_hash(start, middle, complete))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, complete: Complete) -> list[bytes]:
    """Prove that the tree of ``old`` leaves is the beginning of the tree of ``new`` leaves.

    Raises:
        ValueError: Not ``0 <= old <= new``.

    Source: RFC 9162 section 2.1.4.1.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} cannot be the beginning of one of {new}")
    if old in {0, new}:
        return []
    start, end, proof = 0, new, []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(range_hash(middle, end, complete))
            end = middle
        else:
            proof.append(range_hash(start, middle, complete))
            start = middle
    if start:
        proof.append(range_hash(start, end, complete))
    return proof[::-1]


def verify_inclusion(
    hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether the proof shows that the leaf with that leaf hash has that index in the tree with that root.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for part in proof:
        if not last:
            return False
        if at & 1 or at == last:
            hashed = node_hash(part, hashed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hashed = node_hash(hashed, part)
        at, last = at >> 1, last >> 1
    return not last and hashed == root


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the proof shows that the old tree is the beginning of the new one.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 <= old <= new:
        return False
    if old in {0, new}:
        begins = old_root == (new_root if old == new else EMPTY_ROOT)
        return begins and not proof
    parts = list(proof) if old & (old - 1) else [old_root, *proof]
    if not parts:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    left = right = parts[0]
    for part in parts[1:]:
        if not last:
            return False
        if at & 1 or at == last:
            left, right = node_hash(part, left), node_hash(part, right)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            right = node_hash(right, part)
        at, last = at >> 1, last >> 1
    return not last and left == old_root and right == new_root


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)
