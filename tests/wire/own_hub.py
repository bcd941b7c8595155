"""A Hub of a test's own, started by ``hub serve`` beside a running sandbox: its state copied, its ports elsewhere."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import suppress
from pathlib import Path

from hub.sandbox.configuration import write_configuration
from tests.waiting import until_blocking
from tests.wire.world import ROOT, Sandbox

READY_S = 25.0
END_S = 25.0


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def settings_beside(sandbox: Sandbox, folder: Path, **sections: object) -> dict[str, object]:
    """Return the configuration of a sandbox's Hub with every path absolute, other ports and another folder."""
    folder.mkdir(exist_ok=True)
    settings = tomllib.loads((sandbox.folder / "hub.toml").read_text())
    for table in settings.values():
        if isinstance(table, dict):
            for name, value in table.items():
                table[name] = absolute(sandbox.folder, value)
    ports = free_ports(3)
    for face, port in zip(("tpp", "lfi", "ops"), ports, strict=True):
        settings[face]["port"] = port
    settings["state"] = {"folder": str(folder)}
    # Two Hubs with one log's name must not meet at one witness: it would refuse the sandbox's own log for good.
    settings.get("log", {}).pop("witnesses", None)
    for name, value in sections.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return settings


def absolute(base: Path, value: object) -> object:
    if isinstance(value, list):
        return [absolute(base, one) for one in value]
    found = isinstance(value, str) and value and "://" not in value and (base / value).exists()
    return str(base / value) if found else value


def copy_state(sandbox: Sandbox, folder: Path) -> None:
    """Copy the database of a running Hub: what is committed when we begin is in the copy."""
    folder.mkdir(mode=0o700)
    for path in sorted((sandbox.folder / "state").iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)


class OwnHub:
    """One Hub in processes of its own."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self.settings = settings
        self.folder = folder
        self.path = folder / "hub.toml"
        self.log = folder / "hub.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        folder.mkdir(exist_ok=True)
        self.write()

    def write(self) -> None:
        write_configuration(self.settings, self.path)

    @property
    def port(self) -> int:
        return int(self.settings["tpp"]["port"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *command: str) -> "OwnHub":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(command or (sys.executable, "-m", "hub")), "serve", "--config", str(self.path)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.began = time.monotonic()
        self.until(self.ready, READY_S)
        return self

    def until(self, holds, within: float = 10.0):
        """Wait until something holds, while the Hub lives; return it."""

        def look():
            if found := holds():
                return found
            assert self.process is None or self.process.poll() is None, self.tail()
            return None

        return until_blocking(look, within, f"what {holds} asks", seen=self.tail)

    def ops(self, path: str) -> str:
        address = f"http://127.0.0.1:{self.settings['ops']['port']}{path}"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return answer.read().decode() if answer.status == 200 else ""
        except OSError:
            return ""

    def ready(self) -> bool:
        return bool(self.ops("/readyz"))

    def notes(self, name: str) -> list[dict[str, object]]:
        whole = self.log.read_bytes().rpartition(b"\n")[
            0
        ]  # the last line may still be being written
        lines = [line for line in whole.splitlines() if line.startswith(b"{")]
        found = [json.loads(line) for line in lines]
        return [line for line in found if line.get("note") == name]

    def workers(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                after = entry.read_text().rpartition(")")[2].split()
                if int(after[1]) == self.pid and after[0] != "Z":
                    found.append(int(entry.parent.name))
        return sorted(found)

    def listening(self) -> int:
        """Count the sockets that listen on the Hub's port: one of each worker that serves (proc(5))."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(row[1].split(":")[1], 16) == self.port and row[3] == "0A" for row in rows)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(END_S)
        finally:
            self.process.kill()

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.signal(signal.SIGTERM)
        return self.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def events(self) -> list[dict[str, object]]:
        """Return all audit events of the stopped Hub."""
        import apsw

        connection = apsw.Connection(str(self.folder / "hub.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows = list(connection.execute("select leaf from event order by position"))
        finally:
            connection.close()
        return [json.loads(leaf) for (leaf,) in rows]
