"""The operator's socket: ``hub admin`` speaks here to the keeper's process; each command is an event.

A Unix stream socket of mode 0600 in the tenant's folder; the peer's user must be ours (SO_PEERCRED). One JSON object per
line, each answered by one: ``{"do": "activate", "client": "...", "level": "all"}`` gets ``{"ok": true, ...}`` or
``{"ok": false, "error": "...", "check": "..."}``. Commands are a table, so that other packages can add theirs.
"""

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import trio

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.records import Registration
from hub.model.terms import Face
from hub.state.keeper import Keeper, Query
from hub.trust.registration import Act, Actor, Level, act_on, activate_all
from hub.trust.trust import Trust

Command = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]

_LINE: Final = 65_536
_IDLE_S: Final = 60.0
_PEERS: Final = 16


def trust_commands(
    *, trust: Trust, keeper: Keeper, clock: Clock, dice: Dice
) -> Mapping[str, Command]:
    """Return the commands of this package: ``registrations``, ``activate``, ``block``, ``unblock``, ``resync``, ``trust``."""

    async def act(asked: Mapping[str, Any], what: Act) -> dict[str, Any]:
        client, level = asked.get("client"), asked.get("level", "all")
        if not isinstance(client, str) or level not in {"all", *Level}:
            return _no("expected client and level: all, tpp, statement or client")
        actor = Actor(face=Face.OPS, route=f"admin.{what}", interaction_id=dice.uuid())
        if what is Act.ACTIVATE and level == "all":
            done = await activate_all(keeper, clock, client, actor)
        elif level == "all":
            return _no(f"{what} one level at a time: tpp, statement or client")
        else:
            done = await act_on(keeper, clock, client, Level(level), what, actor)
        if isinstance(done, Fault):
            return _no(done.public) | {"check": done.check}
        return {"ok": True, "registration": _shown(done)}

    async def registrations(_asked: Mapping[str, Any]) -> dict[str, Any]:
        page = await keeper.search(Query(kind="registration", limit=1000, count=True))
        rows = [i.record for i in page.items]
        shown = [_shown(row) for row in rows if isinstance(row, Registration)]
        await _told(keeper, clock, dice, "admin.registrations")
        return {"ok": True, "registrations": shown, "total": page.total}

    async def resync(_asked: Mapping[str, Any]) -> dict[str, Any]:
        problem = await trust.refresh()
        await _told(keeper, clock, dice, "admin.resync", problem)
        return {"ok": not problem, "error": problem} if problem else {"ok": True}

    async def status(_asked: Mapping[str, Any]) -> dict[str, Any]:
        await _told(keeper, clock, dice, "admin.trust")
        return {"ok": True, "trust": trust.status()}

    return {
        "registrations": registrations,
        "activate": lambda asked: act(asked, Act.ACTIVATE),
        "block": lambda asked: act(asked, Act.BLOCK),
        "unblock": lambda asked: act(asked, Act.UNBLOCK),
        "resync": resync,
        "trust": status,
    }


async def _told(keeper: Keeper, clock: Clock, dice: Dice, route: str, problem: str = "") -> None:
    """Make the event of a command that changes no record."""
    event = Event(
        kind=Kind.ADMIN,
        time_ms=clock.now_ms(),
        interaction_id=dice.uuid(),
        face=Face.OPS,
        route=route,
        verdict=Verdict.FAILED if problem else Verdict.ALLOWED,
        check="trust.refresh" if problem else "",
    )
    await keeper.commit([], [event])


def _shown(registration: Registration) -> dict[str, Any]:
    return msgspec.to_builtins(registration)  # type: ignore[no-any-return]


def _no(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


async def serve_admin(
    path: Path,
    commands: Mapping[str, Command],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the operator's socket until cancelled; a stale socket file of an earlier run is replaced.

    Raises:
        OSError: The socket cannot be bound.

    Cancellation: closes the socket and removes its file.
    """
    listening = trio.socket.from_stdlib_socket(_bound(path))
    room = trio.CapacityLimiter(_PEERS)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                peer, _ = await listening.accept()
                nursery.start_soon(_session, trio.SocketStream(peer), commands, room)
    finally:
        listening.close()
        _remove(path)


def _bound(path: Path) -> socket.socket:
    """Return a listening socket whose file is its owner's only from its first moment."""
    _remove(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    listening.listen(_PEERS)
    return listening


def _remove(path: Path) -> None:
    """Remove a socket of an earlier run; anything else in its place is left alone."""
    if path.is_socket():
        path.unlink()


async def _session(
    stream: trio.SocketStream, commands: Mapping[str, Command], room: trio.CapacityLimiter
) -> None:
    async with stream, room:
        if _user_of(stream) != os.getuid():
            return
        held = b""
        with trio.move_on_after(_IDLE_S) as patience:
            while b"\n" in held or (piece := await _received(stream)):
                held = held if b"\n" in held else held + piece
                line, newline, rest = held.partition(b"\n")
                if not newline:
                    if len(held) > _LINE:
                        return
                    continue
                held = rest
                answer = await _answered(line, commands)
                patience.deadline = trio.current_time() + _IDLE_S
                await _sent(stream, orjson.dumps(answer) + b"\n")


async def _received(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some(_LINE))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


async def _sent(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _answered(line: bytes, commands: Mapping[str, Command]) -> dict[str, Any]:
    try:
        asked = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _no("expected one JSON object per line")
    command = commands.get(str(asked.get("do", ""))) if isinstance(asked, dict) else None
    if command is None:
        return _no(f"unknown command; expected one of {', '.join(sorted(commands))}")
    return await command(asked)


def _user_of(stream: trio.SocketStream) -> int:
    """Return the user id of the process at the other end."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
