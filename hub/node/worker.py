"""One gateway worker: the TPP and LFI faces over a keeper that lives in another process.

A worker holds nothing but caches. It listens on the same ports as its siblings (SO_REUSEPORT), asks the keeper over
its Unix socket, follows the trust snapshot that the keeper's process writes, and ends when its standard input does:
nobody outlives the supervisor. Once it serves, it offers its metrics on ``worker-N.sock``; the supervisor reads
readiness from that.
"""

import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

import trio

from hub.config import Loaded, Settings
from hub.model.clock import Clock
from hub.model.failpoint import Failpoint, no_failpoint
from hub.node.build import Given, build
from hub.node.errors import StartError
from hub.node.faces import Faces
from hub.node.wall import SystemDice
from hub.node.watch import watch_files, watch_signals
from hub.observe import Observer
from hub.state.remote import connect_keeper
from hub.state.schema import StoreError


def keeper_socket(settings: Settings) -> Path:
    """Return where the keeper answers workers."""
    return settings.state.socket or settings.state.folder / "keeper.sock"


def worker_socket(settings: Settings, number: int) -> Path:
    """Return where a worker offers its metrics."""
    return settings.state.folder / f"worker-{number}.sock"


def end_with_standard_input() -> None:
    """End this process at once when its standard input ends: the supervisor is gone."""

    def watch() -> None:
        while os.read(0, 64):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


async def run_worker(
    loaded: Loaded, *, clock: Clock, number: int, failpoint: Failpoint = no_failpoint
) -> None:
    """Serve until SIGTERM has drained the faces.

    Raises:
        StartError: A port, file or the keeper cannot be used; one line says which.

    Cancellation: connections are closed at once.
    """
    settings = loaded.settings
    observer = Observer(clock)
    try:
        async with connect_keeper(keeper_socket(settings)) as keeper:
            given = Given(
                settings=settings,
                keeper=keeper,
                clock=clock,
                dice=SystemDice(),
                observer=observer,
                failpoint=failpoint,
            )
            await _live(given, number)
    except StoreError as error:
        raise StartError(str(error)) from None
    finally:
        observer.close()


async def _live(given: Given, number: int) -> None:
    settings = given.settings
    parts = build(given, leader=False)
    faces = Faces(settings, given.observer, given.clock)
    async with trio.open_nursery() as background:
        await background.start(watch_signals, faces.drain.start, faces.reload)
        await background.start(parts.trust.run)
        await background.start(parts.bank.run)
        background.start_soon(watch_files, faces.files(), faces.reload)
        async with trio.open_nursery() as served:
            for face, app in parts.apps.items():
                await served.start(
                    lambda face=face, app=app, **kw: faces.serve(face, app, reuse_port=True, **kw)
                )
            background.start_soon(_offer_metrics, worker_socket(settings, number), given.observer)
        background.cancel_scope.cancel()


async def _offer_metrics(path: Path, observer: Observer) -> None:
    """Answer each connection with the metrics, until cancelled."""
    listener = _listen(path)
    try:
        while True:
            connection, _ = await listener.accept()
            stream = trio.SocketStream(connection)
            with trio.move_on_after(2.0), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(observer.exposition())
            await trio.aclose_forcefully(stream)
    finally:
        listener.close()
        _remove(path)


def _listen(path: Path) -> trio.socket.SocketType:
    _remove(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)
    return trio.socket.from_stdlib_socket(listener)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def report(error: BaseException) -> int:
    """Write why a worker could not start to standard error; return its exit status."""
    sys.stderr.write(f"hub worker: {error}\n")
    return 4
