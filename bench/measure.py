"""One measurement: load on one core, a server on the other, CPU time read exactly while answers are counted."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from bench.load import WARMUP_S, summary
from bench.world import LOAD_CORE, ROOT, cpu_seconds, resident

STOCK = {"payments": 1500, "par": 700, "token": 1500, "balances-dpop": 2500}
"""Requests to sign before a run, per second of it."""


class Shape(msgspec.Struct, frozen=True):
    """Say how the load is driven."""

    connections: int
    streams: int
    http1: bool = False
    rate: float = 0.0

    @property
    def name(self) -> str:
        """Return ``32x10``, ``64x1 h1`` or ``32x10 at 500/s``."""
        text = f"{self.connections}x{self.streams}" + (" h1" if self.http1 else "")
        return f"{text} at {self.rate:.0f}/s" if self.rate else text


class Target(msgspec.Struct, frozen=True):
    """Say what is measured: processes, and where they listen (empty: the Hub's own address)."""

    name: str
    pids: list[int]
    at: str = ""


def measure(
    folder: Path, target: Target, mix: str, shape: Shape, seconds: float, *, size: int = 1000
) -> dict[str, Any]:
    """Load a target and return rate, latencies, statuses, and CPU microseconds per answered request."""
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "bench.load", "--part", "1"]
    command += ["--sandbox", str(folder.resolve()), "--mix", mix, "--duration", str(seconds)]
    command += ["--connections", str(shape.connections), "--streams", str(shape.streams)]
    command += ["--rate", str(shape.rate), "--size", str(size), "--at", target.at]
    command += ["--stock", str(int(STOCK.get(mix, 0) * (seconds + 1)))]
    # Long enough for some requests on each connection: the first ones cost more, and are not what is compared.
    command += ["--warmup", str(max(WARMUP_S, shape.connections / 400))]
    command += ["--http1"] if shape.http1 else []
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    began = ended = 0.0
    part: dict[str, Any] | None = None
    with process.stdout as lines:
        for line in lines:
            if line == "begin\n":
                began = cpu_seconds(target.pids)
            elif line == "end\n":
                ended = cpu_seconds(target.pids)
            else:
                part = json.loads(line)
    if process.wait() or part is None:
        raise SystemExit(f"the load failed at {target.name}, {mix}, {shape.name}")
    result = summary([part])
    used = ended - began
    result["cpu_us"] = round(used / max(1, result["answered"]) * 1e6, 1)
    result["busy"] = round(used / part["seconds"], 3)
    result["rss_mb"] = round(resident(target.pids) / 1e6, 1)
    return result


def median(values: list[float]) -> float:
    """Return the median, 0 of none."""
    return round(statistics.median(values), 3) if values else 0.0


def spread(values: list[float]) -> list[float]:
    """Return the least and the largest value."""
    return [round(min(values), 3), round(max(values), 3)] if values else []
