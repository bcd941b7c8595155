"""Notice changed certificate files, and the signals that ask for the end or for a reload."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Final

import trio

LOOK_S: Final = 1.0
"""Seconds between looks at the files' times: a rotation is seen within a second (reliability C5)."""


async def watch_files(files: Callable[[], Sequence[str]], changed: Callable[[], None]) -> None:
    """Call ``changed`` after any of the ``files`` (asked for at each look) has changed and kept still for one look. Runs until cancelled."""
    known = _stamps(files())
    pending = known
    while True:
        await trio.sleep(LOOK_S)
        seen = _stamps(files())
        if seen != known and seen == pending:
            known = seen
            changed()
        pending = seen


def _stamps(files: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    stamps = []
    for name in files:
        try:
            found = os.stat(name)  # noqa: PTH116 - cheap, each second
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return tuple(stamps)


def hold_reloads() -> None:
    """Have a SIGHUP wait until ``watch_signals`` can take it: while a node starts, it would end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))


async def watch_signals(
    drain: Callable[[], None],
    reload: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call ``drain`` at SIGTERM and SIGINT, ``reload`` at SIGHUP. Runs until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                reload()
            else:
                drain()
