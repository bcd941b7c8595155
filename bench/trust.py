"""What the Trust Framework costs: a warm judgement beside one ES256 verification, and a refresh beside requests in flight.

``python -m bench.trust`` prints both; the nightly lane of ``tests/bench`` appends them to the evidence.

Theory. A request in flight is a task that waits eight times for a millisecond, as one that reads, asks the keeper, asks
the bank and answers; what a refresh does to it is the difference of two 99th percentiles, with and without, taken in
windows of a second or two that follow each other, and of those differences the median: whatever else the machine does is
in both. The framework is another process, which is stopped for the windows without. Beside that stands the longest
turn that any task took, in CPU time, which no load of the machine can change. The process under test is the
worst there can be: it refreshes, it follows the snapshot as a gateway's worker does, and it serves, all in one interpreter.
"""

import gc
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
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
from hub.node.memory import settle
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
TURNS = 8
WINDOW_S = 1.5


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
    )
    known.confirmed = NOW
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
def framework(folder: Path, organisations: int, clients: int) -> Iterator["Framework"]:
    """Run a large framework in another process."""
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
            yield Framework(process, json.loads(process.stdout.readline()))
        finally:
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
            process.wait(20)


class Framework:
    """A framework that runs elsewhere: what it told, and what can be done to it."""

    def __init__(self, process: "subprocess.Popen[str]", told: dict[str, Any]) -> None:
        self._process = process
        self.told = told

    def change(self) -> None:
        """Withdraw or reinstate one organisation."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Let it answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._process.send_signal(signal.SIGCONT)


class InFlight:
    """Requests in flight: how long each took."""

    def __init__(self) -> None:
        self._took: list[float] = []

    async def run(self) -> None:
        """Be one request after another, until cancelled."""
        while True:
            began = trio.current_time()
            for _ in range(TURNS):
                await trio.sleep(0.001)
            self._took.append(trio.current_time() - began)

    async def p99_ms(self, seconds: float, over: trio.Event | None = None) -> float:
        """Return the 99th percentile of a window, milliseconds; it ends early when something is over."""
        self._took = []
        with trio.move_on_after(seconds):
            await (trio.Event() if over is None else over).wait()
        took = sorted(self._took)
        return took[int(len(took) * 0.99)] * 1000 if took else 0.0


class Turns(trio.abc.Instrument):
    """Measure the longest turn of any task of the Trust Framework's side, in CPU time of this thread.

    What a worker loads before it serves delays nobody's request and is kept apart.
    """

    def __init__(self) -> None:
        self.longest = self.longest_of_loading = 0.0
        self._began = 0.0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Take the time."""
        self._began = time.thread_time()

    def loaded(self) -> None:
        """Set aside what was measured until now: from here on, requests are in flight."""
        self.longest_of_loading = max(self.longest, self.longest_of_loading)
        self.longest = 0.0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Compare."""
        if task.name.startswith("hub.trust."):
            self.longest = max(self.longest, time.thread_time() - self._began)


@asynccontextmanager
async def mirror(told: Any, folder: Path, clients: dict[str, str]) -> AsyncIterator[Trust]:
    """Run the Hub's side of a framework with a registration of each client: one that refreshes, and one that follows."""
    clock = WallClock()
    keeper = MemoryKeeper(clock=clock)
    event = Event(kind=Kind.NODE, time_ms=clock.now_ms())
    rows = [
        Put(Registration(client_id=c, organisation_id=o, software_statement_id=c, tpp_id=c))
        for c, o in clients.items()
    ]
    for at in range(0, len(rows), 500):
        await keeper.commit(rows[at : at + 500], [event])

    def trust(*, leader: bool) -> Trust:
        return Trust(
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
            leader=leader,
            seal=Seal.of_folder(folder, SeededDice("seal")),
        )

    leader = trust(leader=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(leader.run)
        await nursery.start(trust(leader=False).run)
        yield leader
        nursery.cancel_scope.cancel()


async def of_lists(folder: Path, there: Framework, rounds: int) -> dict[str, float]:
    """Return what reading a long list that changed does to requests in flight: rounds with and without."""
    differences: list[float] = []
    took: list[float] = []
    requests = InFlight()
    async with mirror(there.told, folder, {}) as trust, trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        for _ in range(rounds):
            idle = await requests.p99_ms(1.0)
            there.change()
            began = trio.current_time()
            busy = await beside(nursery, requests, trust.refresh)
            took.append(trio.current_time() - began)
            differences.append(busy - idle)
        nursery.cancel_scope.cancel()
    return {
        "list_s": round(statistics.median(took), 2),
        "list_rise_ms": round(statistics.median(differences), 2),
    }


async def beside(
    nursery: trio.Nursery, requests: InFlight, refresh: Callable[[], Any], seconds: float = 60.0
) -> float:
    """Return the p99 of requests in flight while a refresh runs."""
    over = trio.Event()

    async def run() -> None:
        problem = await refresh()
        assert problem == "", problem
        over.set()

    nursery.start_soon(run)
    return await requests.p99_ms(seconds, over)


async def of_keys(folder: Path, there: Framework, pairs: int, turns: Turns) -> dict[str, float]:
    """Return what looking at every client does to requests in flight: windows with, and without as the framework is stopped."""
    began = time.monotonic()
    clients = there.told["clients"]
    over = trio.Event()
    differences: list[float] = []
    async with mirror(there.told, folder, clients) as trust, trio.open_nursery() as nursery:
        first = time.monotonic() - began
        turns.loaded()
        requests = InFlight()
        nursery.start_soon(requests.run)
        before = resident_mb()

        async def refresh() -> None:
            problem = await trust.refresh()
            assert problem == "", problem
            over.set()

        there.change()
        nursery.start_soon(refresh)
        while len(differences) < pairs and not over.is_set():
            busy = await requests.p99_ms(WINDOW_S, over)
            if over.is_set() and differences:
                break
            there.stop()
            idle = await requests.p99_ms(WINDOW_S)
            there.go_on()
            differences.append(busy - idle)
        status = trust.status()
        nursery.cancel_scope.cancel()
    return {
        "organisations": float(str(status["organisations"])),
        "keys": float(str(status["clients"])) * 3,
        "first_s": round(first, 1),
        "pairs": len(differences),
        "keys_rise_ms": round(statistics.median(differences), 2),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_rise_mb": round(resident_mb() - before),
    }


@contextmanager
def settled() -> Iterator[None]:
    """Let the garbage collector run as in a node, for a while."""
    before = gc.get_threshold()
    settle()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def resident_mb() -> float:
    """Return how much memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def refresh(
    folder: Path, organisations: int, clients: int, rounds: int = 8, pairs: int = 12
) -> dict[str, float]:
    """Return what refreshes of a large framework do to requests in flight in the same process."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    with settled(), framework(folder, organisations, clients) as there:
        figures = await of_lists(folder, there, rounds)
        of_lists_ms = turns.longest * 1000
        figures |= await of_keys(folder, there, pairs, turns)
    trio.lowlevel.remove_instrument(turns)
    return figures | {
        "rise_ms": max(figures["list_rise_ms"], figures["keys_rise_ms"]),
        "longest_turn_ms": round(max(of_lists_ms, turns.longest * 1000), 2),
        "loading_turn_ms": round(turns.longest_of_loading * 1000, 2),
    }


def main() -> None:
    """Print the figures."""
    print(json.dumps(judgement()))
    with tempfile.TemporaryDirectory() as folder:
        organisations, clients = map(int, sys.argv[1:3] or (1000, 50))
        print(json.dumps(trio.run(refresh, Path(folder), organisations, clients)))


if __name__ == "__main__":
    main()
