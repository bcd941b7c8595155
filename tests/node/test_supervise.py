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
while True:
    asked, _ = offered.accept()
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


async def test_a_reload_that_comes_before_anybody_listens_is_heard_later(nursery):
    heard = trio.Event()
    hold_reloads()
    signal.raise_signal(signal.SIGHUP)
    await nursery.start(partial(watch_signals, lambda: None, heard.set))
    with trio.fail_after(5):
        await heard.wait()
