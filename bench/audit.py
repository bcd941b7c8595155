"""What a durable event costs: latency and rate of appends through the keeper, and the disk's own sync, side by side.

    .venv/bin/python -m bench.audit [SECONDS]

Each of 64 (or 1, or 512) tasks appends one event after the other, each of an interaction of its own (ids without order,
as in practice); an append returns when it is synced. The target of the audit log: at 64 in flight, p50 at most one
millisecond plus four syncs, and 10,000 events per second in one keeper.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import trio

from bench.evidence import append as record
from hub.config import Limits, default_limits
from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.node.memory import settle
from hub.state.open import open_keeper

NOW = 1_800_000_000
IN_FLIGHT = (1, 64, 512)
MOST_PER_SECOND = 60_000


def sync_us(folder: Path, times: int = 200) -> float:
    """Return the median of an append of 4 KiB with fdatasync, in microseconds."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return sorted(took)[times // 2] * 1e6


async def appends(folder: Path, in_flight: int, seconds: float) -> dict[str, float]:
    """Append for some seconds; return rate and percentiles of one append's latency in milliseconds."""
    took: list[float] = []
    limits = Limits(**default_limits())
    async with open_keeper(folder, clock=FixedClock(NOW), limits=limits) as keeper:
        dice = Random(7)

        def event() -> Event:  # made beforehand: what is measured is the append alone
            return Event(
                kind=Kind.CALL,
                time_ms=NOW * 1000,
                interaction_id=f"{dice.getrandbits(128):032x}",
                client_id="c" * 36,
                organisation_id="o" * 36,
                consent_id="d" * 36,
                route="account-information.accounts",
                status=200,
                hub_us=1000,
                bank_us=9000,
            )

        made = [(event(),) for _ in range(int(seconds * MOST_PER_SECOND))]
        settle()

        async def one() -> None:
            while made:
                events = made.pop()
                began = time.perf_counter()
                assert isinstance(await keeper.commit((), events), tuple)
                took.append(time.perf_counter() - began)

        began = time.perf_counter()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(in_flight):
                    nursery.start_soon(one)
        passed = time.perf_counter() - began
    took.sort()
    return {
        "per_second": round(len(took) / passed),
        "p50_ms": round(took[len(took) // 2] * 1000, 3),
        "p99_ms": round(took[len(took) * 99 // 100] * 1000, 3),
    }


def measure(seconds: float = 3.0) -> dict[str, object]:
    """Measure sync and appends on the disk of the temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, object] = {"fdatasync_us": round(sync_us(folder))}
        for count in IN_FLIGHT:
            figures[f"in_flight_{count}"] = trio.run(
                appends, folder / f"state{count}", count, seconds
            )
    return figures


def holds(figures: dict[str, object]) -> bool:
    """Tell whether the target holds at 64 in flight."""
    at_64, sync_ms = figures["in_flight_64"], float(str(figures["fdatasync_us"])) / 1000
    assert isinstance(at_64, dict)
    return bool(at_64["p50_ms"] <= 1 + 4 * sync_ms and at_64["per_second"] >= 10_000)


if __name__ == "__main__":
    measured = measure(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
    record("audit-append", {"in_flight": max(IN_FLIGHT)}, [], measured | {"holds": holds(measured)})
    print(json.dumps(measured, indent=1), "holds" if holds(measured) else "DOES NOT HOLD")
