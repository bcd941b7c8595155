"""The operator's socket: ``hub admin`` speaks here to the keeper's process; each command is an event.

A Unix stream socket of mode 0600 in the tenant's folder; the peer's user must be ours (SO_PEERCRED). One JSON object per
line, each answered by one: ``{"do": "activate", "client": "...", "level": "all"}`` gets ``{"ok": true, ...}`` or
``{"ok": false, "error": "...", "check": "..."}``. Commands are a table (name to an async function of the request's
members), so that other packages add theirs where the node puts the tables together (``hub.node.operate``); the portal
calls the same functions.
"""

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import msgspec
import orjson
import trio

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.records import Registration
from hub.model.terms import Face
from hub.state.accepting import accepted
from hub.state.address import address_of
from hub.state.keeper import Keeper, Query
from hub.trust.registration import Act, Actor, Level, act_on, activate_all
from hub.trust.trust import Trust

Reply = Mapping[str, Any]
"""What a command answers: members beside ``ok``; with ``error`` (and ``check``) it was not carried out."""
Command = Callable[[Mapping[str, Any]], Awaitable[Reply]]
"""Carries out one request; it is given its members and the ``interaction_id`` for the events it makes."""

_LINE: Final = 65_536
_IDLE_S: Final = 60.0
_PEERS: Final = 16


def trust_commands(*, trust: Trust, keeper: Keeper, clock: Clock) -> dict[str, Command]:
    """Return the commands of this package: registrations and their levels, the framework, what ends soon."""

    async def act(asked: Mapping[str, Any], what: Act) -> Reply:
        client, level = asked.get("client"), asked.get("level", "all")
        known = isinstance(level, str) and level in {"all", *Level}
        if not isinstance(client, str) or not known:
            return refusal("expected client and level: all, tpp, statement or client")
        actor = Actor(
            face=Face.OPS, route=f"admin.{what}", interaction_id=str(asked.get("interaction_id"))
        )
        if what is Act.ACTIVATE and level == "all":
            done = await activate_all(keeper, clock, client, actor)
        elif level == "all":
            return refusal(f"{what} one level at a time: tpp, statement or client")
        else:
            done = await act_on(keeper, clock, client, Level(level), what, actor)
        if isinstance(done, Fault):
            return refusal(done.public, done.check)
        return {"registration": _shown(done)}

    async def registrations(_asked: Mapping[str, Any]) -> Reply:
        page = await keeper.search(Query(kind="registration", limit=1000, count=True))
        rows = [i.record for i in page.items if isinstance(i.record, Registration)]
        return {"registrations": [_explained(trust, row) for row in rows], "total": page.total}

    async def resync(_asked: Mapping[str, Any]) -> Reply:
        problem = await trust.refresh()
        return refusal(problem, "trust.refresh") if problem else {}

    async def status(_asked: Mapping[str, Any]) -> Reply:
        return {"trust": trust.status()}

    async def expiries(_asked: Mapping[str, Any]) -> Reply:
        return {"expiries": msgspec.to_builtins(trust.expiries())}

    return {
        "registrations": registrations,
        "activate": lambda asked: act(asked, Act.ACTIVATE),
        "block": lambda asked: act(asked, Act.BLOCK),
        "unblock": lambda asked: act(asked, Act.UNBLOCK),
        "resync": resync,
        "trust": status,
        "expiries": expiries,
    }


def _explained(trust: Trust, registration: Registration) -> dict[str, Any]:
    """Return a registration with the check that keeps it out now, empty for none."""
    fault = trust.explain(registration.client_id)
    return _shown(registration) | {"check": fault.check if fault else ""}


@final
class Office:
    """Carry commands out, each with its event."""

    def __init__(
        self, commands: Mapping[str, Command], *, keeper: Keeper, clock: Clock, dice: Dice
    ) -> None:
        """Take the table of commands, and what events are made with."""
        self._commands = dict(commands)
        self._keeper = keeper
        self._clock = clock
        self._dice = dice

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Answer one line; whatever it asked for, and however that ended, is an event (kind ``admin``).

        Cancellation: the command may have been carried out without this event; what it changed has its own.
        """
        try:
            asked = orjson.loads(line)
        except orjson.JSONDecodeError:
            asked = None
        name = str(asked.get("do", "")) if isinstance(asked, dict) else ""
        command = self._commands.get(name)
        if not isinstance(asked, dict):
            reply = refusal("expected one JSON object per line", "admin.malformed")
        elif command is None:
            known = ", ".join(sorted(self._commands))
            reply = refusal(f"unknown command; expected one of {known}", "admin.unknown")
        else:
            asked["interaction_id"] = self._dice.uuid()
            reply = await command(asked)
        told = await self._tell(name if command else "unknown", asked or {}, reply)
        if isinstance(told, Fault):
            reply = refusal(
                f"the event of this command could not be kept: {told.public}", told.check
            )
        return {"ok": "error" not in reply} | dict(reply)

    async def _tell(self, name: str, asked: object, reply: Reply) -> object:
        members = asked if isinstance(asked, dict) else {}
        subject = members.get("client") or members.get("consent") or members.get("subject") or ""
        event = Event(
            kind=Kind.ADMIN,
            time_ms=self._clock.now_ms(),
            interaction_id=str(members.get("interaction_id") or self._dice.uuid()),
            face=Face.OPS,
            route=f"admin.{name}",
            subject=str(subject)[:64],
            change=str(members.get("level") or "")[:64],
            verdict=Verdict.REFUSED if "error" in reply else Verdict.ALLOWED,
            check=str(reply.get("check") or ""),
        )
        return await self._keeper.commit([], [event])


def _shown(registration: Registration) -> dict[str, Any]:
    return msgspec.to_builtins(registration)  # type: ignore[no-any-return]


def refusal(error: str, check: str = "") -> Reply:
    """Return the reply of a command that was not carried out, and the name of the check that says so."""
    return {"error": error, "check": check or "admin.arguments"}


async def serve_admin(
    path: Path,
    office: Office,
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
                peer = await accepted(listening)
                nursery.start_soon(_session, trio.SocketStream(peer), office, room)
    finally:
        listening.close()
        _remove(path)


def _bound(path: Path) -> socket.socket:
    """Return a listening socket whose file is its owner's only from its first moment."""
    _remove(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with address_of(path) as address:
            listening.bind(address)
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


async def _session(stream: trio.SocketStream, office: Office, room: trio.CapacityLimiter) -> None:
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
                answer = await office.answer(line)
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


def _user_of(stream: trio.SocketStream) -> int:
    """Return the user id of the process at the other end."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
