"""What the Trust Framework costs: a warm judgement beside one ES256 verification, and a refresh beside requests in flight.

``python -m bench.trust`` prints both; the nightly lane of ``tests/bench`` appends them to the evidence.
"""

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hub.config import Limits, Tenant, TrustSettings, default_limits
from hub.model.caller import Caller, Peer
from hub.model.clock import SeededDice
from hub.model.event import Event, Kind
from hub.model.records import Registration
from hub.node.wall import SystemDice, WallClock
from hub.observe import Observer
from hub.state.keeper import Put
from hub.state.memory import MemoryKeeper
from hub.trust.decide import Bounds
from hub.trust.known import Known
from hub.trust.mirror import Client, Index, Organisation, Revoked
from hub.trust.seal import Seal
from hub.trust.trust import Trust
from hub.trust.view import Risk

ROOT = Path(__file__).parents[1]
NOW = 1_795_000_000


def per_call(work: Any, seconds: float = 0.2) -> float:
    """Return the microseconds of one call: the best of five runs."""
    rounds, best = 1, float("inf")
    while _timed(work, rounds) < seconds / 20:
        rounds *= 2
    for _ in range(5):
        best = min(best, _timed(work, rounds) / rounds)
    return best * 1e6


def _timed(work: Any, rounds: int) -> float:
    gc.disable()
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    took = time.perf_counter() - began
    gc.enable()
    return took


def judgement() -> dict[str, float]:
    """Return the microseconds of a warm judgement and of one ES256 verification."""
    known = Known(Bounds(read=14_400, pay=1_800), crl=True, failed_at=NOW)
    known.index = Index(
        organisations={"o": Organisation(id="o", name="O", status="Active", roles=("BDSP",))},
        fetched=NOW,
    )
    known.revoked = Revoked(serials=frozenset(f"{n:x}" for n in range(50_000)), fetched=NOW)
    client = Client(
        client_id="c",
        software_statement_id="c",
        organisation_id="o",
        status="Active",
        roles=("BDSP",),
        fetched=NOW,
    )
    known.install_client("c", client)
    known.install_registration(
        "c",
        Registration(
            client_id="c",
            organisation_id="o",
            software_statement_id="c",
            tpp_id="t",
            tpp_state="active",
            statement_state="active",
            client_state="active",
        ),
    )
    peer = Peer(
        address="192.0.2.1",
        x5t_s256="x",
        organisation_id="o",
        client_id="c",
        serial="fffffff",
        not_after=NOW + 9_999,
    )
    assert isinstance(known.judge(peer, NOW, Risk.READ), Caller)
    key, data = ec.generate_private_key(ec.SECP256R1()), b"x" * 300
    signature, public = key.sign(data, ec.ECDSA(hashes.SHA256())), key.public_key()
    algorithm = ec.ECDSA(hashes.SHA256())
    return {
        "judge_us": per_call(lambda: known.judge(peer, NOW, Risk.READ)),
        "es256_us": per_call(lambda: public.verify(signature, data, algorithm)),
    }


@contextmanager
def framework(folder: Path, organisations: int, clients: int) -> Iterator[tuple[Any, Any]]:
    """Run a large framework in another process; yield what it told and what changes it."""
    command = [
        sys.executable,
        "-m",
        "bench.framework",
        str(folder),
        str(organisations),
        str(clients),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())

            def change() -> None:
                process.stdin.write("\n")
                process.stdin.flush()

            yield told, change
        finally:
            process.stdin.close()
            process.wait(20)


class Lag:
    """Measure how late a short wait ends, as a request in flight would feel it."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def run(self) -> None:
        while True:
            began = trio.current_time()
            await trio.sleep(0.001)
            self.late.append(trio.current_time() - began - 0.001)

    def p99_ms(self) -> float:
        """Return the 99th percentile in milliseconds, and begin anew."""
        late, self.late = sorted(self.late), []
        return late[int(len(late) * 0.99)] * 1000 if late else 0.0


@asynccontextmanager
async def mirror(told: Any, folder: Path) -> AsyncIterator[Trust]:
    """Run the Hub's side of a framework, with a registration of each client."""
    clock = WallClock()
    keeper = MemoryKeeper(clock=clock)
    event = Event(kind=Kind.NODE, time_ms=clock.now_ms())
    rows = [
        Put(Registration(client_id=c, organisation_id=o, software_statement_id=c, tpp_id=c))
        for c, o in told["clients"].items()
    ]
    for at in range(0, len(rows), 500):
        await keeper.commit(rows[at : at + 500], [event])
    trust = Trust(
        settings=TrustSettings(
            participants=told["public"] + "/participants",
            keystore=told["public"],
            api=told["api"],
            token_endpoint=told["api"] + "/token",
            client_id=told["client_id"],
            ca=Path(told["ca"]),
            certificate=Path(told["certificate"]),
            key=Path(told["key"]),
            crl=told["pki"] + "/issuer.crl",
        ),
        tenant=Tenant(
            provider_id="b",
            organisation_id="b",
            organisation_name="B",
            issuer="https://b",
            resource_base="https://b",
        ),
        keeper=keeper,
        clock=clock,
        dice=SystemDice(),
        observer=Observer(clock, log=False),
        limits=Limits(**default_limits()),
        seal=Seal.of_folder(folder, SeededDice("seal")),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(trust.run)
        yield trust
        nursery.cancel_scope.cancel()


async def refresh(folder: Path, organisations: int, clients: int) -> dict[str, float]:
    """Return how long a refresh of a changed list takes and what it does to others on the same loop."""
    with framework(folder, organisations, clients) as (told, change):
        began = time.monotonic()
        async with mirror(told, folder) as trust, trio.open_nursery() as nursery:
            first = time.monotonic() - began
            lag = Lag()
            nursery.start_soon(lag.run)
            await trio.sleep(2.0)
            idle = lag.p99_ms()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            change()
            began = time.monotonic()
            problem = await trust.refresh()
            took = time.monotonic() - began
            busy = lag.p99_ms()
            nursery.cancel_scope.cancel()
            status = trust.status()
        assert problem == "", problem
        return {
            "organisations": organisations,
            "clients": float(str(status["clients"])),
            "keys": float(str(status["clients"])) * 3,
            "first_s": round(first, 2),
            "refresh_s": round(took, 2),
            "p99_idle_ms": round(idle, 2),
            "p99_refresh_ms": round(busy, 2),
            "rise_ms": round(busy - idle, 2),
            "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "memory_rise_mb": round(
                (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            ),
        }


def main() -> None:
    """Print the figures."""
    print(json.dumps(judgement()))
    with tempfile.TemporaryDirectory() as folder:
        sizes = [int(a) for a in sys.argv[1:3]] or [1000, 50]
        print(json.dumps(trio.run(refresh, Path(folder), *sizes)))


if __name__ == "__main__":
    main()
