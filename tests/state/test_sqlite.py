"""What only the real store can get wrong: opening, upgrading, full and broken disks, power cuts, kill -9."""

import os
import random
import signal
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest
import trio

from hub.model.consent import Consent
from hub.model.failpoint import Point
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.protocol.merkle import Frontier, leaf_hash
from hub.state.entry import entry_of, leaf_of
from hub.state.keeper import Conflict, Once, Put, Query
from hub.state.open import DATABASE, StoreError, StoreFailedError, open_keeper
from hub.state.schema import MIGRATIONS, SCHEMA_VERSION, check_sqlite
from hub.state.sqlite import FullError, Store
from hub.state.work import Claims, Commit
from tests.state.disk import Disk
from tests.state.keepers import NOW, consent, event, limits


def opened(folder, clock, **more):
    changed = {name: more.pop(name) for name in list(more) if name in limits().__struct_fields__}
    return open_keeper(folder, clock=clock, limits=limits(**changed), **more)


def put(name: str, value: bytes = b"v", expect=None) -> Put:
    return Put(Setting(name=name, value=value), expect)


def work(name: str, value: bytes = b"v") -> Commit:
    return Commit([entry_of(put(name, value))], [leaf_of(event(name))])


def root_of(store: Store) -> bytes:
    frontier = Frontier()
    for start in range(0, store.head().size, 1000):
        for leaf in store.events(start, 1000):
            frontier.append(leaf_hash(leaf))
    return frontier.root()


# Opening


async def test_state_survives_a_restart(tmp_path, clock):
    async with opened(tmp_path, clock) as keeper:
        await keeper.commit([Put(consent("c", user="u"))], [event("x")])
        await keeper.claim([Once("jti", "a", NOW + 10)])
        head = await keeper.head()
    async with opened(tmp_path, clock) as keeper:
        assert await keeper.lookup(Consent, "c") == (consent("c", user="u"), 1)
        assert not (await keeper.claim([Once("jti", "a", NOW + 10)]))[0].granted
        assert await keeper.head() == head
        assert await keeper.commit([], [event("y")]) == (1,)


async def test_the_folder_is_its_owners_alone(tmp_path, clock):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    async with opened(folder, clock):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / DATABASE).stat().st_mode) == 0o600


async def test_a_second_process_on_the_same_folder_gets_one_clear_error(tmp_path, clock):
    async with opened(tmp_path, clock):
        with pytest.raises(StoreError, match="another process has this state open"):
            async with opened(tmp_path, clock):
                pass
    async with opened(tmp_path, clock):
        pass


@pytest.mark.parametrize("version", ["3.51.2", "3.40.1", "3.7.0"])
def test_a_sqlite_that_can_corrupt_the_database_is_refused(version):
    with pytest.raises(StoreError, match=r"3\.51\.3"):
        check_sqlite(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0"])
def test_a_repaired_sqlite_is_accepted(version):
    check_sqlite(version)


def prepare(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def test_a_newer_database_is_refused_and_not_touched(tmp_path, clock):
    async with opened(tmp_path, clock):
        pass
    path = tmp_path / DATABASE
    prepare(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer Hub"):
        async with opened(tmp_path, clock):
            pass
    assert path.read_bytes() == before


async def test_another_applications_database_is_refused(tmp_path, clock):
    prepare(tmp_path / DATABASE, "CREATE TABLE precious (x)")
    with pytest.raises(StoreError, match="not a database of this Hub"):
        async with opened(tmp_path, clock):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path, clock):
    (tmp_path / DATABASE).write_bytes(b"precious" * 1000)
    with pytest.raises(StoreError, match="damaged"):
        async with opened(tmp_path, clock):
            pass


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET size = 3",
        "UPDATE head SET root = x'00'",
        "DELETE FROM event WHERE position = 1",
        "UPDATE head SET frontier = x''",
    ],
)
async def test_events_that_disagree_with_the_head_are_refused(tmp_path, clock, statement):
    async with opened(tmp_path, clock) as keeper:
        await keeper.commit([], [event("a"), event("b")])
    prepare(tmp_path / DATABASE, statement)
    with pytest.raises(StoreError, match="head"):
        async with opened(tmp_path, clock):
            pass


async def test_an_older_database_is_brought_forward(tmp_path, clock, monkeypatch):
    async with opened(tmp_path, clock) as keeper:
        await keeper.commit([put("a")], [event()])
    newer = (*MIGRATIONS, "CREATE TABLE added (x) ")
    monkeypatch.setattr("hub.state.schema.MIGRATIONS", newer)
    monkeypatch.setattr("hub.state.schema.SCHEMA_VERSION", len(newer))
    async with opened(tmp_path, clock) as keeper:
        assert await keeper.lookup(Setting, "a") is not None
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer Hub"):
        async with opened(tmp_path, clock):
            pass


async def test_a_migration_that_fails_leaves_the_old_version(tmp_path, clock, monkeypatch):
    async with opened(tmp_path, clock):
        pass
    broken = (*MIGRATIONS, "CREATE TABLE added (x); CREATE TABLE added (x);")
    monkeypatch.setattr("hub.state.schema.MIGRATIONS", broken)
    monkeypatch.setattr("hub.state.schema.SCHEMA_VERSION", len(broken))
    with pytest.raises(StoreError, match="cannot be opened"):
        async with opened(tmp_path, clock):
            pass
    monkeypatch.undo()
    async with opened(tmp_path, clock) as keeper:
        assert (await keeper.head()).size == 0


async def test_a_backup_under_writes_is_a_whole_state(tmp_path, clock):
    target = tmp_path / "copy" / DATABASE
    target.parent.mkdir()
    async with opened(tmp_path / "state", clock) as keeper:
        await keeper.commit([put(str(n)) for n in range(50)], [event()])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.backup, target)
            for number in range(50):
                await keeper.commit([put(f"later {number}")], [event()])
        with pytest.raises(StoreError, match="exists already"):
            await keeper.backup(target)
    async with opened(target.parent, clock) as copy:
        assert await copy.lookup(Setting, "49") is not None
        assert (await copy.head()).size >= 1


# Bounds


async def test_expired_records_are_purged_and_the_purge_is_announced(tmp_path, clock):
    async with opened(tmp_path, clock) as keeper:
        await keeper.claim([Once("jti", str(n), NOW + n) for n in range(1, 2501)])
        heard = []
        keeper.watch(heard.append)
        clock.advance(2400)
        assert await keeper.purge() == 2400
        assert len(heard) == 2400
        page = await keeper.search(Query(kind="seen", limit=1, count=True))
        assert page.total == 100


async def test_a_full_replay_memory_refuses_and_a_purge_makes_room(tmp_path, clock):
    async with opened(tmp_path, clock, replay_entries=3) as keeper:
        onces = [Once("jti", str(n), NOW + 10) for n in range(3)]
        assert all(one.granted for one in await keeper.claim(onces))
        refused = await keeper.claim([Once("jti", "x", NOW + 10)])
        assert isinstance(refused, Fault)
        assert (refused.status, refused.check) == (503, "keeper.replay")
        clock.advance(10)
        await keeper.purge()
        assert (await keeper.claim([Once("jti", "x", NOW + 20)]))[0].granted
    async with opened(tmp_path, clock, replay_entries=1) as keeper:
        assert isinstance(await keeper.claim([Once("jti", "y", NOW + 20)]), Fault)


class Gate:
    """A failpoint that holds the writer's thread before each commit."""

    def __init__(self):
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, point):
        if point is Point.BEFORE_COMMIT:
            self.reached.set()
            assert self.open.wait(10)


async def test_beyond_the_queue_writes_are_refused_at_once(tmp_path, clock):
    gate, results = Gate(), []
    async with opened(tmp_path, clock, commit_queue=5, failpoint=gate) as keeper:

        async def write(name: str) -> None:
            results.append(await keeper.commit([put(name)], [event()]))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(write, str(number))
            await trio.testing.wait_all_tasks_blocked()
            assert [one.check for one in results] == ["keeper.queue"] * 3
            gate.open.set()
        assert sum(isinstance(one, tuple) for one in results) == 5
        assert (await keeper.head()).size == 5


async def test_a_disk_that_takes_too_long_is_answered_with_unknown(tmp_path, clock):
    gate = Gate()
    async with opened(tmp_path, clock, commit_s=0.05, failpoint=gate) as keeper:
        late = await keeper.commit([put("a")], [event()])
        assert isinstance(late, Fault)
        assert (late.status, late.check) == (503, "keeper.deadline")
        assert await keeper.lookup(Setting, "a") is None
        gate.open.set()
        await keeper.commit([put("b")], [event()])
        assert await keeper.lookup(Setting, "a") is not None


async def test_readers_never_wait_for_the_writer(tmp_path, clock):
    gate = Gate()
    async with opened(tmp_path, clock, failpoint=gate) as keeper, trio.open_nursery() as nursery:
        nursery.start_soon(keeper.commit, [put("a")], [event()])
        await trio.to_thread.run_sync(gate.reached.wait)
        with trio.fail_after(2):
            assert await keeper.lookup(Setting, "a") is None
            assert (await keeper.search(Query(kind="setting"))).items == ()
            assert (await keeper.head()).size == 0
        gate.open.set()


async def test_one_group_holds_a_conflict_apart_from_the_rest(tmp_path, clock):
    gate, results = Gate(), {}
    async with opened(tmp_path, clock, failpoint=gate) as keeper:

        async def write(name: str, expect: int) -> None:
            results[name, expect] = await keeper.commit([put(name, b"v", expect)], [event()])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "first", 0)
            await trio.to_thread.run_sync(gate.reached.wait)
            for name, expect in (("a", 0), ("b", 7), ("c", 0)):
                nursery.start_soon(write, name, expect)
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        assert results["b", 7] == Conflict(0)
        assert isinstance(results["a", 0], tuple)
        assert isinstance(results["c", 0], tuple)
        assert (await keeper.head()).size == 3


# Disks


@pytest.fixture
def disk(tmp_path):
    return Disk(f"disk-{tmp_path.name}")


async def test_a_full_disk_answers_503_within_a_second_and_recovers(tmp_path, clock, disk):
    async with opened(tmp_path, clock, vfs=disk.name) as keeper:
        await keeper.commit([put("before")], [event()])
        disk.full = True
        with trio.fail_after(1):
            refused = await keeper.commit([put("during")], [event("lost")])
            denied = await keeper.claim([Once("jti", "a", NOW + 10)])
        for one in (refused, denied):
            assert isinstance(one, Fault)
            assert (one.status, one.check) == (503, "keeper.disk")
        assert await keeper.lookup(Setting, "before") is not None
        assert await keeper.lookup(Setting, "during") is None
        disk.full = False
        assert await keeper.commit([put("after")], [event()]) == (1,)
        assert await keeper.trace("lost") == ()
        assert (await keeper.claim([Once("jti", "a", NOW + 10)]))[0].granted
        head = await keeper.head()
    store = Store(tmp_path / DATABASE)
    assert (store.head(), root_of(store)) == (head, head.root)
    store.close()


async def test_a_failed_fsync_ends_the_keeper_and_acknowledges_nothing(tmp_path, clock, disk):
    answered = []

    async def use() -> None:
        async with opened(tmp_path, clock, vfs=disk.name) as keeper:
            await keeper.commit([put("a")], [event()])
            disk.broken = True
            answered.append(await keeper.commit([put("b")], [event()]))

    with trio.fail_after(1), pytest.raises(ExceptionGroup) as caught:
        await use()
    assert caught.group_contains(StoreFailedError)
    assert not any(isinstance(one, tuple) for one in answered)
    disk.broken = False


async def test_whoever_waits_when_the_store_fails_is_told_that_it_is_unknown(tmp_path, clock, disk):
    answers, keepers = [], []

    async def write(keeper) -> None:
        answers.append(await keeper.commit([put("a")], [event()]))

    async def use(outside) -> None:
        async with opened(tmp_path, clock, vfs=disk.name) as keeper:
            keepers.append(keeper)
            disk.broken = True
            for _ in range(3):
                outside.start_soon(write, keeper)
            await trio.sleep_forever()

    async with trio.open_nursery() as outside:
        with pytest.raises(ExceptionGroup) as caught:
            await use(outside)
        assert caught.group_contains(StoreFailedError)
    assert [(one.status, one.check) for one in answers] == [(503, "keeper.stopping")] * 3
    refused = await keepers[0].commit([put("b")], [event()])
    assert (refused.status, refused.check) == (503, "keeper.stopping")


def test_a_start_on_a_full_disk_says_so(tmp_path, disk):
    disk.full = True
    with pytest.raises(StoreError, match=r"cannot be opened .*is the disk full"):
        Store(tmp_path / DATABASE, vfs=disk.name)


def test_a_group_that_met_a_full_disk_leaves_no_trace(tmp_path, disk):
    store = Store(tmp_path / DATABASE, vfs=disk.name)
    store.write([work("a")])
    head = store.head()
    disk.full = True
    for _ in range(3):
        with pytest.raises(FullError):
            store.write([work("b"), Claims([Once("jti", "a", NOW + 1)], NOW), work("c")])
    disk.full = False
    assert store.head() == head
    assert store.write([work("b")]) == [(1,)]
    assert root_of(store) == store.head().root
    store.close()


def lose_power(folder: Path, seed: int, synchronous: str) -> int:
    """Write, acknowledge, cut the power; return how many acknowledged works are gone."""
    dice, disk = random.Random(seed), Disk(f"lossy-{synchronous}-{seed}")
    path = folder / f"{synchronous}-{seed}" / DATABASE
    path.parent.mkdir()
    store = Store(path, vfs=disk.name)
    store._writer.pragma("synchronous", synchronous)
    acknowledged: list[str] = []
    for group in range(dice.randrange(3, 30)):
        names = [f"{group}-{at}" for at in range(dice.randrange(1, 5))]
        store.write([work(name, b"x" * dice.randrange(3000)) for name in names])
        acknowledged += names
        if dice.random() < 0.1:
            store._pages = 1_000_000
        if store.untidy:
            store.tidy()
    after = disk.cut_power(path, folder / f"after-{synchronous}-{seed}", dice)
    store.close()
    return lost_after(after, acknowledged)


def lost_after(path: Path, acknowledged: list[str]) -> int:
    store = Store(path)
    with ExitStack() as stack:
        stack.callback(store.close)
        assert store._writer.execute("PRAGMA integrity_check").get == "ok"
        assert root_of(store) == store.head().root
        lost = [name for name in acknowledged if store.lookup("setting", name) is None]
        unlogged = [name for name in acknowledged if not store.trace(name)]
        assert lost == unlogged
        return len(lost)


@pytest.fixture
def short_slices(monkeypatch):
    monkeypatch.setattr("hub.state.sqlite.SLICE", 7)


def test_no_power_cut_loses_what_was_acknowledged(tmp_path, short_slices):
    assert sum(lose_power(tmp_path, seed, "full") for seed in range(40)) == 0


def test_the_power_cut_test_can_fail(tmp_path):
    """The positive control: without a sync for each commit, acknowledged works are lost."""
    assert sum(lose_power(tmp_path, seed, "normal") for seed in range(20)) > 0


def test_a_torn_tail_loses_whole_groups_from_the_end_only(tmp_path):
    path = tmp_path / "state" / DATABASE
    path.parent.mkdir()
    store = Store(path)
    for number in range(60):
        store.write([work(str(number))])
    good = {part.name: part.read_bytes() for part in path.parent.iterdir()}
    store.close()
    dice = random.Random(4)
    for trial in range(40):
        folder = tmp_path / str(trial)
        folder.mkdir()
        for name, data in good.items():
            if not name.endswith("-shm"):
                (folder / name).write_bytes(data)
        tear(folder / f"{DATABASE}-wal", dice)
        size = whole_prefix(folder / DATABASE)
        assert size <= 60


def tear(wal: Path, dice: random.Random) -> None:
    data = bytearray(wal.read_bytes())
    at = dice.randrange(len(data) - 65_536, len(data))
    if dice.random() < 0.5:
        data = data[:at]
    else:
        data[at] ^= 1 << dice.randrange(8)
    wal.write_bytes(data)


def whole_prefix(path: Path) -> int:
    store = Store(path)
    size = store.head().size
    kept = [store.lookup("setting", str(n)) is not None for n in range(60)]
    assert kept == [n < size for n in range(60)]
    assert root_of(store) == store.head().root
    store.close()
    return size


CHILD = """
import resource, sys
from pathlib import Path
import trio
from hub.model.clock import FixedClock
from hub.model.fault import Fault
from hub.state.open import open_keeper
from tests.state.keepers import NOW, event, limits
from tests.state.test_sqlite import put

async def write(keeper, who):
    number = 0
    while True:
        name = f"{who}-{number}"
        done = await keeper.commit([put(name, b"x" * 500, 0)], [event(name)])
        assert isinstance(done, tuple), done
        sys.stdout.write(f"{name} {done[0]}\\n")
        sys.stdout.flush()
        number += 1

async def kill(folder):
    async with open_keeper(folder, clock=FixedClock(NOW), limits=limits()) as keeper:
        async with trio.open_nursery() as nursery:
            for who in range(16):
                nursery.start_soon(write, keeper, sys.argv[3] + "." + str(who))

async def fill(folder):
    async with open_keeper(folder, clock=FixedClock(NOW), limits=limits()) as keeper:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        number = 0
        while True:
            with trio.fail_after(1):
                done = await keeper.commit([put(str(number), b"x" * 5000, 0)], [event()])
            if isinstance(done, Fault):
                break
            number += 1
        assert (done.status, done.check) == (503, "keeper.disk"), done
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await keeper.commit([put(str(number), b"x", 0)], [event()]) == (number,)
        sys.stdout.write(f"refused after {number}\\n")

trio.run({"kill": kill, "fill": fill}[sys.argv[1]], Path(sys.argv[2]))
"""


def child(*arguments: str) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path):
    with child("fill", str(tmp_path)) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("refused after")


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    ledger: dict[str, int] = {}
    dice = random.Random(9)
    for trial in range(3):
        with child("kill", str(tmp_path), str(trial)) as process:
            for _ in range(dice.randrange(50, 800)):
                name, index = process.stdout.readline().split()
                ledger[name] = int(index)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        store = Store(tmp_path / DATABASE)
        assert root_of(store) == store.head().root
        for name, index in ledger.items():
            assert store.lookup("setting", name) is not None
            assert [at for at, _ in store.trace(name)] == [index]
        store.close()
    assert len(ledger) > 100


def test_who_only_reads_may_open_while_another_process_writes(tmp_path):
    path = tmp_path / DATABASE
    store = Store(path)
    store.write([Commit((), [leaf_of(event("a"))])])

    def write_meanwhile(_cursor, sql, _bindings) -> bool:
        if "event" in sql:
            store.write([Commit((), [leaf_of(event("b"))])])
        return True

    def watched(connection) -> None:
        connection.exec_trace = write_meanwhile

    apsw.connection_hooks.append(watched)
    try:
        reader = Store(path, readonly=True)
    finally:
        apsw.connection_hooks.remove(watched)
    assert reader.head().size == store.head().size > 1
    reader.close()
    store.close()
