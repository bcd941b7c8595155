"""What one exchange with the bank costs us, in microseconds of CPU: a closed loop in one process, nginx as the bank.

The real ``BankConnections`` over mutual TLS on loopback, a signed bearer, the fourteen ``o3-*`` headers of a consented read
with an id of its own each, an answer of 1 KB. Only our process is counted; nginx is another. HTTP/1.1 and HTTP/2 take turns.

``python -m bench.exchange [--rounds 5] [--core 0]`` tells each round and the medians.
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.evidence import ROOT
from bench.upstream import Nginx, start_bank
from hub.config import BankSettings, Limits, Tenant, default_limits
from hub.model.fault import Fault
from hub.node.wall import SystemDice, WallClock
from hub.observe import Observer
from hub.protocol.jose import PrivateKey
from hub.upstream.bank import BankCall
from hub.upstream.connections import BankConnections

LOADS = (("HTTP/1.1", False), ("HTTP/2", True))
FLIGHTS = (320, 32, 1)
TENANT = Tenant(
    provider_id="BANK", organisation_id="o", organisation_name="Bank", issuer="https://as.example",
    resource_base="https://rs.example",
)  # fmt: skip
FIXED = tuple(
    (name.encode(), value.encode())
    for name, value in (
        ("accept", "application/json"),
        ("o3-provider-id", "BANK"),
        ("o3-aspsp-id", "BANK"),
        ("o3-caller-org-id", "7d1f9c1e-0a51-4f0e-9a51-6a9f3c0f4b11"),
        ("o3-caller-client-id", "3c1f9c1e-0a51-4f0e-9a51-6a9f3c0f4b12"),
        ("o3-caller-software-statement-id", "3c1f9c1e-0a51-4f0e-9a51-6a9f3c0f4b12"),
        ("o3-api-uri", "/open-finance/account-information/v2.1/accounts/{AccountId}/balances"),
        ("o3-api-operation", "GET"),
        ("o3-consent-id", "66666666-7777-4888-9999-000000000000"),
        ("o3-psu-identifier", "eyJ1c2VySWQiOiI3ZDFmOWMxZS0wYTUxLTRmMGUtOWE1MS02YTlmM2MwZjRiMTEifQ=="),
    )
)  # fmt: skip


class Rig:
    """A bank, and what connects to it; ends with ``stop``."""

    def __init__(self, folder: Path, core: int | None = None) -> None:
        """Make certificates and start nginx, on one core if one is given."""
        ca = trustme.CA()
        server = ca.issue_cert("localhost")
        client = ca.issue_cert("hub.example", organization_name="B", organization_unit_name="o")
        self._folder = folder
        ca.cert_pem.write_to_path(folder / "ca.pem")
        for name, one in (("s", server), ("c", client)):
            one.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
            one.private_key_pem.write_to_path(folder / f"{name}.key")
        self._port = _two_free_ports()
        self._key = PrivateKey(
            kid="sig", key=rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        self._nginx: Nginx = start_bank(
            folder / "nginx",
            self._port,
            certificate=folder / "s.pem",
            key=folder / "s.key",
            ca=folder / "ca.pem",
            core=core,
        )

    def stop(self) -> None:
        """End nginx."""
        self._nginx.stop()

    def connections(self, *, http2: bool) -> BankConnections:
        """Return connections to the bank, as the Hub makes them."""
        return BankConnections(
            settings=BankSettings(
                base_url=f"https://localhost:{self._port + http2}",
                authorization_endpoint="https://bank.example/authorize",
                ca=self._folder / "ca.pem",
                certificate=self._folder / "c.pem",
                key=self._folder / "c.key",
                auth="jwt",
                audience="BANK",
                http2=http2,
            ),
            tenant=TENANT,
            limits=Limits(**(default_limits() | {"bank_waiting": 1024})),
            bearer_key=self._key,
            clock=WallClock(),
            dice=SystemDice(),
            observer=Observer(WallClock(), log=False),
        )

    async def cost(self, *, http2: bool, flight: int, exchanges: int) -> float:
        """Return CPU microseconds per exchange with so many in flight."""
        hub = self.connections(http2=http2)
        left = count(exchanges, -1)

        async def loop(number: int) -> None:
            for turn in left:
                if turn <= 0:
                    return
                outcome = await hub.exchange(_call(number, turn))
                if isinstance(outcome, Fault):
                    raise SystemExit(outcome.private)

        async def all_of() -> float:
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for number in range(flight):
                    nursery.start_soon(loop, number)
            return time.process_time() - began

        left = count(max(flight * 4, 200), -1)
        await all_of()
        left = count(exchanges, -1)
        try:
            return round(await all_of() / exchanges * 1e6, 1)
        finally:
            hub.close()


def _two_free_ports() -> int:
    """Return the first of two neighbours that nobody uses now."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _call(number: int, turn: int) -> BankCall:
    interaction_id = b"00000000-0000-4000-8000-%012d" % turn
    return BankCall(
        method="GET",
        path=f"/accounts/acc-{number}/balances",
        headers=(
            *FIXED,
            (b"o3-ozone-interaction-id", interaction_id),
            (b"o3-caller-interaction-id", interaction_id),
        ),
        scope="accounts",
        repeatable=True,
    )


def measure(
    folder: Path, *, rounds: int, exchanges: int, core: int | None = None
) -> dict[str, list[float]]:
    """Return each round's costs by protocol and exchanges in flight; protocols take turns."""
    rig = Rig(folder, core)
    found: dict[str, list[float]] = {}
    try:
        for _ in range(rounds):
            for flight in FLIGHTS:
                for name, http2 in LOADS:
                    most = exchanges if flight > 1 else exchanges // 4

                    async def one(
                        h2: bool = http2, flight: int = flight, most: int = most
                    ) -> float:
                        return await rig.cost(http2=h2, flight=flight, exchanges=most)

                    found.setdefault(f"{name}, {flight} in flight", []).append(trio.run(one))
    finally:
        rig.stop()
    return found


def least(folder: Path, *, rounds: int, core: int) -> dict[str, float]:
    """Return the least cost of each, since noise only ever adds; nginx runs on ``core``."""
    found = measure(folder, rounds=rounds, exchanges=3000, core=core)
    return {f"exchange with the bank, {name}": min(values) for name, values in found.items()}


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="bench.exchange", description="Cost of one exchange.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exchanges", type=int, default=8000)
    parser.add_argument("--core", type=int, default=-1, help="pin our process; nginx stays free")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        if given.core >= 0:
            os.sched_setaffinity(0, {given.core})
        other = None if given.core < 0 else 1 - given.core
        found = measure(Path(folder), rounds=given.rounds, exchanges=given.exchanges, core=other)
    for name, values in found.items():
        middle = statistics.median(values)
        sys.stdout.write(f"{name:26} {middle:7.1f} us   {min(values):.1f} to {max(values):.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
