"""How the cost of a read grows: with connections, the answer's size, idle connections, and stored consents."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from bench.measure import Shape, Target, measure
from bench.world import LOAD_CORE, ROOT, World, resident
from hub.config import config_folder, load
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.model.records import AccessToken
from hub.node.wall import WallClock
from hub.state.keeper import Put
from hub.state.open import open_keeper
from tests.gateway.world import consent_of, token_of

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
CONNECTIONS = (1, 10, 100, 1000)
Say = Callable[[str], None]


def curves(
    world: World, seconds: float, held: dict[str, Any], *, quick: bool, say: Say
) -> dict[str, Any]:
    """Measure all curves at the running Hub of a world (the one of consents in a store of its own).

    ``held`` is what ``idle`` found when the Hub was fresh.
    """
    hub = Target("hub", world.pids)
    result: dict[str, Any] = {"idle": held, "connections": {}, "size": {}}
    for count in CONNECTIONS:
        run = measure(world.folder, hub, "balances", Shape(count, 1), seconds)
        kept = ("cpu_us", "p99_ms", "statuses")
        result["connections"][str(count)] = {name: run[name] for name in kept}
        say(f"connections: {count}: {run['cpu_us']:.0f} us")
    for size in SIZES:
        run = measure(world.folder, hub, "transactions", Shape(4, 1), seconds, size=size)
        row = {n: run[n] for n in ("cpu_us", "p50_ms", "rss_mb", "octets_per_answer", "statuses")}
        result["size"][str(size)] = row
        say(f"answers of {size} octets: {run['cpu_us']:.0f} us, {run['rss_mb']} MB resident")
    counts = (10, 10_000) if quick else (10, 10_000, 1_000_000)
    result["consents"] = {str(n): trio.run(lookups, world, n) for n in counts}
    for count, row in result["consents"].items():
        say(f"{count} consents: {row}")
    few, many = (sum(result["consents"][str(n)].values()) for n in (counts[0], counts[-1]))
    read = result["connections"]["100"]["cpu_us"]
    result["consents_growth"] = round((many - few) / read, 4)
    say(f"{counts[-1]} consents: a read costs {100 * (many - few) / read:.1f} % more than with 10")
    thousand = result["connections"]["1000"]["cpu_us"] / read
    say(f"1000 connections: a read costs {thousand:.2f} times what it does with 100")
    return result


def idle(world: World, count: int) -> dict[str, Any]:
    """Hold connections that say nothing and return what each takes in the Hub's memory."""
    before = resident(world.pids)
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "bench.load", "--part", "1"]
    command += ["--sandbox", str(world.folder.resolve()), "--connections", str(count)]
    command += ["--streams", "1", "--rate", "1", "--duration", "3", "--warmup", "0.2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    held = 0
    with process.stdout as lines:
        for line in lines:
            if line == "begin\n":
                time.sleep(1)
                held = resident(world.pids)
    process.wait()
    return {"connections": count, "octets_each": max(0, held - before) // count}


async def lookups(world: World, count: int) -> dict[str, float]:
    """Fill a store with consents and tokens; return the CPU microseconds of a lookup and of an event in it."""
    settings = load(config_folder() / "hub.production.toml", {}).settings
    folder = world.folder / f"bench-consents-{count}"
    async with open_keeper(folder, clock=WallClock(), limits=settings.limits) as keeper:
        first = await keeper.lookup(Consent, f"consent-{count - 1}")
        step = 2000
        for at in range(0, count if first is None else 0, step):
            puts = [
                put
                for number in range(at, min(at + step, count))
                for put in (
                    Put(consent_of(id=f"consent-{number}", group_id=f"consent-{number}")),
                    Put(_token(number)),
                )
            ]
            await keeper.commit(puts, [_event()])
        best = {"token": 9e9, "consent": 9e9, "event": 9e9}
        for group in range(5):
            numbers = [(group * 7919 + n * 104_729) % count for n in range(300)]
            began = time.process_time()
            for number in numbers:
                await keeper.lookup(AccessToken, f"token-{number}")
            best["token"] = min(best["token"], time.process_time() - began)
            began = time.process_time()
            for number in numbers:
                await keeper.lookup(Consent, f"consent-{number}")
            best["consent"] = min(best["consent"], time.process_time() - began)
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    nursery.start_soon(keeper.commit, (), (_event(),))
            best["event"] = min(best["event"], time.process_time() - began)
    return {f"{name}_us": round(value / 300 * 1e6, 1) for name, value in best.items()}


def _token(number: int) -> AccessToken:
    changes = {"digest": f"token-{number}", "consent_id": f"consent-{number}", "expires": 1 << 40}
    return msgspec.structs.replace(token_of(), **changes)


def _event() -> Event:
    return Event(kind=Kind.NODE, time_ms=int(time.time() * 1000), subject="bench")
