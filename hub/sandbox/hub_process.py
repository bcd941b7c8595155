"""The Hub's own process in the sandbox: ``python -m hub.sandbox.hub_process HUB_TOML CLOCK``.

It runs the same node from the same kind of configuration as ``hub serve``; the only differences are the clock, which
the world shares, and failpoints. It refuses any configuration that is not a sandbox's, so neither can reach a
production tenant. Its standard input is a pipe that the world holds open: when the world is gone, however it went,
the pipe ends and so does the Hub.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from hub.config import ConfigError, Loaded, load
from hub.node.check import check_files
from hub.node.errors import StartError
from hub.node.run import serve_node, serve_worker
from hub.node.worker import read_orders
from hub.sandbox.clock import SharedClock
from hub.sandbox.failpoints import VARIABLE, failpoint_of

GRACE_S: Final = 15.0
"""From the world's end to ours, if draining takes its time."""


def main(arguments: list[str]) -> int:
    """Run the node until SIGTERM or until the world is gone; return the exit status."""
    if len(arguments) not in {2, 3}:
        sys.stderr.write("usage: python -m hub.sandbox.hub_process HUB_TOML CLOCK [WORKER]\n")
        return 2
    if len(arguments) == 2:
        _end_with_the_world()
    failed: list[str] = []
    status = 0
    try:
        status = _run(*arguments)
    except* (ConfigError, StartError) as group:
        failed += _lines(group)
    for line in failed:
        sys.stderr.write(f"hub: {line}\n")
    return 1 if failed else status


def _run(configuration: str, shared: str, worker: str = "") -> int:
    path = Path(configuration)
    orders = read_orders() if worker else None
    loaded = load(path) if orders is None else Loaded(orders.settings, {})
    if loaded.settings.tenant.environment != "sandbox":
        raise ConfigError("tenant.environment: this process runs sandboxes only; use hub serve")
    try:
        clock = SharedClock.open(Path(shared))
    except (OSError, ValueError) as error:
        raise StartError(f"the sandbox's clock cannot be opened: {error}") from None
    failpoint = failpoint_of(os.environ.get(VARIABLE, ""))
    if orders is not None:
        return serve_worker(orders, clock, int(worker), failpoint)
    check_files(loaded.settings)
    command = (*hub_command(), configuration, shared)
    return serve_node(loaded, clock, command, lambda: load(path), failpoint)


def hub_command() -> tuple[str, ...]:
    """Return how this process is started, without its arguments; the frozen binary takes ``-m hub...`` too."""
    return (sys.executable, "-m", "hub.sandbox.hub_process")


def _lines(group: BaseExceptionGroup[BaseException]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _lines(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


def _end_with_the_world() -> None:
    """Watch standard input; at its end ask this process to end, and insist after ``GRACE_S``."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="world", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
