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

import trio

from hub.config import ConfigError, Loaded, load
from hub.node.errors import StartError
from hub.node.run import run_node
from hub.sandbox.clock import SharedClock

GRACE_S: Final = 15.0
"""From the world's end to ours, if draining takes its time."""


def main(arguments: list[str]) -> int:
    """Run the node until SIGTERM or until the world is gone; return the exit status."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m hub.sandbox.hub_process HUB_TOML CLOCK\n")
        return 2
    _end_with_the_world()
    try:
        loaded = load(Path(arguments[0]))
        _sandbox_only(loaded)
        clock = SharedClock.open(Path(arguments[1]))
        trio.run(lambda: run_node(loaded, clock=clock))
    except (ConfigError, StartError, OSError, ValueError) as error:
        sys.stderr.write(f"hub: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _sandbox_only(loaded: Loaded) -> None:
    if loaded.settings.tenant.environment != "sandbox":
        raise ConfigError("tenant.environment: this process runs sandboxes only; use hub serve")


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
