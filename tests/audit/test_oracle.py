"""A log written by us is accepted by Go's own implementation of notes and transparency logs (golang.org/x/mod)."""

import random
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from bench.evidence import append as record
from hub.audit.log import Log
from hub.protocol.merkle import Frontier, leaf_hash
from hub.state.keeper import TreeHead

ORACLE = Path(__file__).parent / "oracle"


class Many:
    """A keeper of many events that are made when they are asked for, and the root at each size."""

    def __init__(self, size):
        self.frontier = Frontier()
        self.roots = []
        for at in range(size):
            self.roots.append(self.frontier.root())
            self.frontier.append(leaf_hash(self.leaf(at)))
        self.roots.append(self.frontier.root())

    @staticmethod
    def leaf(at):
        return b'{"v":1,"kind":"call","time_ms":%d}' % at

    async def head(self):
        return TreeHead(self.frontier.size, self.frontier.root())

    async def events(self, start, limit):
        return tuple(self.leaf(at) for at in range(start, start + limit))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Build it; that it cannot be built is a failure, not a reason to skip."""
    binary = tmp_path_factory.mktemp("oracle") / "oracle"
    go = shutil.which("go") or "/usr/local/go/bin/go"
    subprocess.run([go, "build", "-o", str(binary), "."], cwd=ORACLE, check=True, timeout=300)
    return binary


def ask(oracle, log, keeper, sizes):
    lines = "".join(f"{size} {b64encode(keeper.roots[size]).decode()}\n" for size in sizes)
    return subprocess.run(
        [str(oracle), str(log.folder), log.vkey],
        input=lines,
        capture_output=True,
        text=True,
        timeout=300,
    )


def accepted_by_go(oracle, keeper, log, most, dice) -> int:
    """Have Go accept each size up to 2,000 and random ones up to ``most``: root, inclusion, consistency; return how many."""
    sizes = [*range(1, 2001), *sorted(dice.randrange(2001, most) for _ in range(200)), most]
    done = ask(oracle, log, keeper, sizes)
    assert done.stdout == f"accepted {len(sizes)} of {most}\n", done.stdout + done.stderr
    return len(sizes)


async def test_go_accepts_every_size_up_to_2000_and_random_ones_beyond(oracle, tmp_path, signer):
    keeper, log = Many(6_000), Log(tmp_path / "log", signer)
    await log.publish(keeper)
    assert accepted_by_go(oracle, keeper, log, 6_000, random.Random(6)) == 2201


@pytest.mark.nightly
async def test_go_accepts_random_sizes_up_to_a_million(oracle, tmp_path, signer):
    keeper, log = Many(1_000_000), Log(tmp_path / "log", signer)
    await log.publish(keeper)
    count = accepted_by_go(oracle, keeper, log, 1_000_000, random.Random(7))
    record("audit-oracle-go", {"sizes": count, "largest": 1_000_000}, [7], "accepted")


async def test_the_root_of_nothing_is_that_of_the_standard():
    assert Many(0).roots == [sha256(b"").digest()]


async def test_go_rejects_a_log_with_a_flipped_bit(oracle, tmp_path, signer):
    keeper, log = Many(1000), Log(tmp_path / "log", signer)
    await log.publish(keeper)
    tile = log.folder / "tile/0/002"
    data = bytearray(tile.read_bytes())
    data[100] ^= 1
    tile.write_bytes(data)
    done = ask(oracle, log, keeper, [700, 1000])
    assert done.returncode == 1
    assert done.stdout.startswith("REJECTED")
