"""Starting and ending: one line that says what to do, and nothing left behind."""

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hub.sandbox.control import ask
from tests.wire.world import PORTS, ROOT, Sandbox, command, free_base

pytestmark = pytest.mark.wire


def refused(folder: Path, base: int, *options: str) -> str:
    """Start a sandbox that must not start; return its one line."""
    done = subprocess.run(
        command(folder, base, "--no-journey", *options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_named(tmp_path):
    base = free_base()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", base + 20))
        taken.listen()
        line = refused(tmp_path / "s", base)
    assert f"port {base + 20} (for the bank's Ozone Connect) is in use" in line
    assert "--port-base" in line
    assert not (tmp_path / "s" / "lock").exists()


def test_a_second_sandbox_on_the_same_folder_is_refused(sandbox):
    line = refused(sandbox.folder, sandbox.base + PORTS)
    assert "another sandbox runs on this folder" in line
    assert "--dir" in line


def test_a_second_sandbox_on_the_same_ports_is_refused(sandbox, tmp_path):
    assert f"port {sandbox.base} " in refused(tmp_path / "s", sandbox.base)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(tmp_path / "file" / "s", free_base())
    assert "cannot be written" in line
    assert "--dir" in line


def test_a_bank_without_its_authorization_endpoint_is_refused(tmp_path):
    line = refused(tmp_path / "s", free_base(), "--bank", "https://bank.example")
    assert "belong together" in line


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and theirs."""
    pairs = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after = entry.read_text().rpartition(")")[2].split()
            pairs.append((int(entry.parent.name), int(after[1])))
    found, front = [], [pid]
    while front:
        front = [p for p, parent in pairs if parent in front]
        found += front
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_the_end_leaves_no_process_no_lock_and_no_port(tmp_path, by):
    world = Sandbox(tmp_path / "s", free_base())
    world.start()
    processes = children(world.pid)
    assert set(world.manifest.hub.pids) <= set(processes)
    assert world.stop(by) == 0
    assert not any(alive(pid) for pid in processes)
    assert not (world.folder / "lock").exists()
    assert not (world.folder / "run/control.sock").exists()
    for offset in (0, 1, 2, 10, 11, 12, 20, 21):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", world.base + offset)) != 0


async def test_the_control_socket_ends_the_world_as_well(tmp_path):
    world = Sandbox(tmp_path / "s", free_base())
    world.start()
    processes = children(world.pid)
    assert await ask(world.folder, {"do": "stop"}) == {"ok": True}
    assert world.wait() == 0
    assert not any(alive(pid) for pid in processes)


def test_a_hub_that_dies_ends_the_world_with_one_line(tmp_path):
    world = Sandbox(tmp_path / "s", free_base())
    world.start()
    os.kill(world.manifest.hub.pids[0], signal.SIGKILL)
    assert world.wait() == 4
    assert "hub: the Hub ended by itself with status -9" in world.output
    assert not (world.folder / "lock").exists()


def test_the_hub_ends_with_its_world_even_when_that_is_killed(tmp_path):
    world = Sandbox(tmp_path / "s", free_base())
    world.start()
    hub = os.pidfd_open(world.manifest.hub.pids[0])
    try:
        world.stop(signal.SIGKILL)
        # A pidfd becomes readable when its process has ended.
        assert select.select([hub], [], [], 20)[0] == [hub]
    finally:
        os.close(hub)
    world.start()
    assert world.stop() == 0


def test_exit_after_journey_runs_it_and_ends_with_its_result(tmp_path):
    done = subprocess.run(
        command(tmp_path / "s", free_base(), "--exit-after-journey"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GET /accounts" in done.stdout
    assert "Done" in done.stdout
    assert not (tmp_path / "s" / "lock").exists()


def test_the_whole_world_stays_under_512_megabytes(sandbox):
    total = 0
    for pid in [sandbox.pid, *children(sandbox.pid)]:
        status = Path(f"/proc/{pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        total += int(line.split()[1])
    assert total < 512 * 1024, f"{total} KiB"


def test_sandbox_keys_are_refused_by_a_production_configuration(sandbox):
    """A sandbox's configuration cannot be made a production one by changing its environment alone."""
    environment = {**os.environ, "HUB__TENANT__ENVIRONMENT": "production"}
    check = [sys.executable, "-m", "hub", "config", "check", str(sandbox.folder / "hub.toml")]
    done = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert "auto_activate" in done.stderr


def test_ctrl_c_while_starting_leaves_nothing_either(tmp_path):
    folder, base = tmp_path / "s", free_base()
    with subprocess.Popen(
        command(folder, base), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert "Trust Framework" in process.stdout.readline()
        processes = children(process.pid)
        process.send_signal(signal.SIGINT)
        told = process.stdout.read()
        assert process.wait(30) == 130, told
    assert "Traceback" not in told
    assert not any(alive(pid) for pid in processes)
    assert not (folder / "lock").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", base + 10)) != 0
