"""The Hub alone on one core: the sandbox's directory and TPPs, nginx in the bank's place, everything pinned.

The world is the sandbox's own (``hub sandbox up``) with ``--bank`` pointing at nginx, so the Hub runs exactly as it does
for everybody: its default configuration, every check on, one durable audit event per answer. Only where processes may
run differs: the Hub on ``SERVER_CORE``, everything else on ``LOAD_CORE``.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.upstream import Nginx, start_bank
from hub.sandbox.manifest import Manifest, read_manifest

ROOT = Path(__file__).parents[1]
SERVER_CORE, LOAD_CORE = 0, 1
BANK_PORT = 90
"""Offset of the bank's port from the base; HTTP/2 on the next."""
UP_S = 40.0


class World:
    """A running world; ``pids`` are the Hub's processes."""

    def __init__(self, folder: Path, base: int, process: "subprocess.Popen[bytes]") -> None:
        """Hold it."""
        self.folder = folder
        self.base = base
        self._process = process
        self.bank_port = base + BANK_PORT

    @property
    def manifest(self) -> Manifest:
        """Return what the sandbox says of itself."""
        return read_manifest(self.folder)

    @property
    def pids(self) -> list[int]:
        """Return the Hub's processes: the node and its workers."""
        return family(self.manifest.hub.pids)

    def stop(self) -> None:
        """End it as a person would."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(40)


@contextmanager
def open_world(
    folder: Path,
    base: int,
    *,
    workers: int = 1,
    pinned: bool = True,
    http2: bool = True,
    environment: dict[str, str] | None = None,
    home: Path = ROOT,
) -> Iterator[World]:
    """Run a world: up when this is entered, gone when it is left.

    Args:
        folder: Of the sandbox; may be used again.
        base: First of 100 free ports.
        workers: Of the Hub.
        pinned: The Hub on one core, the rest on the other; otherwise wherever the kernel likes.
        http2: The bank speaks HTTP/2; otherwise HTTP/1.1.
        environment: Settings of the Hub (``HUB__A__B``) beside the defaults.
        home: The checkout whose Hub it is: this one, or a compiled copy of it.
    """
    bank = f"https://localhost:{base + BANK_PORT + http2}"
    core = str(LOAD_CORE)
    command = [sys.executable, "-m", "hub", "sandbox", "up", "--no-journey"]
    command += ["--dir", str(folder.resolve()), "--port-base", str(base), "--workers", str(workers)]
    command += ["--bank", bank, "--bank-authorization-endpoint", f"{bank}/open-finance"]
    (folder / "sandbox.json").unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = Path(f"{folder}.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command] if pinned else command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(home), **(environment or {})},
        )
    world = World(folder, base, process)
    upstream: Nginx | None = None
    try:
        _wait_until_up(process, log)
        if pinned:
            pin(world.pids, SERVER_CORE)
        keys = folder / "keys" / "bank"
        upstream = start_bank(
            folder / "upstream",
            world.bank_port,
            certificate=keys / "s4.pem",
            key=keys / "s4.key",
            ca=folder / world.manifest.ca_bundle,
            core=LOAD_CORE if pinned else None,
        )
        yield world
    finally:
        if upstream is not None:
            upstream.stop()
        world.stop()


def _wait_until_up(process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + UP_S
    while "stays up" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the sandbox is not up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def family(pids: list[int]) -> list[int]:
    """Return processes with all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], list(pids)
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def pin(pids: list[int], core: int) -> None:
    """Pin every thread of processes to a core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pids: list[int]) -> float:
    """Return user and system time of processes, seconds, by the scheduler's own nanoseconds (not its ticks)."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """Return the clock of a process' CPU time, as ``clock_getcpuclockid`` makes it on Linux."""
    return (~pid << 3) | 2


def resident(pids: list[int]) -> int:
    """Return the resident memory of processes, octets (shared pages count in each)."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)
