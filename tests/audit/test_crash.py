"""kill -9, broken and slow disks: what was acknowledged is in the log that verifies; nothing is repaired silently."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from bench.evidence import append as record
from hub.audit import verify
from hub.audit.log import Log
from hub.audit.note import NoteError, Signer
from hub.audit.open import ReadLog, open_log
from hub.audit.tiles import LogError
from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.state.memory import MemoryKeeper
from hub.state.open import DATABASE, open_keeper
from hub.state.schema import StoreError
from hub.state.sqlite import Store
from tests.audit.crash_child import ORIGIN, PEM
from tests.audit.test_mutations import judged
from tests.state.keepers import NOW, limits

ROOT = Path(__file__).parents[2]
ENDLESS = 1_000_000


def child(folder, prefix, writers=16, most=ENDLESS, queue=10_000, before=()):
    command = [*before, sys.executable, "-m", "tests.audit.crash_child", str(folder), prefix]
    return subprocess.Popen(
        [*command, str(writers), str(most), str(queue)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def acknowledged(process, lines) -> list[str]:
    """Return the next lines that a client has."""
    return [process.stdout.readline() for _ in range(lines)]


async def caught_up(folder):
    """Publish what is committed; return the log and what it holds of each interaction."""
    async with open_keeper(folder, clock=FixedClock(NOW), limits=limits()) as keeper:
        log = open_log(folder, origin=ORIGIN, pem=PEM)
        await log.publish(keeper)
        size = log.size
        leaves = []
        while len(leaves) < size:
            leaves += await keeper.events(len(leaves), 1000)
    return log, leaves


def kill_and_check(folder, dice, trials) -> dict[str, int]:
    """Kill the process that many times at random moments; after each, everything that was acknowledged must be there."""
    folder.mkdir(exist_ok=True)
    ledger: dict[tuple[str, str], int] = {}
    kept, unsettled = [], 0
    for trial in range(trials):
        with child(folder, str(trial)) as process:
            lines = acknowledged(process, dice.randrange(1, 400))
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=30)
        whole = "".join(lines) + rest
        for line in whole[: whole.rfind("\n") + 1].splitlines():
            mark, name, index = line.split()
            ledger[mark, name] = int(index)
        log, leaves = trio.run(caught_up, folder)
        keys = [verify.Key.parse(log.vkey)]
        report = verify.verify_log(log.folder, keys, older=kept[-5:])
        assert report.size == len(leaves)
        for (mark, name), index in ledger.items():
            kind = {"I": b'"intent"', "O": b'"outcome"'}[mark]
            assert b'"%s"' % name.encode() in leaves[index]
            assert kind in leaves[index]
        told = {int(one.split()[1][:-1]) for one in report.remarks if "without an outcome" in one}
        assert told == set(intents_alone(leaves))
        unsettled = len(told)
        kept.append((f"after {trial}", log.note.encode()))
    return {"kills": trials, "acknowledged": len(ledger), "unsettled": unsettled}


def intents_alone(leaves) -> list[int]:
    alone: dict[bytes, int] = {}
    for at, leaf in enumerate(leaves):
        name = leaf.partition(b'"interaction_id":')[2].partition(b",")[0].rstrip(b"}")
        if b'"intent"' in leaf:
            alone[name] = at
        elif b'"outcome"' in leaf:
            del alone[name]
    return list(alone.values())


def test_kill_9_loses_no_acknowledged_event_and_finds_what_is_unsettled(tmp_path):
    counts = kill_and_check(tmp_path, random.Random(5), 5)
    assert counts["acknowledged"] > 100
    assert counts["unsettled"] > 0


@pytest.mark.nightly
def test_kill_9_two_hundred_times(tmp_path):
    dice, counts = random.Random(200), Counter()
    for number in range(10):  # logs of their own, so that each look at all of one stays quick
        counts.update(kill_and_check(tmp_path / str(number), dice, 20))
    assert counts["unsettled"] > 0
    record("audit-kill-9", counts, [200], "passed")


async def test_an_unsettled_intent_stays_so_until_it_is_settled(tmp_path):
    async with open_keeper(tmp_path, clock=FixedClock(NOW), limits=limits()) as keeper:
        log = open_log(tmp_path, origin=ORIGIN, pem=PEM)
        keys = [verify.Key.parse(log.vkey)]
        for kind, told in ((Kind.INTENT, 1), (Kind.CALL, 1), (Kind.OUTCOME, 0)):
            event = Event(kind=kind, time_ms=NOW * 1000, interaction_id="pay")
            await keeper.commit((), (event,))
            await log.publish(keeper)
            assert len(verify.verify_log(log.folder, keys).remarks) == told


# H5: a disk that breaks its word


@pytest.mark.parametrize("when", [30, 61])
def test_a_failed_sync_ends_the_process_and_nothing_is_acknowledged_after_it(tmp_path, when):
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync")
    inject += ("-e", f"inject=fsync,fdatasync:error=EIO:when={when}+")
    with child(tmp_path, "h5", writers=4, before=inject) as process:
        lines, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors
    log, leaves = trio.run(caught_up, tmp_path)
    assert verify.verify_log(log.folder, [verify.Key.parse(log.vkey)]).size == len(leaves)
    for line in lines.splitlines():
        mark, name, *index = line.split()
        assert mark == "F" or b'"%s"' % name.encode() in leaves[int(index[0])]


# H6: a slow disk


def test_a_slow_disk_costs_time_and_then_refusals_never_memory(tmp_path):
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync")
    inject += ("-e", "inject=fdatasync:delay_exit=100000")
    began = time.monotonic()
    with child(tmp_path, "h6", writers=300, most=2, queue=50, before=inject) as process:
        lines, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    refused = [line for line in lines.splitlines() if line.startswith("F keeper.")]
    written = [line for line in lines.splitlines() if not line.startswith("F")]
    assert len(refused) + len(written) == 1200
    assert refused
    assert len(written) >= 50
    assert time.monotonic() - began < 30


# H4: a torn tail


def continued(folder):
    """Return the log when it can be continued, None when nothing is signed."""
    refused = False
    try:
        log, _ = trio.run(caught_up, folder)
    except* (LogError, NoteError):
        refused = True
    return None if refused else log


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A state folder as kill -9 leaves it, with its write-ahead log."""
    folder = tmp_path_factory.mktemp("killed")
    with child(folder, "t", writers=4) as process:
        acknowledged(process, 700)
        while not (folder / "audit/log/checkpoint").exists():
            acknowledged(process, 50)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    return folder


def copied(killed, target):
    subprocess.run(["cp", "-r", str(killed), str(target)], check=True)
    return target


def spoilt(data: bytes, dice) -> bytes:
    """Cut a file's last 64 KiB somewhere, or flip a bit in it."""
    at = len(data) - 1 - dice.randrange(min(len(data), 65_536))
    if dice.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def laid(folder) -> int:
    """Return how many entries the log's files hold, signed or not yet."""
    bundles = (folder / "audit/log/tile/entries").rglob("*")
    names = [p.relative_to(folder / "audit/log/tile/entries").as_posix() for p in bundles]
    parts = [name.partition(".p")[::2] for name in names if not name.endswith(".p")]
    return max(int(at) * 256 + int(width[1:] or 256) for at, width in parts)


def wal_recovers(folder, data) -> None:
    """A spoilt write-ahead log gives back complete batches only; nothing is signed when the log's files hold more."""
    (folder / f"{DATABASE}-wal").write_bytes(data)
    published, written = ReadLog.read(folder).size, laid(folder)
    try:
        store = Store(folder / DATABASE)
    except StoreError:
        return
    size = store.head().size
    leaves: list[bytes] = []
    while len(leaves) < size:
        leaves += store.events(len(leaves), 1000)
    store.close()
    log = continued(folder)
    if log is None:
        assert size < written
        return
    assert size >= published
    assert verify.verify_log(log.folder, [verify.Key.parse(log.vkey)]).size == size


def torn_wal(killed, tmp_path, seed, trials):
    dice = random.Random(seed)
    good = (killed / f"{DATABASE}-wal").read_bytes()
    assert len(good) > 65_536
    for trial in range(trials):
        folder = copied(killed, tmp_path / str(trial))
        wal_recovers(folder, spoilt(good, dice))
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_a_torn_write_ahead_log_gives_complete_batches_or_is_refused(killed, tmp_path):
    torn_wal(killed, tmp_path, 4, 12)


def needed(name: str, size: int) -> bool:
    """Tell whether the tree of that size stands on a file of the log, or a narrower or unsigned one has it beside."""
    full, partial, width = name.partition(".p/")
    _, row, index = full.split("/", 2) if "/" in full else ("", "entries", "0")
    total = size >> (0 if row == "entries" else 8 * int(row))
    return not partial or int(width) == total - int(index) * 256


def torn_tiles(killed, tmp_path, seed, trials) -> int:
    """Spoil a file of the log: what the last checkpoint stands on is never built upon; the verifier names the others."""
    dice, refused = random.Random(seed), 0
    size = ReadLog.read(killed).size
    for trial in range(trials):
        folder = copied(killed, tmp_path / str(trial))
        root = folder / "audit/log"
        file = dice.choice(sorted(p for p in root.rglob("*") if p.is_file()))
        name = file.relative_to(root).as_posix()
        file.write_bytes(spoilt(file.read_bytes(), dice))
        log = continued(folder)
        if log is None:
            refused += 1
        else:
            assert not needed(name, size), f"seed {seed}: built upon a spoilt {name}"
            said = judged(log.folder, [verify.Key.parse(log.vkey)], ())
            assert said.startswith(f"{name}: ") == file.exists(), f"seed {seed}: {name}: {said}"
        subprocess.run(["rm", "-r", str(folder)], check=True)
    return refused


def test_a_torn_tail_of_the_log_is_never_built_upon(killed, tmp_path):
    assert torn_tiles(killed, tmp_path, 4, 25) > 5


@pytest.mark.parametrize("more", [1, 300])
async def test_whatever_file_of_the_log_is_spoilt_nothing_is_signed_on_top_of_it(
    tmp_path, signer, keeper, more
):
    log, dice = Log(tmp_path / "log", signer), random.Random(1)
    for count in (200, 400, 1):
        for _ in range(count):
            await keeper.commit((), (Event(kind=Kind.CALL, time_ms=NOW * 1000),))
        await log.publish(keeper)
    for _ in range(more):
        await keeper.commit((), (Event(kind=Kind.CALL, time_ms=NOW * 1000),))
    for file in sorted(p for p in log.folder.rglob("*") if p.is_file()):
        name = file.relative_to(log.folder).as_posix()
        if not needed(name, 601):
            continue
        good = file.read_bytes()
        for _ in range(8):
            file.write_bytes(spoilt(good, dice))
            before = {p: p.read_bytes() for p in log.folder.rglob("*") if p.is_file()}
            with pytest.raises(LogError):
                await Log(log.folder, signer).publish(keeper)
            assert before == {p: p.read_bytes() for p in log.folder.rglob("*") if p.is_file()}
        file.write_bytes(good)
    assert await Log(log.folder, signer).publish(keeper)


async def test_a_long_publication_that_was_cut_off_is_done_again(
    tmp_path, signer, keeper, monkeypatch
):
    monkeypatch.setattr("hub.audit.log._STEP", 256)

    def crash(point):
        raise SystemExit(str(point))

    for _ in range(700):
        await keeper.commit((), (Event(kind=Kind.CALL, time_ms=NOW * 1000),))
    with pytest.raises(SystemExit):
        await Log(tmp_path / "log", signer, failpoint=crash).publish(keeper)
    assert (tmp_path / "log/tile/1/000.p/2").exists()
    again = Log(tmp_path / "log", signer)
    assert await again.publish(keeper)
    assert verify.verify_log(again.folder, [verify.Key.parse(again.vkey)]).size == 700


@pytest.mark.parametrize("kept", [650, 500])
async def test_a_database_that_lost_what_the_files_hold_is_not_published(
    tmp_path, signer, keeper, clock, kept
):
    def crash(point):
        raise SystemExit(str(point))

    poorer = MemoryKeeper(clock=clock)
    for at in range(700):
        event = Event(kind=Kind.CALL, time_ms=NOW * 1000 + at)
        for one in (keeper, poorer)[: 1 + (at < kept)]:
            await one.commit((), (event,))
    with pytest.raises(SystemExit):
        await Log(tmp_path / "log", signer, failpoint=crash).publish(keeper)
    with pytest.raises(LogError, match="which has lost events"):
        await Log(tmp_path / "log", signer).publish(poorer)


async def test_a_tail_that_is_spoilt_under_a_running_log_is_not_carried_over(
    tmp_path, signer, keeper
):
    log = Log(tmp_path / "log", signer)
    for count in (100, 1):
        for _ in range(count):
            await keeper.commit((), (Event(kind=Kind.CALL, time_ms=NOW * 1000),))
        if count == 100:
            await log.publish(keeper)
    file = log.folder / "tile/entries/000.p/100"
    file.write_bytes(file.read_bytes().replace(b"1800000000", b"1800000001", 1))
    files = sorted(log.folder.rglob("*"))
    with pytest.raises(LogError, match="entry 0 does not fit its hash"):
        await log.publish(keeper)
    assert sorted(log.folder.rglob("*")) == files


@pytest.mark.nightly
def test_torn_tails_many_times(killed, tmp_path):
    torn_wal(killed, tmp_path, 44, 300)
    refused = torn_tiles(killed, tmp_path, 44, 300)
    record("audit-torn-tails", {"wal": 300, "tiles": 300, "refused": refused}, [44], "passed")


@pytest.mark.nightly
def test_every_byte_of_the_last_checkpoint_matters(killed, tmp_path):
    folder = copied(killed, tmp_path / "each")
    file = folder / "audit/log/checkpoint"
    good = file.read_bytes()
    signer = Signer.load(ORIGIN, PEM)
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(LogError):
            Log(folder / "audit/log", signer)
