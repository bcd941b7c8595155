"""The supervisor with processes that only pretend to be workers: an end or a reload while they start or are replaced."""

import signal
import sys
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio

from hub.config import config_folder, load
from hub.edge.listener import Drain
from hub.model.clock import FixedClock, SeededDice
from hub.node.build import Given
from hub.node.errors import StartError
from hub.node.supervise import Supervisor
from hub.node.watch import hold_reloads, watch_signals
from hub.state.memory import MemoryKeeper
from tests.edge.rig import Notebook
from tests.waiting import until

WORKER = """
import json, os, pathlib, signal, socket, sys
number = sys.argv[1]
orders = json.loads(sys.stdin.readline())
folder = pathlib.Path(orders["settings"]["state"]["folder"])
wanted = folder / ("serve" + number)
def told(kind, _):
    (folder / f"{number}-{os.getpid()}-{signal.Signals(kind).name}").touch()
    if kind == signal.SIGTERM:
        os._exit(0)
while not wanted.exists():
    if (folder / ("die" + number)).exists():
        os._exit(7)
    signal.sigtimedwait((), 0.01)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGHUP, told)
offered = socket.socket(socket.AF_UNIX)
offered.bind(str(folder / f"worker-{number}-{os.getpid()}.sock"))
offered.listen()
offered.settimeout(0.02)
while True:
    if (folder / f"hang{os.getpid()}").exists():
        if (folder / "deaf").exists():
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
            (folder / "heedless").touch()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        while True:
            signal.sigtimedwait((), 10)
    os.write(orders["pulse"], b".")
    try:
        asked, _ = offered.accept()
    except TimeoutError:
        continue
    asked.sendall(b"# nothing\\n")
    asked.close()
"""


@pytest.fixture
def settings(tmp_path):
    found = load(config_folder() / "hub.production.toml", {}).settings
    change = msgspec.structs.replace
    return change(
        found,
        workers=2,
        state=change(found.state, folder=tmp_path),
        tpp=change(found.tpp, bind="127.0.0.1", port=0),
        lfi=change(found.lfi, bind="127.0.0.1", port=0),
    )


@asynccontextmanager
async def supervised(settings, started=None):
    """Run a supervisor; ``started`` are the workers that serve."""
    notebook, drain, clock = Notebook(), Drain(), FixedClock(1_780_000_000)
    given = Given(
        settings=settings,
        keeper=MemoryKeeper(clock=clock),
        clock=clock,
        dice=SeededDice("s"),
        observer=notebook,
    )
    supervisor = Supervisor(given, (sys.executable, "-Sc", WORKER), drain)
    async with trio.open_nursery() as nursery:
        if started is None:
            nursery.start_soon(supervisor.run)
        else:
            serve(settings, *started)
            with trio.fail_after(10):
                await nursery.start(supervisor.run)
        try:
            yield supervisor, drain, notebook, nursery
            drain.start()
            await until(lambda: not nursery.child_tasks, 10, "the end of all")
        finally:
            nursery.cancel_scope.cancel()


def serve(settings, *numbers):
    for number in numbers:
        (settings.state.folder / f"serve{number}").touch()


def told(settings, name):
    return sorted(path.name for path in settings.state.folder.glob(f"*-{name}"))


async def test_an_end_while_the_workers_start_is_an_end(settings):
    async with supervised(settings) as (supervisor, drain, notebook, nursery):
        await until(lambda: len(supervisor.pids) == 2, 10, "both processes")
        drain.start()
        await until(lambda: not nursery.child_tasks, 10, "the supervisor's end")
        assert supervisor.pids == ()
        assert not notebook.notes


async def test_a_reload_while_a_worker_starts_reaches_it_once_it_serves(settings):
    async with supervised(settings) as (supervisor, _, notebook, _):
        await until(lambda: len(supervisor.pids) == 2, 10, "both processes")
        pids = supervisor.pids
        supervisor.reload()
        serve(settings, 0, 1)
        await until(lambda: len(told(settings, "SIGHUP")) == 2, 10, "both to hear of it")
        assert supervisor.pids == pids
        assert not notebook.notes, "nobody has died of it"


@asynccontextmanager
async def half_replaced(settings, supervisor, nursery):
    """Have workers replaced until the first successor serves and the second does not; give what ``replace`` raised."""
    (settings.state.folder / "serve1").unlink()
    refused = []

    async def replace():
        try:
            await supervisor.replace(settings, nursery)
        except StartError as error:
            refused.append(str(error))

    nursery.start_soon(replace)
    await until(lambda: len(supervisor.pids) == 4, 10, "the successors")
    served = partial(settings.state.folder.glob, "worker-0-*.sock")
    await until(lambda: len(list(served())) == 2, 10, "one of them to serve")
    yield refused


async def test_successors_that_are_not_wanted_after_all_drain_if_they_serve(settings):
    async with supervised(settings, (0, 1)) as (supervisor, _, notebook, nursery):
        present = supervisor.pids
        async with half_replaced(settings, supervisor, nursery) as refused:
            (settings.state.folder / "die1").touch()
            await until(lambda: bool(refused), 10, "the refusal")
        assert "did not start" in refused[0]
        await until(lambda: supervisor.pids == present, 10, "the successors' end")
        (ended,) = told(settings, "SIGTERM")
        assert ended.startswith("0-")
        assert supervisor.ready()
        assert not notebook.notes


async def test_an_end_while_workers_are_replaced_lets_their_successors_drain(settings):
    async with supervised(settings, (0, 1)) as (supervisor, drain, _, nursery):
        async with half_replaced(settings, supervisor, nursery) as refused:
            drain.start()
            await until(lambda: not nursery.child_tasks, 10, "the end of all")
        assert refused
        assert supervisor.pids == ()
        assert [name[:2] for name in told(settings, "SIGTERM")] == ["0-", "0-", "1-"]


@pytest.fixture
def quick(monkeypatch):
    """Have a second's beats in the twentieth of one: the bound of thirty beats is one and a half seconds."""
    monkeypatch.setattr("hub.node.supervise.BEAT_S", 0.05)


def deaths(notebook):
    return [(fields["worker"], fields["status"]) for fields in of(notebook, "worker_died")]


def of(notebook, wanted):
    return [fields for name, fields in notebook.notes if name == wanted]


@pytest.mark.parametrize(("deaf", "status"), [(False, -signal.SIGABRT), (True, -signal.SIGKILL)])
async def test_a_worker_that_hangs_is_told_made_to_die_and_replaced(settings, quick, deaf, status):
    async with supervised(settings, (0, 1)) as (supervisor, _, notebook, _):
        hanging, other = supervisor.pids
        if deaf:
            (settings.state.folder / "deaf").touch()
        (settings.state.folder / f"hang{hanging}").touch()
        await until(lambda: deaths(notebook), 10, "its death")
        await until(lambda: len(supervisor.pids) == 2 and supervisor.ready(), 10, "its successor")
        assert deaths(notebook) == [(0, status)]
        assert of(notebook, "worker_hangs") == [{"worker": 0, "pid": hanging}]
        assert other in supervisor.pids
        assert hanging not in supervisor.pids


async def test_a_worker_that_hangs_while_it_leaves_is_ended_and_has_no_second_successor(
    settings, quick
):
    async with supervised(settings, (0, 1)) as (supervisor, _, notebook, nursery):
        before = supervisor.pids
        (settings.state.folder / f"hang{before[0]}").touch()
        await supervisor.replace(settings, nursery)
        present = set(supervisor.pids) - set(before)
        assert len(present) == 2
        await until(lambda: set(supervisor.pids) == present, 10, "the end of the one that hangs")
        assert len(of(notebook, "worker_hangs")) == 1
        assert not deaths(notebook)


async def test_a_worker_that_never_begins_to_beat_has_a_bound_of_its_own(settings, quick):
    change = msgspec.structs.replace
    settings = change(settings, limits=change(settings.limits, loop_silent_s=3, worker_start_s=40))
    async with supervised(settings) as (supervisor, _, notebook, _):
        await until(lambda: len(supervisor.pids) == 2, 10, "both processes")
        first = supervisor.pids
        await until(lambda: len(deaths(notebook)) == 2, 10, "the bound")
        serve(settings, 0, 1)
        await until(lambda: len(supervisor.pids) == 2 and supervisor.ready(), 10, "others")
        assert not set(first) & set(supervisor.pids)


async def test_a_reload_that_comes_before_anybody_listens_is_heard_later(nursery):
    heard = trio.Event()
    hold_reloads()
    signal.raise_signal(signal.SIGHUP)
    await nursery.start(partial(watch_signals, lambda: None, heard.set))
    with trio.fail_after(5):
        await heard.wait()
