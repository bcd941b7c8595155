"""Load against any Hub: ``bench/load --sandbox DIR (--rate R | --connections C --streams S) --duration D --mix M``.

Closed loop (no ``--rate``): each of ``connections * streams`` sends its next request when its last one was answered; good
for the cost of a request, not for latency. Open loop (``--rate``): requests are due at fixed moments whatever the server
does; one that cannot be sent in time (all streams busy) is sent late and its latency counts from when it was due, so a
server that stalls cannot hide it ("coordinated omission"). Real certificates, real tokens, a fresh proof for each request.
"""

import argparse
import array
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec
import trio

from bench.build import build_of
from bench.client import Connection, H1Connection, H2Connection
from bench.consents import ProofKey, Purse, prepare
from bench.mixes import MIXES, Mix, needs, save
from bench.moment import follow, seconds
from hub.node.errors import StartError
from hub.sandbox.journey import read_running
from hub.sandbox.manifest import read_manifest
from hub.sandbox.tls import client_context

WARMUP_S = 0.5
PER_ADDRESS = 250


class Tally:
    """Count answers and remember latencies (microseconds) from the moment that measuring begins."""

    def __init__(self) -> None:
        """Start with nothing; ``measuring`` says whether answers count."""
        self.latencies = array.array("d")
        self.statuses: Counter[int] = Counter()
        self.octets = 0
        self.measuring = False
        self.late = 0

    def add(self, status: int, octets: int, began: float) -> None:
        """Take one answer."""
        if self.measuring:
            self.statuses[status] += 1
            self.octets += octets
            self.latencies.append((time.perf_counter() - began) * 1e6)


class ClosedLoop:
    """One stream that sends its next request when its last was answered."""

    def __init__(self, connection: Connection, mix: Mix, tally: Tally) -> None:
        """Take where, what and who counts."""
        self._connection, self._mix, self._tally = connection, mix, tally
        self._began = 0.0
        self.over = False

    def go(self) -> None:
        """Send the next request."""
        self._began = time.perf_counter()
        self._connection.send(self._mix.request(), self._done)

    def _done(self, status: int, octets: int) -> None:
        self._tally.add(status, octets, self._began)
        if not self.over and not self._connection.failed:
            self.go()


class OpenLoop:
    """Requests that are due at fixed moments, over whichever connection has room."""

    def __init__(self, connections: list[Connection], streams: int, mix: Mix, tally: Tally) -> None:
        """Take where, what and who counts."""
        self._mix, self._tally = mix, tally
        self._free = deque(c for _ in range(streams) for c in connections)
        self._due: deque[float] = deque()
        self.over = False

    async def run(self, rate: float) -> None:
        """Let requests fall due, ``rate`` a second, at random moments (a Poisson process), until cancelled."""
        moment = time.perf_counter()
        dice = random.Random(1)
        while True:
            moment += dice.expovariate(rate)
            pause = moment - time.perf_counter()
            if pause > 0:
                await trio.sleep(pause)
            self._due.append(moment)
            self._send()

    def _send(self) -> None:
        while self._due and self._free and not self.over:
            connection = self._free.popleft()
            if connection.failed:
                continue
            due = self._due.popleft()
            if time.perf_counter() - due > 0.001:
                self._tally.late += 1

            def done(
                status: int, octets: int, due: float = due, used: Connection = connection
            ) -> None:
                self._tally.add(status, octets, due)
                self._free.append(used)
                if self._due:
                    self._send()

            connection.send(self._mix.request(), done)


async def drive(arguments: argparse.Namespace, mix: Mix) -> dict[str, Any]:
    """Run one process' share of the load and return what was counted."""
    folder = arguments.sandbox
    manifest = read_manifest(folder)
    tpp = manifest.tpps[0]
    context = client_context(
        folder / manifest.ca_bundle, folder / tpp.transport_cert, folder / tpp.transport_key
    )
    kind = H1Connection if arguments.http1 else H2Connection
    context.set_alpn_protocols(["http/1.1" if arguments.http1 else "h2"])
    host, _, port = (arguments.at or manifest.hub.issuer.removeprefix("https://")).partition(":")
    tally = Tally()
    connections = [
        # As many TPPs would: a Hub bounds the connections of one address.
        kind(host, int(port), context, f"127.0.0.{2 + number // PER_ADDRESS}")
        for number in range(arguments.connections)
    ]
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        await _open_all(connections, nursery)
        opened = time.perf_counter() - began
        loops: list[Any]
        if arguments.rate:
            loop = OpenLoop(connections, arguments.streams, mix, tally)
            nursery.start_soon(loop.run, arguments.rate)
            loops = [loop]
        else:
            loops = [
                ClosedLoop(c, mix, tally) for c in connections for _ in range(arguments.streams)
            ]
            for loop in loops:
                loop.go()
        await trio.sleep(arguments.warmup)
        _meet(arguments)
        tally.measuring = True
        start = time.perf_counter()
        await trio.sleep(arguments.duration)
        tally.measuring = False
        seconds = time.perf_counter() - start
        for loop in loops:
            loop.over = True
        _tell("end", arguments)
        nursery.cancel_scope.cancel()
    for connection in connections:
        await connection.close()
    failed = Counter(c.failed for c in connections if c.failed)
    return {
        "seconds": seconds,
        "statuses": dict(tally.statuses),
        "octets": tally.octets,
        "late": tally.late,
        "opened_s": opened,
        "failed_connections": dict(failed),
        "latencies": tally.latencies.tolist(),
    }


async def _open_all(connections: list[Connection], nursery: trio.Nursery) -> None:
    """Open connections, 32 at a time."""
    limit = trio.CapacityLimiter(32)

    async def one(connection: Connection) -> None:
        async with limit:
            await connection.open()

    async with trio.open_nursery() as opening:
        for connection in connections:
            opening.start_soon(one, connection)
    for connection in connections:
        nursery.start_soon(connection.run)


def _meet(arguments: argparse.Namespace) -> None:
    """As a part of a larger load, say that the measurement begins."""
    _tell("begin", arguments)


def _tell(word: str, arguments: argparse.Namespace) -> None:
    if arguments.part:
        sys.stdout.write(word + "\n")
        sys.stdout.flush()


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which a share of ordered values lies; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the parts' counts into one result: rate, latencies in milliseconds, statuses."""
    ordered = sorted(value for part in parts for value in part["latencies"])
    statuses: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for part in parts:
        statuses.update({str(k): v for k, v in part["statuses"].items()})
        failed.update(part["failed_connections"])
    seconds = max(part["seconds"] for part in parts)
    answered = sum(v for k, v in statuses.items() if k != "0")
    good = sum(v for k, v in statuses.items() if k[0] in "23")
    result: dict[str, Any] = {
        "answered": answered,
        "good": good,
        "seconds": round(seconds, 3),
        "per_second": round(good / seconds, 1),
        "statuses": dict(statuses),
        "failed_connections": dict(failed),
        "octets_per_answer": sum(p["octets"] for p in parts) // max(1, answered),
        "sent_late": sum(p["late"] for p in parts),
    }
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
        result[f"{name}_ms"] = round(percentile(ordered, share) / 1000, 3)
    return result


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/load", description="Load against a running sandbox's Hub, or a peer with --at."
    )
    parser.add_argument("--sandbox", type=Path, required=True, help="folder of a running sandbox")
    parser.add_argument("--mix", choices=MIXES, default="balances", help="what to ask for")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: requests per second")
    parser.add_argument("--connections", type=int, default=32, help="connections (default 32)")
    parser.add_argument("--streams", type=int, default=10, help="streams of each (default 10)")
    parser.add_argument(
        "--duration", type=float, default=5.0, help="seconds to measure (default 5)"
    )
    parser.add_argument("--warmup", type=float, default=WARMUP_S, help="seconds before that")
    parser.add_argument("--processes", type=int, default=1, help="load processes (default 1)")
    parser.add_argument("--http1", action="store_true", help="HTTP/1.1, one request at a time")
    parser.add_argument("--at", default="", help="HOST:PORT to connect to instead of the Hub's")
    parser.add_argument("--stock", type=int, default=0, help="requests to sign before the run")
    parser.add_argument("--size", type=int, default=1000, help="octets of the mix transactions")
    parser.add_argument("--json", action="store_true", help="print the result as JSON only")
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def wrong_in(arguments: argparse.Namespace) -> str:
    """Return what is wrong with the arguments, with what was expected; empty if nothing is."""
    for name, least in (("connections", 1), ("streams", 1), ("processes", 1), ("stock", 0)):
        if getattr(arguments, name) < least:
            return f"--{name}: expected {least} or more"
    for name, above in (("duration", 0.0), ("rate", -1e-9), ("warmup", -1e-9)):
        if not above < getattr(arguments, name) < 1e9:
            return f"--{name}: expected a number {'above' if not above else 'of at least'} 0"
    if arguments.at and not arguments.at.rpartition(":")[2].isdecimal():
        return "--at: expected HOST:PORT"
    try:
        read_running(arguments.sandbox)
        at = arguments.at or read_manifest(arguments.sandbox).hub.issuer.removeprefix("https://")
        host, _, port = at.partition(":")
        socket.create_connection((host, int(port)), 5).close()
    except StartError as error:
        return str(error)
    except OSError as error:
        return f"{at}: nobody listens there ({error.strerror or error})"
    return ""


def main(given: list[str] | None = None) -> int:
    """Run the load; return the exit status: 1 if no request was answered well."""
    parser = options()
    arguments = parser.parse_args(given)
    arguments.sandbox = arguments.sandbox.resolve()
    if wrong := wrong_in(arguments):
        parser.error(wrong)
    follow(arguments.sandbox)
    if arguments.http1:
        arguments.streams = 1
    proof = _proof_key(arguments.sandbox)
    path = arguments.sandbox / "bench.json"
    if not arguments.part:
        purse = purse_for(arguments.sandbox, arguments.mix, proof)
        save(arguments.sandbox, purse)
    purse = msgspec.json.decode(path.read_bytes(), type=Purse)
    if arguments.processes > 1 and not arguments.part:
        parts = _spread(arguments)
    else:
        manifest = read_manifest(arguments.sandbox)
        mix = Mix(arguments.mix, manifest, arguments.sandbox, purse, proof, arguments.size)
        mix.stock(arguments.stock)
        parts = [trio.run(drive, arguments, mix)]
    if arguments.part:
        sys.stdout.write(json.dumps(parts[0]) + "\n")
        return 0
    result = summary(parts)
    if not arguments.at:
        result["build"] = build_of(read_manifest(arguments.sandbox).hub.pids)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        for name, value in result.items():
            sys.stdout.write(f"{name:20} {value}\n")
    return 0 if result["good"] else 1


def _proof_key(folder: Path) -> ProofKey:
    """Return the key that tokens are bound to: kept in the sandbox's folder, since tokens outlive a run."""
    return ProofKey.kept(folder / "bench-proof.key")


def purse_for(folder: Path, mix: str, proof: ProofKey) -> Purse:
    """Return consents for a mix: those of an earlier run while their tokens are good, else new ones."""
    wanted = needs(mix)
    path = folder / "bench.json"
    kept = Purse(reads=[])
    if path.is_file():
        kept = msgspec.json.decode(path.read_bytes(), type=Purse)
    follow(folder)
    now = seconds() + 120

    def enough(name: str) -> bool:
        have = getattr(kept, name)
        return len(have) >= wanted[name] and all(g.expires > now for g in have[: wanted[name]])

    missing = {name: 0 if enough(name) else count for name, count in wanted.items()}
    if not any(missing.values()):
        return kept
    made = trio.run(lambda: prepare(folder, proof=proof, **missing))
    return Purse(
        reads=made.reads or kept.reads,
        bound_reads=made.bound_reads or kept.bound_reads,
        payments=made.payments or kept.payments,
        sealed=made.sealed or kept.sealed,
    )


def _spread(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the load in several processes, each with its share, and return their counts."""
    count = arguments.processes
    processes = []
    for number in range(count):
        share = arguments.connections // count + (number < arguments.connections % count)
        if not share:
            continue
        command = [sys.executable, "-m", "bench.load", "--sandbox", str(arguments.sandbox)]
        command += ["--mix", arguments.mix, "--connections", str(share)]
        command += ["--streams", str(arguments.streams), "--duration", str(arguments.duration)]
        command += ["--warmup", str(arguments.warmup), "--rate", str(arguments.rate / count)]
        command += ["--stock", str(arguments.stock // count), "--size", str(arguments.size)]
        command += ["--part", str(number + 1)] + (["--http1"] if arguments.http1 else [])
        command += ["--at", arguments.at] if arguments.at else []
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], text=True
            )
        )
    outputs = [process.communicate()[0].splitlines() for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a load process failed")
    return [json.loads(lines[-1]) for lines in outputs]


if __name__ == "__main__":
    sys.exit(main())
