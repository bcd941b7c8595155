"""The world's side of the Hub's process: start it, wait until it is ready, stop it, notice when it dies."""

import os
import subprocess
from pathlib import Path
from typing import Final, final

import httpx
import trio

from hub.node.errors import StartError
from hub.sandbox.hub_process import hub_command
from hub.sandbox.places import Places
from hub.sandbox.tenant import Tenant

READY_S: Final = 30.0
"""A first start compiles the contract in every worker; one that fails is told at once, by the end of its process."""
ASK_EVERY_S: Final = 0.05
STOP_S: Final = 12.0
LOG_LINES: Final = 5


@final
class HubChild:
    """One running Hub."""

    def __init__(self, process: trio.Process, ops_base: str, log: Path) -> None:
        """Use ``start_hub``."""
        self._process = process
        self._ready_url = f"{ops_base}/readyz"
        self._asked = False
        self.log = log

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Return once ``/readyz`` says yes.

        Raises:
            StartError: It ended before, or was not ready within ``READY_S`` seconds; the line says why.
        """
        last = "it does not answer"
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            with trio.move_on_after(READY_S):
                while self._process.poll() is None:
                    try:
                        answer = await client.get(self._ready_url)
                    except httpx.HTTPError as error:
                        last = f"it does not answer ({type(error).__name__})"
                    else:
                        if answer.status_code == 200:
                            return
                        last = answer.text.strip()[:300]
                    await trio.sleep(ASK_EVERY_S)
        if self._process.returncode is not None:
            raise StartError(
                f"the Hub ended with status {self._process.returncode}: {self._tail()}"
            )
        raise StartError(f"the Hub was not ready after {READY_S:.0f} s: {last}")

    async def watch(self) -> None:
        """Return when the process has ended because it was asked to.

        Raises:
            StartError: It ended by itself.
        """
        status = await self._process.wait()
        if not self._asked:
            raise StartError(f"the Hub ended by itself with status {status}; see {self.log}")

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL after ``STOP_S`` seconds.

        Cancellation: shielded; the process is gone when this returns.
        """
        self._asked = True
        with trio.move_on_after(STOP_S + 2, shield=True):
            if self._process.poll() is None:
                self._process.terminate()
                with trio.move_on_after(STOP_S):
                    await self._process.wait()
            if self._process.poll() is None:
                self._process.kill()
                await self._process.wait()
        if self._process.stdin is not None:
            with trio.move_on_after(1, shield=True):
                await self._process.stdin.aclose()

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        full = not os.statvfs(self.log.parent).f_bavail
        return " / ".join(lines[-LOG_LINES:]) or f"it left no log{', and the disk is full' * full}"


async def start_hub(places: Places, tenant: Tenant) -> HubChild:
    """Start a tenant's Hub on its configuration and the world's clock; its output goes to its log."""
    configuration = str(tenant.hub_toml(places))
    command = [*hub_command(), configuration]
    path = tenant.hub_log(places)
    log = _open_log(path)
    try:
        process = await trio.lowlevel.open_process(
            [*command, str(places.clock)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # A Ctrl-C at the terminal is the world's to handle: it stops the Hub itself.
            start_new_session=True,
        )
    finally:
        os.close(log)
    return HubChild(process, places.http(tenant.ops), path)


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
