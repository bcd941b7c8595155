"""The keeper's socket: leases, invalidations before acknowledgements, and what happens when an end goes away."""

import json
import stat
from contextlib import asynccontextmanager
from hashlib import sha256

import msgspec
import pytest
import trio
from msgspec.structs import replace

import hub.state.frames
import hub.state.socket
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.state.cache import Cache
from hub.state.entry import LEAF_OCTETS, leaf_of, put_entry
from hub.state.frames import (
    PROTOCOL,
    Ask,
    AskClaim,
    AskHead,
    Bug,
    Changed,
    FrameError,
    Frames,
    FromKeeper,
    FromWorker,
    Heard,
    Hello,
    Indices,
    Lease,
    Renew,
    Write,
    frame_of,
    from_keeper,
)
from hub.state.keeper import Conflict, Invalidation, Once, Put
from hub.state.memory import MemoryKeeper
from hub.state.open import open_keeper
from hub.state.remote import KeeperGoneError, connect_keeper
from hub.state.schema import StoreError
from hub.state.socket import LEASE_S, RENEW_S, serve_keeper
from hub.state.work import Commit
from tests.state.keepers import event, limits
from tests.waiting import virtual


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


@asynccontextmanager
async def served(keeper, path):
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_keeper, keeper, path)
        yield
        nursery.cancel_scope.cancel()


class Raw:
    """A worker that does only what it is told to."""

    def __init__(self, stream):
        self.stream = stream
        self._frames = Frames()

    async def say(self, *messages):
        await self.stream.send_all(frame_of(messages))

    async def hear(self):
        while True:
            data = await self.stream.receive_some(65536)
            if not data:
                return ()
            for body in self._frames.receive(data):
                return from_keeper.decode(body)


@asynccontextmanager
async def raw(path):
    async with await trio.open_unix_socket(str(path)) as stream:
        yield Raw(stream)


async def put(keeper, name="a", value=b"v"):
    return await keeper.commit([Put(Setting(name=name, value=value))], [event()])


async def test_the_socket_is_for_its_owner_only_and_goes_with_the_keeper(clock, path):
    async with served(MemoryKeeper(clock=clock), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_left_behind_is_replaced(clock, path):
    keeper = MemoryKeeper(clock=clock)
    left = trio.socket.socket(trio.socket.AF_UNIX)
    await left.bind(str(path))
    left.close()
    async with served(keeper, path), connect_keeper(path) as remote:
        assert (await remote.head()).size == 0


@pytest.mark.parametrize("spare", [-1, 0, 1, 150])
async def test_a_socket_may_lie_deeper_than_its_address_is_long(clock, tmp_path, spare):
    short = len(str(tmp_path / "x" / "socket"))
    path = tmp_path / ("x" * (107 - short + spare + 1)) / "socket"
    path.parent.mkdir()
    assert len(str(path)) == 107 + spare
    async with served(MemoryKeeper(clock=clock), path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        async with connect_keeper(path) as remote:
            assert (await remote.head()).size == 0
    assert not path.exists()


async def test_a_file_in_the_way_is_not_removed(clock, path):
    path.write_text("precious")
    with pytest.raises(ExceptionGroup) as caught:
        async with served(MemoryKeeper(clock=clock), path):
            pass
    assert caught.group_contains(StoreError, match="cannot be made")
    assert path.read_text() == "precious"


async def test_without_a_keeper_a_worker_says_so(path, autojump_clock):
    with pytest.raises(ExceptionGroup) as caught:
        async with connect_keeper(path):
            pass
    assert caught.group_contains(StoreError, match="no keeper answers")


async def test_another_users_process_is_not_served(clock, path, monkeypatch, autojump_clock):
    monkeypatch.setattr(hub.state.socket, "peer_uid", lambda _socket: 12345)
    async with served(MemoryKeeper(clock=clock), path), raw(path) as worker:
        assert await worker.hear() == ()


async def test_what_one_worker_changes_every_worker_has_forgotten_before_the_answer(clock, path):
    keeper = MemoryKeeper(clock=clock)
    async with (
        served(keeper, path),
        connect_keeper(path) as first,
        connect_keeper(path) as second,
    ):
        cache = Cache(second, {Setting: 10})
        for number in range(100):
            value = str(number).encode()
            await put(first, value=value)
            assert cache.peek(Setting, "a") is None
            assert (await cache.get(Setting, "a"))[0].value == value
            assert cache.peek(Setting, "a") is not None


async def test_a_silent_worker_delays_a_change_until_its_lease_is_over(clock, path, autojump_clock):
    keeper = MemoryKeeper(clock=clock)
    async with served(keeper, path), raw(path) as worker:
        start = trio.current_time()
        await worker.say(Hello(PROTOCOL), Renew(7))
        assert await worker.hear() == (Lease(7),)
        await put(keeper)
        assert trio.current_time() - start == pytest.approx(LEASE_S, abs=0.1)
        assert await worker.hear() == (Changed(1, (Invalidation("setting", "a"),)),)
        before = trio.current_time()
        await put(keeper)
        assert trio.current_time() - before < 0.1, "without a lease nobody is waited for"


async def test_renewing_without_hearing_does_not_hold_a_change_up_for_longer(
    clock, path, autojump_clock
):
    keeper = MemoryKeeper(clock=clock)
    async with served(keeper, path), raw(path) as worker, trio.open_nursery() as nursery:
        await worker.say(Hello(PROTOCOL), Renew(1))
        assert await worker.hear() == (Lease(1),)
        start = trio.current_time()

        async def renew() -> None:
            for number in range(2, 20):
                await virtual(RENEW_S)
                await worker.say(Renew(number))

        nursery.start_soon(renew)
        await put(keeper)
        assert trio.current_time() - start == pytest.approx(LEASE_S, abs=0.1)
        nursery.cancel_scope.cancel()


async def test_a_change_is_acknowledged_as_soon_as_all_have_heard(clock, path, autojump_clock):
    keeper = MemoryKeeper(clock=clock)
    async with served(keeper, path), raw(path) as worker:
        await worker.say(Hello(PROTOCOL), Renew(1))
        await worker.hear()
        start = trio.current_time()
        async with trio.open_nursery() as change:
            change.start_soon(put, keeper)
            assert isinstance((await worker.hear())[0], Changed)
            await worker.say(Heard(1))
        assert (await keeper.head()).size == 1
        assert trio.current_time() - start < LEASE_S / 2


async def test_a_worker_that_vanishes_is_waited_for_until_its_lease_is_over(
    clock, path, autojump_clock
):
    keeper = MemoryKeeper(clock=clock)
    async with served(keeper, path):
        start = trio.current_time()
        async with raw(path) as worker:
            await worker.say(Hello(PROTOCOL), Renew(1))
            await worker.hear()
        await trio.testing.wait_all_tasks_blocked()
        await put(keeper)
        assert trio.current_time() - start == pytest.approx(LEASE_S, abs=0.1)


async def test_a_worker_that_says_goodbye_is_not_waited_for(clock, path, autojump_clock):
    keeper = MemoryKeeper(clock=clock)
    async with served(keeper, path):
        async with connect_keeper(path):
            pass
        start = trio.current_time()
        await put(keeper)
        assert trio.current_time() - start < 0.3


async def test_a_lease_is_renewed_while_both_ends_live(clock, path, autojump_clock):
    async with served(MemoryKeeper(clock=clock), path), connect_keeper(path) as remote:
        for _ in range(30):
            await virtual(LEASE_S / 3)
            assert remote.fresh()


async def test_when_the_keeper_goes_everything_is_forgotten_and_writes_are_refused(
    clock, path, autojump_clock
):
    keeper = MemoryKeeper(clock=clock)
    forgotten = []
    async with trio.open_nursery() as nursery:
        stop = trio.Event()

        async def keep(task_status=trio.TASK_STATUS_IGNORED) -> None:
            async with served(keeper, path):
                task_status.started()
                await stop.wait()

        await nursery.start(keep)
        async with connect_keeper(path) as remote:
            cache = Cache(remote, {Setting: 10})
            remote.watch(forgotten.append)
            await put(remote)
            await cache.get(Setting, "a")
            stop.set()
            await virtual(0.05)
            assert not remote.fresh()
            assert cache.peek(Setting, "a") is None
            assert Invalidation("setting", "") in forgotten
            refused = await put(remote)
            assert isinstance(refused, Fault)
            assert refused.status == 503
            with pytest.raises(KeeperGoneError):
                await remote.lookup(Setting, "a")
            stop = trio.Event()
            await nursery.start(keep)
            await virtual(0.5)
            assert remote.fresh()
            assert (await cache.get(Setting, "a"))[1] == 1
            stop.set()


GOOD = put_entry(Put(Setting(name="a", value=b"v")))
LEAF = leaf_of(event())
NESTED = b"\x91" * 20_000 + b"\x01"
DEEP_LEAF = b'{"v":1,"kind":"call","time_ms":1,"more":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
DEEP_RECORD = replace(GOOD, body=b"\x81\xa4more" + NESTED)


def framed(body):
    return len(body).to_bytes(4) + body


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x00\x00\x01\xc1",
        b"\xff\xff\xff\xff",
        frame_of([Ask(1, AskHead())]),
        frame_of([Hello(PROTOCOL + 1)]),
        framed(b"\x91\x92\xa5hello\x92" + NESTED),
        framed(b"\x91\x93\xa3ask\x01\x93\xa6lookup\xa1\xff\xa1a"),
        frame_of([Hello(PROTOCOL), Write(1, Commit((), (("", DEEP_LEAF),)))]),
        frame_of([Hello(PROTOCOL), Write(1, Commit((DEEP_RECORD,), (LEAF,)))]),
    ],
    ids=["type", "length", "no hello", "version", "nested", "no text", "deep leaf", "deep record"],
)
async def test_a_worker_that_breaks_the_protocol_loses_its_connection_only(clock, path, sent):
    async with served(MemoryKeeper(clock=clock), path), connect_keeper(path) as other:
        async with raw(path) as worker:
            await worker.stream.send_all(sent)
            assert await worker.hear() == ()
        assert (await other.head()).size == 0


async def test_a_bug_in_the_keeper_is_raised_by_the_worker_that_asked(clock, path, monkeypatch):
    keeper = MemoryKeeper(clock=clock)

    async def broken():
        raise KeyError("oops")

    monkeypatch.setattr(keeper, "head", broken)
    async with served(keeper, path), connect_keeper(path) as remote:
        with pytest.raises(RuntimeError, match="oops"):
            await remote.head()
        assert await put(remote) == (0,)


async def test_writes_that_come_together_are_answered_each(clock, path):
    keeper, results = MemoryKeeper(clock=clock), {}

    async def write(remote, number: int) -> None:
        change = Put(Setting(name=str(number % 3), value=b"v"), 0)
        results[number] = await remote.commit([change], [event(str(number))])

    async with served(keeper, path), connect_keeper(path) as remote:
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(write, remote, number)
        written = sorted(n for n, one in results.items() if isinstance(one, tuple))
        assert sorted(n % 3 for n in written) == [0, 1, 2], "one of each name"
        assert all(one == Conflict(0) for n, one in results.items() if n not in written)
        for number in written:
            ((at, _),) = await keeper.trace(str(number))
            assert results[number] == (at,)


async def test_a_bug_in_writing_is_raised_by_every_worker_task_that_wrote(clock, path, monkeypatch):
    keeper, raised = MemoryKeeper(clock=clock), []

    async def broken(_works):
        raise KeyError("oops")

    async def write(remote) -> None:
        with pytest.raises(RuntimeError, match="oops"):
            await put(remote)
        raised.append(True)

    async with served(keeper, path), connect_keeper(path) as remote:
        monkeypatch.setattr(keeper, "commit_all", broken)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(write, remote)
        monkeypatch.undo()
        assert raised == [True] * 3
        assert await put(remote) == (0,)


async def test_a_worker_that_asks_too_much_is_refused_what_is_too_much(clock, path, monkeypatch):
    monkeypatch.setattr("hub.state.socket._QUESTIONS", 5)
    results = []

    async def write(remote) -> None:
        results.append(await remote.commit([], [event()]))

    async with served(MemoryKeeper(clock=clock), path), connect_keeper(path) as remote:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(write, remote)
            assert sum(isinstance(one, tuple) for one in results) == 5
            refused = [one for one in results if isinstance(one, Fault)]
            assert [(one.status, one.check) for one in refused] == [(503, "keeper.queue")] * 3
            results.clear()


async def test_a_keeper_that_does_not_answer_is_unknown_after_the_patience(
    clock, path, monkeypatch, autojump_clock
):
    keeper = MemoryKeeper(clock=clock)

    async def never(_works):
        await trio.sleep_forever()

    monkeypatch.setattr(keeper, "commit_all", never)
    async with served(keeper, path), connect_keeper(path, patience_s=2.0) as remote:
        start = trio.current_time()
        late = await put(remote)
        assert isinstance(late, Fault)
        assert late.check == "keeper.connection"
        assert trio.current_time() - start == pytest.approx(2.0, abs=0.1)


def test_frames_survive_any_cutting():
    frames, sent = Frames(), frame_of([Renew(1)]) + frame_of([Hello(1), Renew(2)])
    bodies = [body for octet in sent for body in frames.receive(bytes([octet]))]
    assert len(bodies) == 2


async def test_answers_that_are_too_long_for_one_frame_together_are_sent_in_several(
    clock, path, monkeypatch
):
    keeper = MemoryKeeper(clock=clock)
    await put(keeper, value=b"x" * 600)
    monkeypatch.setattr(hub.state.frames, "FRAME_OCTETS", 1000)
    found = []

    async def look(remote):
        found.append(await remote.lookup(Setting, "a"))

    async with served(keeper, path), connect_keeper(path) as remote:
        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(look, remote)
        assert remote.fresh()
    assert [version for _, version in found] == [1] * 7


def test_a_frame_that_would_be_too_long_is_not_made():
    with pytest.raises(FrameError):
        frame_of([Ask(1, b"x" * (65 * 1024 * 1024))])


@pytest.mark.parametrize(
    "work",
    [
        Commit((GOOD,), ()),
        Commit((), (("", b"{" + b"x" * LEAF_OCTETS),)),
        Commit((), (("", b"no event"),)),
        Commit((replace(GOOD, kind="nonsense"),), (LEAF,)),
        Commit((replace(GOOD, body=b"nonsense"),), (LEAF,)),
        Commit((replace(GOOD, kind="nonsense", body=None),), (LEAF,)),
        Commit((replace(GOOD, key="b"),), (LEAF,)),
        Commit((), (("another", LEAF[1]),)),
    ],
    ids=["no event", "long", "no leaf", "kind", "body", "drop", "key", "name"],
)
async def test_a_workers_fault_in_a_commit_is_its_own(clock, path, tmp_path, work):
    heard = []
    async with open_keeper(tmp_path / "state", clock=clock, limits=limits()) as keeper:
        async with served(keeper, path), raw(path) as worker:
            await worker.say(Hello(PROTOCOL), Write(1, work), Write(2, Commit((), (LEAF,))))
            with trio.fail_after(2):
                while len(heard) < 2:
                    heard += await worker.hear()
        replies = {one.number: one.reply for one in heard}
        assert isinstance(replies[1], Bug)
        assert replies[2] == Indices((0,))
        assert await keeper.commit([Put(Setting(name="b", value=b"v"))], [event()]) == (1,)


HUGE = 2**64 - 1


@pytest.mark.parametrize(
    "message",
    [
        Write(1, Commit((replace(GOOD, purge_at=HUGE),), (LEAF,))),
        Write(1, Commit((replace(GOOD, rows=(("client", HUGE),)),), (LEAF,))),
        Ask(1, AskClaim((Once("space", "value", HUGE),))),
    ],
    ids=["purge_at", "row", "claim"],
)
async def test_a_number_that_cannot_be_stored_ends_the_workers_connection_only(
    clock, path, tmp_path, message
):
    async with open_keeper(tmp_path / "state", clock=clock, limits=limits()) as keeper:
        async with served(keeper, path), raw(path) as worker:
            await worker.say(Hello(PROTOCOL), message)
            with trio.fail_after(2):
                assert await worker.hear() == ()
        assert await keeper.commit([], [event()]) == (0,)


def plain(schema):
    """Return a schema without its prose."""
    if isinstance(schema, dict):
        prose = {k for k in ("title", "description") if isinstance(schema.get(k), str)}
        return {k: plain(v) for k, v in schema.items() if k not in prose}
    return [plain(one) for one in schema] if isinstance(schema, list) else schema


def test_what_is_said_on_the_socket_is_of_its_protocols_version():
    """Where this fails: a message or a record has changed. Count PROTOCOL up by one, and write the new digest here."""
    schemas = msgspec.json.schema_components([FromWorker, FromKeeper])
    said = sha256(json.dumps(plain(schemas), sort_keys=True).encode()).hexdigest()
    assert (PROTOCOL, said[:16]) == (4, "d4e2430d443e53d6")
