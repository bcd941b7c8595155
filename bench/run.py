"""Measure everything on this machine: ``bench/run [--quick] [--only SECTIONS] [--pure]``.

The server under test is pinned to one core, the load and the bank to the other. Peers are measured in rounds that are
interleaved (everybody once, then everybody again), and compared by the median of the per-round ratios: a noisy minute then
hits all alike. Results go to ``bench/history.jsonl`` (one line per run); ``bench/report.html`` shows the last one.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from bench.build import build_of, home
from bench.consents import ProofKey
from bench.curves import curves, idle
from bench.evidence import ROOT, STAMP, append_line, commit, machine
from bench.load import purse_for
from bench.measure import Shape, Target, measure, median, spread
from bench.micro import keeping
from bench.mixes import save
from bench.peers.start import Peer, start_haproxy, start_nginx, start_node, start_other_node
from bench.stored import stored
from bench.world import World, family, open_world

HISTORY = ROOT / "bench" / "history.jsonl"
SECTIONS = ("micro", "peers", "wire", "latency", "curves")
MAIN = Shape(32, 10)
FURTHER = (Shape(1, 1), Shape(320, 1), Shape(1000, 1))
WIRE = (
    ("discovery", MAIN),
    ("balances", MAIN),
    ("balances", Shape(1, 1)),
    ("balances", Shape(32, 1, http1=True)),
    ("balances-dpop", MAIN),
    ("payments", MAIN),
    ("par", Shape(32, 2)),
    ("token", Shape(32, 2)),
)
Result = dict[str, Any]


class Plan:
    """How long and how often: the full run, or a quick look."""

    def __init__(self, *, quick: bool, main_only: bool = False) -> None:
        """Choose; ``main_only`` leaves the further shapes out."""
        self.quick = quick
        self.rounds = 2 if quick else 5
        self.fewer = 1 if quick else 3
        """For what is compared with itself only, and for the further shapes."""
        self.seconds = 1.0 if quick else 2.0
        self.shapes = (MAIN,) if quick or main_only else (MAIN, *FURTHER)


def say(text: str) -> None:
    """Tell progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def hub_of(world: World) -> Target:
    """Return the Hub as a target."""
    return Target("hub", world.pids)


def start_peers(world: World, stack: ExitStack) -> list[Target]:
    """Start everybody who is compared with the Hub; they end with the stack."""
    starts: tuple[Callable[[World], Peer | None], ...] = (
        start_nginx,
        start_haproxy,
        lambda w: start_haproxy(w, http2=True),
        start_node,
        start_other_node,
    )
    found = []
    for start in starts:
        peer = start(world)
        if peer is None:
            continue
        stack.callback(peer.stop)
        found.append(Target(peer.name, family([peer.pid]), f"localhost:{peer.port}"))
    return found


def compare_peers(world: World, plan: Plan) -> Result:
    """Measure the Hub and its peers in interleaved rounds."""
    result: Result = {}
    with ExitStack() as stack:
        targets = [hub_of(world), *start_peers(world, stack)]
        both = [t for t in targets if t.name in {"hub", "node"}]
        jobs = [("balances", MAIN, targets), ("payments", MAIN, both)]
        jobs += [("balances", shape, targets) for shape in plan.shapes if shape is not MAIN]
        for mix, shape, those in jobs:
            name = f"{mix} {shape.name}"
            _section(result, name, lambda m=mix, s=shape, t=those: _rounds(world, plan, t, m, s))
    return result


def _rounds(world: World, plan: Plan, targets: list[Target], mix: str, shape: Shape) -> Result:
    count = plan.rounds if shape is MAIN else plan.fewer
    say(f"peers: {mix} {shape.name}, {count} rounds of {', '.join(t.name for t in targets)}")
    for target in targets:
        measure(world.folder, target, mix, shape, 0.5)
    rounds: dict[str, list[Result]] = {target.name: [] for target in targets}
    for _ in range(count):
        for target in targets:
            rounds[target.name].append(measure(world.folder, target, mix, shape, plan.seconds))
    out: Result = {}
    for name, results in rounds.items():
        used = [r["cpu_us"] for r in results]
        ratios = [
            ours["cpu_us"] / theirs["cpu_us"]
            for ours, theirs in zip(rounds["hub"], results, strict=True)
            if theirs["cpu_us"]
        ]
        out[name] = {
            "cpu_us": median(used),
            "cpu_us_spread": spread(used),
            "per_second": median([r["per_second"] for r in results]),
            "p50_ms": median([r["p50_ms"] for r in results]),
            "p99_ms": median([r["p99_ms"] for r in results]),
            "rss_mb": median([r["rss_mb"] for r in results]),
            "busy": median([r["busy"] for r in results]),
            "good": min(r["good"] / max(1, r["answered"]) for r in results),
            "hub_ratio": median(ratios),
            "hub_ratio_spread": spread(ratios),
        }
        say(
            f"  {name:11} {out[name]['cpu_us']:7.1f} us  Hub / {name}: {out[name]['hub_ratio']:.2f}"
        )
    return out


def wire(world: World, plan: Plan) -> Result:
    """Measure each operation at the Hub."""
    result: Result = {}
    for mix, shape in WIRE:
        runs = [
            measure(world.folder, hub_of(world), mix, shape, plan.seconds)
            for _ in range(plan.fewer)
        ]
        row = {name: median([r[name] for r in runs]) for name in _WIRE}
        row["cpu_us_spread"] = spread([r["cpu_us"] for r in runs])
        row["statuses"] = runs[-1]["statuses"]
        result[f"{mix} {shape.name}"] = row
        say(f"wire: {mix} {shape.name}: {row['per_second']:.0f}/s, {row['cpu_us']:.0f} us CPU")
    return result


_WIRE = ("per_second", "cpu_us", "p50_ms", "p99_ms", "p99.9_ms", "rss_mb")


def latency(world: World, plan: Plan) -> Result:
    """Measure what the Hub adds with one request in flight, beside one durable commit."""
    direct = Target("bank", [], f"localhost:{world.bank_port + 1}")
    rows: dict[str, list[float]] = {}
    for _ in range(plan.rounds):
        for name, target in (("direct", direct), ("hub", hub_of(world))):
            run = measure(world.folder, target, "balances", Shape(1, 1), plan.seconds)
            rows.setdefault(f"{name}_p50", []).append(run["p50_ms"])
            rows.setdefault(f"{name}_p99", []).append(run["p99_ms"])
        kept = trio.run(keeping, world.folder / "bench-state")
        rows.setdefault("commit_p50", []).append(kept["one durable event, alone (p50)"] / 1000)
        rows.setdefault("commit_p99", []).append(kept["one durable event, alone (p99)"] / 1000)
    result: Result = {f"{name}_ms": median(values) for name, values in rows.items()}
    for at in ("p50", "p99"):
        added = result[f"hub_{at}_ms"] - result[f"direct_{at}_ms"] - result[f"commit_{at}_ms"]
        result[f"added_{at}_ms"] = round(added, 3)
    say(f"latency: added p50 {result['added_p50_ms']} ms, p99 {result['added_p99_ms']} ms")
    return result


def scaling(folder: Path, base: int, plan: Plan, at: Path) -> Result:
    """Measure CPU per request with one worker and with two, unpinned, in turns."""
    rows: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 if plan.quick else 3):
        for workers, found in rows.items():
            with open_world(folder, base, workers=workers, pinned=False, home=at) as world:
                _prepare(world, ("balances",))
                run = measure(world.folder, hub_of(world), "balances", MAIN, plan.seconds)
                found.append(run["cpu_us"])
                say(f"workers: {workers}: {run['cpu_us']:.0f} us, {run['per_second']:.0f}/s")
    one, two = median(rows[1]), median(rows[2])
    return {"one_cpu_us": one, "two_cpu_us": two, "ratio": round(two / max(1.0, one), 3)}


def _prepare(world: World, mixes: tuple[str, ...]) -> None:
    proof = ProofKey.kept(world.folder / "bench-proof.key")
    for mix in mixes:
        save(world.folder, purse_for(world.folder, mix, proof))


def micro(world: World, at: Path) -> Result:
    """Measure each stage in a process of its own, pinned to the server's core."""
    certificate = world.folder / world.manifest.tpps[0].transport_cert
    code = "import sys, json; from pathlib import Path; from bench.micro import run; print(json.dumps(run(Path(sys.argv[1]))))"
    run = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", code, str(certificate.resolve())],
        cwd=at, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(at)},
    )  # fmt: skip
    if run.returncode:
        raise SystemExit(run.stderr)
    result: Result = json.loads(run.stdout.splitlines()[-1])
    for name, value in result.items():
        say(f"micro: {name:36} {value:9.2f} us")
    return result


def _told(world: World, result: Result) -> None:
    """Tell which Hub runs, by what it has loaded; refuse to measure another one than was asked for."""
    build = build_of(world.pids)
    say(f"measured is the {build} Hub")
    if build != result["build"]:
        raise SystemExit(f"the Hub that runs is {build}, expected {result['build']}")


def _section(result: Result, name: str, act: Callable[[], Result]) -> None:
    """Measure one section; one that fails is told, and costs the others nothing."""
    try:
        result[name] = act()
    except SystemExit as error:
        say(f"{name}: {error}")


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measure everything on this machine."
    )
    everything = ",".join((*SECTIONS, "consents", "workers"))
    parser.add_argument("--quick", action="store_true", help="2 short rounds, one shape: a look")
    parser.add_argument("--only", default=everything, help=f"of {everything}")
    parser.add_argument("--main", action="store_true", help="peers at 32x10 only")
    parser.add_argument("--pure", action="store_true", help="the Hub of Python only")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".sandbox" / "bench", help="of the world"
    )
    parser.add_argument(
        "--port-base", type=int, default=30300, help="first of 100 free ports, of 200 for consents"
    )
    parser.add_argument(
        "--history", type=Path, default=HISTORY, help="where the result is appended"
    )
    return parser


def main(given: list[str] | None = None) -> int:
    """Measure, keep the result, make the report; return 0."""
    parser = options()
    arguments = parser.parse_args(given)
    plan = Plan(quick=arguments.quick, main_only=arguments.main)
    sections = arguments.only.split(",")
    if unknown := set(sections) - {*SECTIONS, "consents", "workers"}:
        parser.error(
            f"--only: {', '.join(sorted(unknown))}: expected of {parser.get_default('only')}"
        )
    at = home(pure=arguments.pure, say=say)
    result: Result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "build": "compiled" if (at / STAMP).is_file() else "pure",
        "quick": plan.quick,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
    }
    held: Result = {}
    folder = arguments.folder / "world"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if set(sections) & set(SECTIONS):
        say("starting the Hub, its directory, and nginx as the bank")
        with open_world(folder, arguments.port_base, home=at) as world:
            _told(world, result)
            _prepare(world, ("balances", "balances-dpop", "payments"))
            acts: dict[str, Callable[[], Result]] = {
                "micro": lambda: micro(world, at),
                "peers": lambda: compare_peers(world, plan),
                "wire": lambda: wire(world, plan),
                "latency": lambda: latency(world, plan),
                "curves": lambda: curves(world, plan.seconds, held, quick=plan.quick, say=say),
            }
            if (
                "curves" in sections
            ):  # first: memory that others used and left would hide what these take
                held.update(idle(world, 200 if plan.quick else 1000))
                say(f"idle connections: {held['octets_each']} octets each")
            for name in SECTIONS:
                if name in sections:
                    _section(result, name, acts[name])
    if "consents" in sections:
        counts = (10, 10_000 if plan.quick else 1_000_000)
        result["consents"] = stored(
            arguments.folder, arguments.port_base, counts, plan.seconds, plan.rounds, say, home=at
        )
    if "workers" in sections:
        result["workers"] = scaling(arguments.folder / "scaling", arguments.port_base, plan, at)
    append_line(arguments.history, result)
    say(f"kept in {arguments.history}")
    from bench.report import write_report  # noqa: PLC0415 - needs matplotlib for the pictures

    say(f"report: {write_report(arguments.history)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
