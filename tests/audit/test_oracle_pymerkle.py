"""Roots and proofs from the tiles of a log written by us are those of pymerkle, and its verifiers take them."""

import random
import subprocess
from pathlib import Path

import pytest

from bench.evidence import append as record
from hub.audit.log import Log
from hub.audit.tiles import View
from hub.protocol.merkle import consistency_proof, inclusion_proof, root_hash, verify_consistency
from tests.audit.test_oracle import Many
from tests.separate import interpreter

ORACLE = Path(__file__).parent / "oracle/with_pymerkle.py"


def claims(log, sizes, dice):
    """Say of each size: root, an older root, an inclusion proof; all of them from the tiles."""
    view = View(log.tiles, log.size)
    for size in sizes:
        at, older = dice.randrange(size), dice.randrange(1, size + 1)
        root, before = (root_hash(one, view.complete) for one in (size, older))
        proof = consistency_proof(older, size, view.complete)
        assert verify_consistency(older, before, size, root, proof)
        path = inclusion_proof(at, size, view.complete)
        hashes = " ".join(one.hex() for one in (root, before, *path))
        yield f"{size} {at} {older} {hashes}\n"


async def judged(tmp_path, signer, most, sizes, dice, *, spoil=False):
    keeper, log = Many(most), Log(tmp_path / "log", signer)
    await log.publish(keeper)
    lines = list(claims(log, sizes, dice))
    if spoil:
        lines[-1] = lines[-1][:-2] + ("0" if lines[-1][-2] != "0" else "1") + "\n"
    return subprocess.run(
        [interpreter("pymerkle"), "-I", str(ORACLE), str(most)],
        input="".join(lines),
        capture_output=True,
        text=True,
        timeout=600,
    )


async def test_pymerkle_takes_roots_and_proofs(tmp_path, signer):
    dice = random.Random(3)
    sizes = [*range(1, 130), *(dice.randrange(130, 2001) for _ in range(100)), 2000]
    done = await judged(tmp_path, signer, 2000, sizes, dice)
    assert done.stdout == f"accepted {len(sizes)}\n", done.stderr


async def test_pymerkle_rejects_another_proof(tmp_path, signer):
    done = await judged(tmp_path, signer, 300, [200, 299], random.Random(4), spoil=True)
    assert done.returncode == 1
    assert "another inclusion proof" in done.stderr


@pytest.mark.nightly
async def test_pymerkle_takes_every_size_to_2000_and_random_ones_to_a_million(tmp_path, signer):
    dice, most = random.Random(5), 1_000_000
    sizes = [*range(1, 2001), *(dice.randrange(2001, most) for _ in range(500)), most]
    done = await judged(tmp_path, signer, most, sizes, dice)
    assert done.stdout == f"accepted {len(sizes)}\n", done.stderr
    record("audit-oracle-pymerkle", {"sizes": len(sizes), "largest": most}, [5], "accepted")
