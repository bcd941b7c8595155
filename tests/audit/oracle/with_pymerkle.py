"""Judge roots and inclusion proofs with pymerkle; run in an environment of its own, for pymerkle is no part of the Hub.

Each line of the standard input: size, index, older size, root, older root, then the inclusion proof; hexadecimal.
The entries are those of ``tests.audit.test_oracle.Many``.
"""

import sys

from pymerkle import InmemoryTree, MerkleProof, verify_consistency, verify_inclusion


def judge(tree: InmemoryTree, line: str) -> str:
    """Return what is wrong with a line's claims, empty where nothing is."""
    size, index, older, *hashes = line.split()
    n, at, m = int(size), int(index), int(older)
    root, before, *path = map(bytes.fromhex, hashes)
    if (tree.get_root(n), tree.get_root(m)) != (root, before):
        return "another root"
    own = tree.prove_inclusion(at + 1, n)
    if list(own.path[1:]) != path:
        return "another inclusion proof"
    rebuilt = own.serialize() | {"path": [own.path[0].hex(), *(one.hex() for one in path)]}
    verify_inclusion(tree.get_leaf(at + 1), root, MerkleProof.deserialize(rebuilt))
    verify_consistency(before, root, tree.prove_consistency(m, n))
    return ""


def main() -> None:
    """Fill a tree of as many entries as the argument says and judge every line."""
    tree = InmemoryTree(algorithm="sha256")
    count = 0
    for at in range(int(sys.argv[1])):
        tree.append_entry(b'{"v":1,"kind":"call","time_ms":%d}' % at)
    for line in sys.stdin:
        wrong = judge(tree, line)
        if wrong:
            sys.exit(f"{line[:40]}: {wrong}")
        count += 1
    sys.stdout.write(f"accepted {count}\n")


main()
