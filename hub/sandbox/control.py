"""The control socket of a running sandbox: one JSON object per line, each answered by one (see ``manifest``)."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from hub.node.errors import StartError
from hub.sandbox.clock import SharedClock
from hub.state.address import address_of

CONTROL_PATH: Final = Path("run/control.sock")
"""Below the sandbox's folder; also in ``sandbox.json``."""
LINE_OCTETS: Final = 4096
IDLE_S: Final = 60.0
CALL_S: Final = 5.0
MOST_S: Final = 400 * 86_400
"""The furthest one request may move the clock, in seconds."""

Answer = dict[str, Any]


class ControlError(Exception):
    """Say in one line what was refused."""


Action = Callable[[dict[str, Any]], Answer]
"""Answer one request: return the members beside ``ok``, or raise ``ControlError`` to refuse."""


def world_actions(clock: SharedClock, stop: Callable[[], None]) -> dict[str, Action]:
    """Return what every world can do: ``time`` and ``stop``."""

    def move_time(request: dict[str, Any]) -> Answer:
        seconds = request.get("add", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ControlError("add: expected a number of seconds")
        if not -MOST_S <= seconds <= MOST_S:
            raise ControlError(f"add: expected at most {MOST_S} seconds either way")
        clock.move(seconds)
        return {"now": clock.now(), "offset": clock.offset_ms / 1000}

    def end(_request: dict[str, Any]) -> Answer:
        stop()
        return {}

    return {"time": move_time, "stop": end}


async def serve_control(
    path: Path,
    actions: dict[str, Action],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the control socket (mode 0600) until cancelled; then remove it.

    Cancellation: closes the socket and its connections, and removes the file.
    """
    listener = _listen(path)
    try:
        async with trio.open_nursery() as nursery:

            async def converse(stream: trio.SocketStream) -> None:
                async with stream:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await _converse(stream, actions)

            nursery.start_soon(trio.serve_listeners, converse, [listener])
            task_status.started()
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(path: Path) -> trio.SocketListener:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux the file takes the socket's own mode, so it is 0600 from its first moment.
        os.fchmod(own.fileno(), 0o600)
        with address_of(path) as address:
            own.bind(address)
        own.listen(8)
    except OSError:
        own.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(own))


async def _converse(stream: trio.SocketStream, actions: dict[str, Action]) -> None:
    pending = b""
    while True:
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            await stream.send_all(_answer(line, actions))
        if len(pending) > LINE_OCTETS:
            await stream.send_all(_refusal(f"a request is at most {LINE_OCTETS} octets"))
            return
        with trio.move_on_after(IDLE_S) as waiting:
            pending += (piece := await stream.receive_some(LINE_OCTETS))
        if waiting.cancelled_caught or not piece:
            return


def _answer(line: bytes, actions: dict[str, Action]) -> bytes:
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return _refusal("expected one JSON object per line")
    action = actions.get(str(request.get("do")))
    if action is None:
        return _refusal(f"unknown request; expected do: {', '.join(sorted(actions))}")
    try:
        return msgspec.json.encode({"ok": True, **action(request)}) + b"\n"
    except ControlError as error:
        return _refusal(str(error))


def _refusal(why: str) -> bytes:
    return msgspec.json.encode({"ok": False, "error": why}) + b"\n"


async def ask(folder: Path, request: dict[str, Any]) -> Answer:
    """Send one request to the sandbox that runs on a folder and return its answer, ``ok`` included.

    Args:
        folder: The sandbox's folder (``--dir``).
        request: A JSON object with ``do``.

    Raises:
        StartError: No sandbox is running there, or it did not answer within ``CALL_S`` seconds.

    Cancellation: harmless; the request may or may not have been done.
    """
    path = folder / CONTROL_PATH
    own = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        async with trio.SocketStream(own) as stream:
            with trio.fail_after(CALL_S), address_of(path) as address:
                await own.connect(address)
                await stream.send_all(msgspec.json.encode(request) + b"\n")
                return msgspec.json.decode(await _line(stream), type=Answer)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, msgspec.DecodeError):
        raise StartError(f"{folder}: no sandbox runs there; start one with: hub sandbox") from None


async def _line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (piece := await stream.receive_some(LINE_OCTETS)):
        line += piece
    return line
