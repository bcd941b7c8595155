"""``hub sandbox up``: start the world, tell the journey, stay until Ctrl-C."""

import signal
from collections.abc import Callable
from typing import Final

import click
import trio

from hub.node.errors import StartError
from hub.sandbox.journey import run_journey
from hub.sandbox.manifest import MANIFEST_NAME, SandboxOptions
from hub.sandbox.world import World, run_world

INTERRUPTED: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(options: SandboxOptions, tell: Callable[[str], object] = click.echo) -> int:
    """Run a sandbox until it is asked to end; return the exit status.

    Returns:
        0 after Ctrl-C, SIGTERM or ``stop``; with ``exit_after_journey`` the journey's result; 130 if interrupted
        before the world was up.

    Raises:
        StartError: One line that says why it cannot start, or why it ended, and what to do.
    """
    failed: list[StartError] = []
    status = 0
    try:
        status = trio.run(_live, options, tell)
    except* StartError as group:
        failed += _leaves(group)
    if failed:
        raise failed[0]
    return status


def _leaves(group: BaseExceptionGroup[StartError]) -> list[StartError]:
    found: list[StartError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _live(options: SandboxOptions, tell: Callable[[str], object]) -> int:
    status = INTERRUPTED
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_by_signal, nursery.cancel_scope.cancel)

        async def world_of(*, task_status: trio.TaskStatus[World]) -> None:
            await run_world(options, tell=tell, task_status=task_status)
            nursery.cancel_scope.cancel()

        world = await nursery.start(world_of)
        tell(f"The sandbox is up after {trio.current_time() - began:.1f} s.")
        folder = world.places.folder
        if options.exit_after_journey:
            status = await _travel(options, world, tell)
            nursery.cancel_scope.cancel()
        else:
            status = 0
            if options.journey:
                await _travel(options, world, tell)
            tell(f"An outside client finds everything in {folder / MANIFEST_NAME}")
            tell("The sandbox stays up; Ctrl-C ends it.")
    return status


async def _travel(options: SandboxOptions, world: World, tell: Callable[[str], object]) -> int:
    if options.bank_url:
        tell("No journey is told: only you know your bank's pages and customers.")
        return 0
    folder = world.places.folder
    return (
        await run_journey(folder, tell=tell)
        or await run_journey(folder, payment=True, tell=tell)
        or await run_journey(folder, plans=True, tell=tell)
        or await run_journey(folder, approvers=True, tell=tell)
        or await run_journey(folder, revoke=True, tell=tell)
    )


async def _end_by_signal(end: Callable[[], object]) -> None:
    """Call ``end`` at each signal that asks for the end."""
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async for _ in signals:
            end()
