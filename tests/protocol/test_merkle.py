"""The Merkle tree against the recursive definition of RFC 9162, written here a second time as the RFC writes it."""

import random
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol import merkle

LEAVES = [b"leaf %d" % number for number in range(320)]


@cache
def oracle_root(start: int, end: int) -> bytes:
    """MTH of RFC 9162 section 2.1.1, literally."""
    if end == start:
        return sha256().digest()
    if end - start == 1:
        return sha256(b"\x00" + LEAVES[start]).digest()
    k = split(end - start)
    return sha256(b"\x01" + oracle_root(start, start + k) + oracle_root(start + k, end)).digest()


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def oracle_path(m: int, start: int, end: int) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1, literally."""
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*oracle_path(m, start, start + k), oracle_root(start + k, end)]
    return [*oracle_path(m - k, start + k, end), oracle_root(start, start + k)]


def oracle_subproof(m: int, start: int, end: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1, literally."""
    if m == end - start:
        return [] if whole else [oracle_root(start, end)]
    k = split(end - start)
    if m <= k:
        return [
            *oracle_subproof(m, start, start + k, whole=whole),
            oracle_root(start + k, end),
        ]
    return [
        *oracle_subproof(m - k, start + k, end, whole=False),
        oracle_root(start, start + k),
    ]


def complete(level: int, index: int) -> bytes:
    return oracle_root(index << level, (index + 1) << level)


def test_the_root_is_the_rfcs_at_every_size():
    frontier = merkle.Frontier()
    for size, leaf in enumerate(LEAVES):
        assert frontier.size == size
        assert frontier.root() == oracle_root(0, size)
        assert merkle.root_hash(size, complete) == oracle_root(0, size)
        frontier.append(merkle.leaf_hash(leaf))


def test_leaves_added_together_lead_where_leaves_added_one_by_one_do():
    for start in range(70):
        frontier = merkle.Frontier()
        frontier.extend(LEAVES[:start])
        frontier.extend(iter(LEAVES[start:200]))
        assert (frontier.size, frontier.root()) == (200, oracle_root(0, 200))


def test_complete_subtrees_lead_where_their_leaves_do_and_begin_only_where_they_can():
    for start in range(0, 200, 8):
        frontier = merkle.Frontier()
        frontier.extend(LEAVES[:start])
        frontier.append(complete(3, start // 8), 3)
        assert (frontier.size, frontier.root()) == (start + 8, oracle_root(0, start + 8))
        frontier.append(merkle.leaf_hash(LEAVES[start + 8]))
        assert frontier.root() == oracle_root(0, start + 9)
        with pytest.raises(ValueError, match="no subtree of level 1"):
            frontier.append(b"x" * 32, 1)


def test_a_frontier_survives_being_packed_at_every_size():
    frontier = merkle.Frontier()
    for leaf in LEAVES[:130]:
        frontier = merkle.Frontier.unpack(frontier.size, frontier.pack())
        frontier.append(merkle.leaf_hash(leaf))
    assert frontier.root() == oracle_root(0, 130)


def test_a_copy_of_a_frontier_goes_its_own_way():
    frontier = merkle.Frontier()
    frontier.append(merkle.leaf_hash(b"a"))
    copy = frontier.copy()
    copy.append(merkle.leaf_hash(b"b"))
    assert frontier.size == 1
    assert frontier.root() == merkle.leaf_hash(b"a")


@pytest.mark.parametrize(
    ("size", "hashes"), [(3, [b"x" * 32]), (1, []), (0, [b"x" * 32]), (1, [b"short"]), (-1, [])]
)
def test_a_frontier_that_cannot_be_is_refused(size, hashes):
    with pytest.raises(ValueError, match="frontier"):
        merkle.Frontier(size, hashes)


def test_every_inclusion_proof_up_to_130_is_the_rfcs_and_verifies():
    for size in range(1, 131):
        root = oracle_root(0, size)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, complete)
            assert proof == oracle_path(index, 0, size)
            hashed = merkle.leaf_hash(LEAVES[index])
            assert merkle.verify_inclusion(hashed, index, size, proof, root)


def test_every_consistency_proof_up_to_130_is_the_rfcs_and_verifies():
    for new in range(131):
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, complete)
            if 0 < old < new:
                assert proof == oracle_subproof(old, 0, new, whole=True)
            assert merkle.verify_consistency(
                old, oracle_root(0, old), new, oracle_root(0, new), proof
            )


@given(st.integers(131, 320), st.data())
@settings(max_examples=150, deadline=None)
def test_larger_trees_agree_too(size, data):
    index = data.draw(st.integers(0, size - 1))
    assert merkle.inclusion_proof(index, size, complete) == oracle_path(index, 0, size)
    old = data.draw(st.integers(1, size - 1))
    assert merkle.consistency_proof(old, size, complete) == oracle_subproof(
        old, 0, size, whole=True
    )


@given(st.integers(1, 320), st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_inclusion_proof_is_refused(size, data):
    index = data.draw(st.integers(0, size - 1))
    root, hashed = oracle_root(0, size), merkle.leaf_hash(LEAVES[index])
    proof = merkle.inclusion_proof(index, size, complete)
    assert not merkle.verify_inclusion(hashed, index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(b"other"), index, size, proof, root)
    assert not merkle.verify_inclusion(hashed, index, size, proof, merkle.leaf_hash(b"r"))
    assert not merkle.verify_inclusion(hashed, size, size, proof, root)
    assert not merkle.verify_inclusion(hashed, -1, size, proof, root)
    if proof:
        assert not merkle.verify_inclusion(hashed, index, size, proof[:-1], root)
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = flipped(proof[at])
        assert not merkle.verify_inclusion(hashed, index, size, proof, root)


@given(st.integers(2, 320), st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_consistency_proof_is_refused(new, data):
    old = data.draw(st.integers(1, new - 1))
    before, after = oracle_root(0, old), oracle_root(0, new)
    proof = merkle.consistency_proof(old, new, complete)
    assert not merkle.verify_consistency(old, flipped(before), new, after, proof)
    assert not merkle.verify_consistency(old, before, new, flipped(after), proof)
    assert not merkle.verify_consistency(old, before, new, after, [*proof, after])
    assert not merkle.verify_consistency(old, before, new, after, proof[:-1])
    assert not merkle.verify_consistency(new, after, old, before, proof)
    at = data.draw(st.integers(0, len(proof) - 1))
    proof[at] = flipped(proof[at])
    assert not merkle.verify_consistency(old, before, new, after, proof)


def test_equal_sizes_need_equal_roots_and_an_empty_proof():
    root = oracle_root(0, 5)
    assert merkle.verify_consistency(5, root, 5, root, [])
    assert not merkle.verify_consistency(5, root, 5, flipped(root), [])
    assert not merkle.verify_consistency(5, root, 5, root, [root])
    assert not merkle.verify_consistency(0, root, 5, root, [])
    assert not merkle.verify_consistency(4, oracle_root(0, 4), 6, oracle_root(0, 6), [])
    assert not merkle.verify_consistency(3, oracle_root(0, 3), 6, oracle_root(0, 6), [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index, size):
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(index, size, complete)


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5)])
def test_no_proof_is_made_for_a_tree_that_shrank(old, new):
    with pytest.raises(ValueError, match="beginning"):
        merkle.consistency_proof(old, new, complete)


def test_the_roots_of_the_certificate_transparency_test_data():
    """The eight leaves that implementations of RFC 6962 have used as vectors since 2013."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(merkle.leaf_hash(bytes.fromhex(leaf)))
    assert frontier.root().hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


def flipped(value: bytes) -> bytes:
    at = random.Random(value).randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
