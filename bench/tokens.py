"""How many tokens one core gives out: client_credentials with fresh PS256 assertions, and refresh.

    python -m bench.tokens [--seconds N] [--base PORT] [--evidence]

Every request authenticates with an assertion of its own over mutual TLS, its jti is remembered durably, and every token is
stored and audited durably before it is answered. Assertions are signed before the run. Beside our figure stands the one
that Keycloak's sizing guide gives for client credential grants: 120 per second and vCPU.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio
from typing_extensions import override

from bench.client import Request
from bench.consents import ProofKey, prepare
from bench.evidence import append
from bench.load import drive, summary
from bench.mixes import Mix
from bench.world import World, cpu_seconds, open_world

KEYCLOAK_PER_VCPU = 120
"""Client credential grants per second and vCPU, by Keycloak's own sizing guide."""

UNLIMITED = {
    "HUB__LIMITS__CLIENT_REQUESTS_PER_S": "1000000.0",
    "HUB__LIMITS__CLIENT_REQUESTS": "1000000",
}
"""One client is all the load here; its fair share would end the measurement at 500 a second."""
MOST_PER_S = 2500
WARMUP_S = 1.0


class Refreshing(Mix):
    """Refresh, one grant after the other."""

    @override
    def _token(self) -> Request:
        form = {
            "client_id": self._tpp.client_id,
            "grant_type": "refresh_token",
            "refresh_token": self._turn(self._purse.reads).refresh_token,
        }
        return self._form(self._manifest.hub.token, {**form, **self._assertion()})


def throughput(
    folder: Path, base: int, *, seconds: float = 5.0, pinned: bool = True
) -> dict[str, Any]:
    """Measure both grants at a Hub of one process, alone on its core.

    Args:
        folder: For the sandbox.
        base: First of 100 free ports.
        seconds: Measured, for each grant.
        pinned: The Hub on one core, the load on the other.

    Returns:
        For each grant the load's summary with ``per_cpu_second``: good answers per second of the Hub's CPU time.
    """
    with open_world(folder, base, pinned=pinned, environment=UNLIMITED) as world:
        purse = trio.run(_granted, folder)
        measured = {}
        for name, kind in (("client_credentials", Mix), ("refresh", Refreshing)):
            mix = kind("token", world.manifest, folder, purse, ProofKey())
            measured[name] = _measure(world, mix, seconds)
    return {**measured, "keycloak_client_credentials_per_vcpu_second": KEYCLOAK_PER_VCPU}


async def _granted(folder: Path) -> Any:
    return await prepare(folder, reads=4, bound_reads=0, payments=0, proof=ProofKey())


def _measure(world: World, mix: Mix, seconds: float) -> dict[str, Any]:
    mix.stock(int(MOST_PER_S * (seconds + WARMUP_S)))
    arguments = argparse.Namespace(
        sandbox=world.folder,
        http1=False,
        at="",
        connections=8,
        streams=8,
        rate=0.0,
        warmup=WARMUP_S,
        duration=seconds,
        part=0,
    )
    before = cpu_seconds(world.pids)
    part = trio.run(drive, arguments, mix)
    spent = cpu_seconds(world.pids) - before
    told = summary([part])
    # The CPU time is that of the warm-up too; both ran at the same pace.
    share = spent * seconds / (seconds + WARMUP_S)
    return {**told, "per_cpu_second": round(told["good"] / share, 1), "cpu_s": round(spent, 2)}


def main() -> int:
    """Run from the command line; exit status 1 if anything was answered badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--base", type=int, default=30_000)
    parser.add_argument("--not-pinned", action="store_true")
    parser.add_argument("--evidence", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = throughput(
            Path(folder) / "sandbox",
            options.base,
            seconds=options.seconds,
            pinned=not options.not_pinned,
        )
    print(json.dumps(told, indent=1))
    if options.evidence:
        append("tokens_per_core", {"seconds": options.seconds}, [], told)
    return int(any(set(told[n]["statuses"]) != {"200"} for n in ("client_credentials", "refresh")))


if __name__ == "__main__":
    sys.exit(main())
