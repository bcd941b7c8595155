"""The life of one node: open the store, look at the framework, open the faces, drain, close.

Order matters. The keeper comes first and goes last: nothing is served before the store is open, and nothing that was
acknowledged is lost when it closes. The trust mirror and the bank's connections come next, the faces last. SIGTERM drains
the faces (two-stage GOAWAY), then everything else ends by cancellation. Whatever escapes ends the process loudly: the
supervisor starts it anew from what is durable. SIGHUP reads certificates and the configuration again: a good one takes
the old one's place while requests go on, a bad one changes nothing and is told.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import trio

from hub.audit.source import LogFailedError
from hub.config import Limits, Loaded, Settings, load
from hub.edge.router import Router
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.failpoint import Failpoint, no_failpoint
from hub.model.terms import Face
from hub.node.build import Given, documents_of, prepared
from hub.node.check import check_files
from hub.node.core import forbid_core_files
from hub.node.descriptors import allow_descriptors
from hub.node.errors import StartError
from hub.node.faces import Faces, tls_of
from hub.node.generation import Generation, keeping, serving
from hub.node.memory import settle
from hub.node.ops import ops_routes
from hub.node.publish import publishing
from hub.node.pulse import guard, show_where_it_hangs
from hub.node.refusals import Refusals
from hub.node.reload import Reader, Reloads, differences, read_again, tell
from hub.node.supervise import Supervisor
from hub.node.wall import SystemDice, WallClock
from hub.node.watch import watch_files, watch_signals
from hub.node.worker import (
    Orders,
    end_with_standard_input,
    keeper_socket,
    read_orders,
    report,
    run_worker,
)
from hub.observe import Observer
from hub.state.open import SqliteKeeper, StoreError, StoreFailedError, open_keeper
from hub.state.remote import KeeperGoneError
from hub.state.socket import serve_keeper

STORE_FAILED = 5
"""Exit status when the disk broke its word: a supervisor starts the node anew from what is durable."""

TakeOver = Callable[[Given, Generation], Awaitable[Generation]]
"""Put a new generation, by new settings, in the place of the one before."""


def serve(path: Path, worker: int | None = None) -> int:
    """Run one tenant's node in the foreground; return the exit status.

    Args:
        path: The configuration.
        worker: Run the worker of this number, by orders on standard input; only the supervisor asks for that.

    Raises:
        ConfigError: The configuration, or a file that it names, is not what it should be.
        StartError: One line that says why it cannot start.
    """
    if worker is not None:
        return serve_worker(read_orders(), WallClock(), worker)
    loaded = load(path)
    check_files(loaded.settings)
    command = (*self_command(), "serve", "--config", str(path.absolute()), "--worker")
    return serve_node(loaded, WallClock(), command, lambda: load(path))


def serve_node(
    loaded: Loaded,
    clock: Clock,
    command: Sequence[str],
    read: Reader,
    failpoint: Failpoint = no_failpoint,
) -> int:
    """Run a node until it is drained; return the exit status.

    Raises:
        StartError: One line that says why it cannot start.
    """
    forbid_core_files()
    show_where_it_hangs()
    allow_descriptors(loaded.settings.limits)
    failed: list[BaseException] = []
    store_failed = False
    try:
        trio.run(
            lambda: run_node(
                loaded, clock=clock, worker_command=command, read=read, failpoint=failpoint
            )
        )
    except* StartError as group:
        failed += _leaves(group)
    except* (StoreFailedError, LogFailedError):
        store_failed = True
    if failed:
        raise failed[0]
    return STORE_FAILED if store_failed else 0


def self_command() -> tuple[str, ...]:
    """Return how to start this program again: the frozen binary, or the interpreter with the package."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    return (sys.executable, "-m", "hub")


def serve_worker(
    orders: Orders, clock: Clock, number: int, failpoint: Failpoint = no_failpoint
) -> int:
    """Run one worker until it is drained; return the exit status."""
    end_with_standard_input()
    forbid_core_files()
    show_where_it_hangs()
    allow_descriptors(orders.settings.limits)
    failed: list[BaseException] = []
    try:
        trio.run(lambda: run_worker(orders, clock=clock, number=number, failpoint=failpoint))
    except* StartError as group:
        failed += _leaves(group)
    except* KeeperGoneError as group:
        # The supervisor's process is gone or going, and this one with it: one line, no traceback.
        failed += _leaves(group)
    return report(failed[0]) if failed else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def run_node(
    loaded: Loaded,
    *,
    clock: Clock,
    dice: Dice | None = None,
    failpoint: Failpoint = no_failpoint,
    worker_command: Sequence[str] = (),
    read: Reader | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the node until SIGTERM or SIGINT has drained it.

    Args:
        loaded: Validated settings.
        clock: Wall time; the sandbox gives its own.
        dice: Randomness; the operating system's by default.
        failpoint: For crash tests; a no-op in production.
        worker_command: How a worker process is started when ``workers`` is more than one; its number is appended.
        read: Reads the configuration again at SIGHUP; without it only certificates are read again.
        task_status: Started once every face listens.

    Raises:
        StartError: A port, file or folder cannot be used; one line says which and what to do.

    Cancellation: connections are closed at once; what was acknowledged stays.
    """
    settings = loaded.settings
    observer = Observer(clock)
    try:
        async with open_keeper(
            settings.state.folder,
            clock=clock,
            limits=settings.limits,
            failpoint=failpoint,
            reserve_octets=settings.limits.reserve_octets,
        ) as keeper:
            given = Given(
                settings=settings,
                keeper=keeper,
                clock=clock,
                dice=dice or SystemDice(),
                observer=observer,
                failpoint=failpoint,
            )
            async with publishing(given) as given:
                if settings.workers == 1:
                    await _live(given, read, task_status)
                else:
                    await _supervise(given, keeper, worker_command, read, task_status)
    except StoreError as error:
        raise StartError(str(error)) from None
    finally:
        observer.close()


class Node:
    """Hold the generation in force, and put another one in its place when a new configuration is asked for."""

    def __init__(self, now: Generation, read: Reader | None) -> None:
        """Begin with the first generation; without a ``read`` there is never another one."""
        self.now = now
        self.reloads = Reloads()
        self._read = read

    def limits(self) -> Limits:
        """Return the bounds in force."""
        return self.now.given.settings.limits

    def trusted(self) -> bool:
        """Tell whether the mirror in force is good enough for reads."""
        return self.now.trust.ready()

    async def follow(self, take_over: TakeOver, nursery: trio.Nursery) -> None:
        """Take over a configuration each time one is asked for and is good, until cancelled."""
        while True:
            await self.reloads.wait()
            before = self.now
            settings = await read_again(self._read, before.given) if self._read else None
            if settings is None:
                continue
            changed = differences(settings, before.given.settings)
            given = msgspec.structs.replace(before.given, settings=settings)
            try:
                self.now = await take_over(given, before)
            except StartError as error:
                why = str(error)
                await tell(given, "configuration_kept", "configuration.refused", changed, why)
                continue
            nursery.start_soon(before.retire)
            await tell(given, "configuration_taken", "", changed)


async def _live(given: Given, read: Reader | None, task_status: trio.TaskStatus[None]) -> None:
    """Open the faces over the running parts; return when they are drained."""
    register = Refusals(
        keeper=given.keeper, clock=given.clock, dice=given.dice, observer=given.observer
    )
    faces = Faces(given.settings, given.observer, given.clock, register, register.happened)
    node = Node(serving(given), read)
    ops = Router(
        ops_routes(
            given.observer,
            readiness({"trust": node.trusted, **given.conditions}, faces),
            descriptions=documents_of(given.settings),
        )
    )

    def reload() -> None:
        faces.reload()
        node.reloads.ask()

    async with trio.open_nursery() as background:

        async def take_over(given: Given, before: Generation) -> Generation:
            tls = tls_of(given.settings)
            after = await trio.to_thread.run_sync(serving, given)
            await background.start(after.run, reload, before)
            faces.renew(given.settings, tls, after.apps)
            return after

        await background.start(watch_signals, faces.drain.start, reload)
        await background.start(node.now.run, reload)
        background.start_soon(register.run)
        background.start_soon(watch_files, faces.files, faces.reload)
        background.start_soon(node.follow, take_over, background)
        async with trio.open_nursery() as served:
            for face, app in node.now.apps.items():
                await served.start(faces.serve, face, app)
            await served.start(faces.serve, Face.OPS, ops)
            await _record(given, "started")
            settle()
            background.start_soon(guard, node.limits, given.observer)
            task_status.started()
        await _record(given, "stopped")
        background.cancel_scope.cancel()


async def _supervise(
    given: Given,
    keeper: SqliteKeeper,
    command: Sequence[str],
    read: Reader | None,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve the keeper to worker processes; return when they are drained."""
    faces = Faces(given.settings, given.observer, given.clock)
    node = Node(keeping(given), read)
    workers = Supervisor(given, command, faces.drain)
    conditions = {"trust": node.trusted, "workers": workers.ready, **given.conditions}
    ops = Router(
        ops_routes(
            given.observer,
            readiness(conditions, faces),
            workers.metrics,
            documents_of(given.settings),
        )
    )

    def reload() -> None:
        workers.reload()
        node.reloads.ask()

    async with trio.open_nursery() as background:

        async def take_over(given: Given, before: Generation) -> Generation:
            after = keeping(given)
            await trio.to_thread.run_sync(prepared, given.settings)
            await workers.replace(given.settings, background)
            await background.start(after.run, reload, before)
            return after

        await background.start(watch_signals, faces.drain.start, reload)
        await background.start(_serve_keeper, given, keeper)
        await background.start(node.now.run, reload)
        background.start_soon(node.follow, take_over, background)
        await trio.to_thread.run_sync(prepared, given.settings)
        async with trio.open_nursery() as served:
            await served.start(workers.run)
            await served.start(faces.serve, Face.OPS, ops)
            await _record(given, "started")
            settle()
            background.start_soon(guard, node.limits, given.observer)
            task_status.started()
        await _record(given, "stopped")
        background.cancel_scope.cancel()


async def _serve_keeper(
    given: Given,
    keeper: SqliteKeeper,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    path = keeper_socket(given.settings)
    await serve_keeper(keeper, path, failpoint=given.failpoint, task_status=task_status)


async def _record(given: Given, change: str) -> None:
    event = Event(
        kind=Kind.NODE,
        time_ms=given.clock.now_ms(),
        subject=version_of(given.settings),
        change=change,
    )
    loaded = Event(
        kind=Kind.CONFIGURATION,
        time_ms=given.clock.now_ms(),
        subject=sha256(msgspec.json.encode(given.settings, enc_hook=str)).hexdigest(),
        change="start",
    )
    events = (event, loaded) if change == "started" else (event,)
    await given.keeper.commit((), events)
    given.observer.note(change)


def version_of(settings: Settings) -> str:
    """Return what the start event names: provider and environment."""
    return f"{settings.tenant.provider_id}/{settings.tenant.environment}"


def readiness(
    conditions: Mapping[str, Callable[[], bool]], faces: Faces
) -> Callable[[], Mapping[str, bool]]:
    """Return the conditions of ``/readyz``: those of the parts, and that nothing drains."""

    def now() -> dict[str, bool]:
        holds = {name: condition() for name, condition in conditions.items()}
        return {**holds, "serving": not faces.drain.started}

    return now
