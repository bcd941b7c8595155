"""One gateway worker: the TPP and LFI faces over a keeper that lives in another process.

A worker holds nothing but caches. Its orders come as one line on standard input: the settings, and the sockets that it
has inherited for each face (its own among those of its siblings on one port, SO_REUSEPORT). It asks the keeper over its
Unix socket, answers 503 while it has no lease, follows the trust snapshot that the keeper's process writes, and ends
when its standard input does: nobody outlives the supervisor. Once it serves, it offers its metrics on a socket named
after its number and process; the supervisor reads readiness from that. From then on it beats (``pulse``).
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from hub.config import Settings
from hub.model.clock import Clock
from hub.model.failpoint import Failpoint, no_failpoint
from hub.model.terms import Face
from hub.node.build import Given, build
from hub.node.errors import StartError
from hub.node.faces import Faces
from hub.node.leased import Leased
from hub.node.memory import settle
from hub.node.pulse import beat
from hub.node.refusals import Refusals
from hub.node.wall import SystemDice
from hub.node.watch import watch_files, watch_signals
from hub.observe import Observer
from hub.state.accepting import accepted
from hub.state.address import address_of
from hub.state.remote import connect_keeper
from hub.state.schema import StoreError


def keeper_socket(settings: Settings) -> Path:
    """Return where the keeper answers workers."""
    return settings.state.socket or settings.state.folder / "keeper.sock"


def worker_socket(settings: Settings, number: int, pid: int) -> Path:
    """Return where a worker offers its metrics."""
    return settings.state.folder / f"worker-{number}-{pid}.sock"


class Orders(msgspec.Struct, frozen=True):
    """Hold what a worker is told: the settings in force, and what it inherits: its socket of each face, and where it beats."""

    settings: Settings
    sockets: dict[Face, int]
    pulse: int


_ORDERS_OCTETS: Final = 1_048_576


def orders_line(orders: Orders) -> bytes:
    """Return orders as they are given."""
    return msgspec.json.encode(orders, enc_hook=str) + b"\n"


def read_orders() -> Orders:
    """Read orders from standard input, and not an octet more.

    Raises:
        StartError: There are none.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        data = os.read(0, _ORDERS_OCTETS)
        line += data
        if not data or len(line) > _ORDERS_OCTETS:
            raise StartError("a worker is started by its supervisor only")
    try:
        return msgspec.json.decode(line, type=Orders, dec_hook=_path)
    except msgspec.MsgspecError as error:
        raise StartError(f"the supervisor's orders make no sense: {error}") from None


def _path(kind: type, value: object) -> Any:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)


def end_with_standard_input() -> None:
    """End this process at once when its standard input ends: the supervisor is gone."""

    def watch() -> None:
        while os.read(0, 64):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


async def run_worker(
    orders: Orders, *, clock: Clock, number: int, failpoint: Failpoint = no_failpoint
) -> None:
    """Serve until SIGTERM has drained the faces.

    Raises:
        StartError: A port, file or the keeper cannot be used; one line says which.

    Cancellation: connections are closed at once.
    """
    settings = orders.settings
    observer = Observer(clock)
    try:
        async with connect_keeper(keeper_socket(settings), failpoint=failpoint) as keeper:
            given = Given(
                settings=settings,
                keeper=keeper,
                clock=clock,
                dice=SystemDice(),
                observer=observer,
                failpoint=failpoint,
            )
            await _live(given, number, keeper.fresh, orders)
    except StoreError as error:
        raise StartError(str(error)) from None
    finally:
        observer.close()


async def _live(given: Given, number: int, fresh: Callable[[], bool], orders: Orders) -> None:
    settings = given.settings
    parts = build(given, leader=False)
    register = Refusals(
        keeper=given.keeper, clock=given.clock, dice=given.dice, observer=given.observer
    )
    faces = Faces(settings, given.observer, given.clock, register, register.happened)
    offered = worker_socket(settings, number, os.getpid())
    async with trio.open_nursery() as background:
        await background.start(watch_signals, faces.drain.start, faces.reload)
        await background.start(parts.trust.run)
        await background.start(parts.bank.run)
        background.start_soon(parts.shadow.run)
        background.start_soon(register.run)
        background.start_soon(watch_files, faces.files, faces.reload)
        async with trio.open_nursery() as served:
            for face, app in parts.apps.items():
                inherited = socket.socket(fileno=orders.sockets[face])
                await served.start(
                    partial(faces.serve, face, Leased(app, fresh), listening=inherited)
                )
            settle()
            background.start_soon(_offer_metrics, offered, given.observer)
            background.start_soon(beat, orders.pulse)
        background.cancel_scope.cancel()


async def _offer_metrics(path: Path, observer: Observer) -> None:
    """Answer each connection with the metrics, until cancelled."""
    listener = _listen(path)
    try:
        while True:
            connection = await accepted(listener)
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
    with address_of(path) as address:
        listener.bind(address)
    path.chmod(0o600)
    listener.listen(8)
    return trio.socket.from_stdlib_socket(listener)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def report(error: BaseException) -> int:
    """Write why a worker could not start to standard error; return its exit status."""
    sys.stderr.write(f"hub worker: {error}\n")
    return 4
