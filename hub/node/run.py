"""The life of one node: open the store, look at the framework, open the faces, drain, close.

Order matters. The keeper comes first and goes last: nothing is served before the store is open, and nothing that was
acknowledged is lost when it closes. The trust mirror and the bank's connections come next, the faces last. SIGTERM drains
the faces (two-stage GOAWAY), then everything else ends by cancellation. Whatever escapes ends the process loudly: the
supervisor starts it anew from what is durable.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from hub.config import Loaded, Settings
from hub.edge.router import Router
from hub.lfi.sweep import sweep
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.failpoint import Failpoint, no_failpoint
from hub.model.terms import Face
from hub.node.build import Given, Parts, build, trust_of
from hub.node.check import check_files
from hub.node.errors import StartError
from hub.node.faces import Faces
from hub.node.operate import listen_to_operator
from hub.node.ops import ops_routes
from hub.node.supervise import Supervisor
from hub.node.telling import outbox_of, tell_others
from hub.node.wall import SystemDice, WallClock
from hub.node.watch import watch_files, watch_signals
from hub.node.worker import end_with_standard_input, keeper_socket, report, run_worker
from hub.observe import Observer
from hub.state.open import SqliteKeeper, StoreError, StoreFailedError, open_keeper
from hub.state.socket import serve_keeper

STORE_FAILED = 5
"""Exit status when the disk broke its word: a supervisor starts the node anew from what is durable."""


def serve(loaded: Loaded, path: Path, worker: int | None = None) -> int:
    """Run one tenant's node in the foreground; return the exit status.

    Args:
        loaded: Validated settings.
        path: Where they came from; workers read it again.
        worker: Run the worker of this number instead; only the supervisor asks for that.

    Raises:
        ConfigError: A file that the settings name is not what it should be.
        StartError: One line that says why it cannot start.
    """
    if worker is not None:
        return serve_worker(loaded, WallClock(), worker)
    check_files(loaded.settings)
    command = (*self_command(), "serve", "--config", str(path.absolute()), "--worker")
    failed: list[BaseException] = []
    store_failed = False
    try:
        trio.run(lambda: run_node(loaded, clock=WallClock(), worker_command=command))
    except* StartError as group:
        failed += _leaves(group)
    except* StoreFailedError:
        store_failed = True
    if failed:
        raise failed[0]
    return STORE_FAILED if store_failed else 0


def self_command() -> tuple[str, ...]:
    """Return how to start this program again: the frozen binary, or the interpreter with the package."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    return (sys.executable, "-m", "hub")


def serve_worker(loaded: Loaded, clock: Clock, number: int) -> int:
    """Run one worker until it is drained; return the exit status."""
    end_with_standard_input()
    failed: list[BaseException] = []
    try:
        trio.run(lambda: run_worker(loaded, clock=clock, number=number))
    except* StartError as group:
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
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the node until SIGTERM or SIGINT has drained it.

    Args:
        loaded: Validated settings.
        clock: Wall time; the sandbox gives its own.
        dice: Randomness; the operating system's by default.
        failpoint: For crash tests; a no-op in production.
        worker_command: How a worker process is started when ``workers`` is more than one; its number is appended.
        task_status: Started once every face listens.

    Raises:
        StartError: A port, file or folder cannot be used; one line says which and what to do.

    Cancellation: connections are closed at once; what was acknowledged stays.
    """
    settings = loaded.settings
    observer = Observer(clock)
    try:
        async with open_keeper(
            settings.state.folder, clock=clock, limits=settings.limits, failpoint=failpoint
        ) as keeper:
            given = Given(
                settings=settings,
                keeper=keeper,
                clock=clock,
                dice=dice or SystemDice(),
                observer=observer,
                failpoint=failpoint,
            )
            if settings.workers == 1:
                await _live(given, build(given), task_status)
            else:
                await _supervise(given, keeper, worker_command, task_status)
    except StoreError as error:
        raise StartError(str(error)) from None
    finally:
        observer.close()


async def _live(given: Given, parts: Parts, task_status: trio.TaskStatus[None]) -> None:
    """Open the faces over the running parts; return when they are drained."""
    faces = Faces(given.settings, given.observer, given.clock)
    ops = Router(ops_routes(given.observer, readiness({"trust": parts.trust.ready}, faces)))
    async with trio.open_nursery() as background:
        await background.start(watch_signals, faces.drain.start, faces.reload)
        await background.start(parts.trust.run)
        await background.start(parts.bank.run)
        await background.start(sweep, given.keeper, given.clock, given.dice, given.observer)
        await background.start(outbox_of(given, parts.bank, parts.trust).run)
        await background.start(listen_to_operator, given, parts.trust, faces.reload)
        background.start_soon(watch_files, faces.files(), faces.reload)
        async with trio.open_nursery() as served:
            for face, app in parts.apps.items():
                await served.start(faces.serve, face, app)
            await served.start(faces.serve, Face.OPS, ops)
            await _record(given, "started")
            task_status.started()
        await _record(given, "stopped")
        background.cancel_scope.cancel()


async def _supervise(
    given: Given,
    keeper: SqliteKeeper,
    command: Sequence[str],
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve the keeper to worker processes; return when they are drained."""
    faces = Faces(given.settings, given.observer, given.clock)
    trust = trust_of(given)
    workers = Supervisor(given, command, faces.drain)
    conditions = {"trust": trust.ready, "workers": workers.ready}
    ops = Router(ops_routes(given.observer, readiness(conditions, faces), workers.metrics))
    async with trio.open_nursery() as background:
        await background.start(watch_signals, faces.drain.start, workers.reload)
        await background.start(serve_keeper, keeper, keeper_socket(given.settings))
        await background.start(trust.run)
        await background.start(sweep, keeper, given.clock, given.dice, given.observer)
        await background.start(tell_others, given, trust)
        await background.start(listen_to_operator, given, trust, workers.reload)
        async with trio.open_nursery() as served:
            await served.start(workers.run)
            await served.start(faces.serve, Face.OPS, ops)
            await _record(given, "started")
            task_status.started()
        await _record(given, "stopped")
        background.cancel_scope.cancel()


async def _record(given: Given, change: str) -> None:
    event = Event(
        kind=Kind.NODE,
        time_ms=given.clock.now_ms(),
        subject=version_of(given.settings),
        change=change,
    )
    await given.keeper.commit((), (event,))
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
