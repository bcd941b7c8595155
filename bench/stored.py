"""What a read costs at a Hub with ten stored consents, and at one with a million: two Hubs side by side, measured in turns.

The consents are copies of one that was given through the Hub's own endpoints, put into the store while that Hub is down;
so are the tokens of those in use. "many" is the load of "few" (the same number of tokens in turns) at the full store: what
storing costs. "many in use" takes 2,000 of the million in turns, each several times, as a TPP's sessions do, at the default
caches: it bears besides what many different tokens cost (HPACK, what is remembered per consent).
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import trio

from bench.consents import Granted, ProofKey, Purse
from bench.load import purse_for
from bench.measure import Shape, Target, measure, median
from bench.mixes import save
from bench.world import ROOT, World, open_world
from hub.config import load
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.model.records import AccessToken, Grant, digest_of
from hub.node.wall import WallClock
from hub.state.keeper import Change, Put
from hub.state.open import SqliteKeeper, open_keeper

IN_USE = 2000
"""Of the consents at most; the load takes them in turns."""
_GROUP = 2000
_FOREVER = 1 << 40
_SHAPE = Shape(32, 10)
Say = Callable[[str], None]


def stored(
    folder: Path,
    base: int,
    counts: tuple[int, int],
    seconds: float,
    rounds: int,
    say: Say,
    *,
    home: Path = ROOT,
) -> dict[str, Any]:
    """Measure reads with few and with many stored consents; the ratio is the median of the rounds'.

    Args:
        folder: Of the worlds; a filled one is used again.
        base: First of 200 free ports.
        counts: Few and many.
        seconds: Of one measurement.
        rounds: How many.
        say: Takes progress.
        home: The checkout whose Hub it is.
    """
    few, many = counts
    runs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        worlds: dict[int, World] = {}
        for at, count in enumerate(counts):
            place = folder / f"consents-{count}"
            fill(place, base + 100 * at, count, say)
            worlds[count] = stack.enter_context(open_world(place, base + 100 * at, home=home))
        turns = {
            "few": (worlds[few], few),
            "many": (worlds[many], few),
            "many in use": (worlds[many], IN_USE),
        }
        for name, (world, used) in turns.items():
            _use(world, used)
            runs[name] = []
            first = _read(world, 1 + used / 1000)
            say(f"stored consents: {name}: {first:.0f} us while each is seen for the first time")
        for _ in range(rounds):
            for name, (world, used) in turns.items():
                _use(world, used)
                runs[name].append(_read(world, seconds))
                say(f"stored consents: {name}: {runs[name][-1]:.0f} us")
    result: dict[str, Any] = {"few": few, "many": many, "in use": min(many, IN_USE)}
    for name, found in runs.items():
        ratios = [b / a for a, b in zip(runs["few"], found, strict=True)]
        result |= {f"{name}, us": median(found), f"{name}, ratio": median(ratios)}
    return result


def _use(world: World, used: int) -> None:
    """Have the load take the first ``used`` of a world's consents in turns."""
    every = msgspec.json.decode((world.folder / "all.json").read_bytes(), type=Purse)
    save(world.folder, Purse(reads=every.reads[:used]))


def _read(world: World, seconds: float) -> float:
    run = measure(world.folder, Target("hub", world.pids), "balances", _SHAPE, seconds)
    if run["good"] != run["answered"]:
        raise SystemExit(f"stored consents: not everything was answered: {run['statuses']}")
    return float(run["cpu_us"])


def fill(folder: Path, base: int, count: int, say: Say) -> None:
    """Make a world whose Hub holds that many consents, unless it is there."""
    done = folder / "filled"
    if done.is_file():
        return
    say(f"stored consents: storing {count}")
    with open_world(folder, base) as world:
        purse = purse_for(folder, "balances", ProofKey.kept(folder / "bench-proof.key"))
    reads = trio.run(_copies, world.folder, purse.reads[0], count)
    save(folder, Purse(reads=reads)).rename(folder / "all.json")
    done.touch()


async def _copies(folder: Path, given: Granted, count: int) -> list[Granted]:
    """Store copies of a consent; return those that have a token."""
    settings = load(folder / "hub.toml").settings
    every = max(1, count // IN_USE)
    reads: list[Granted] = []
    async with open_keeper(
        settings.state.folder, clock=WallClock(), limits=settings.limits
    ) as keeper:
        consent, token, grant = await _given(keeper, given)
        for start in range(0, count, _GROUP):
            changes: list[Change] = []
            for number in range(start, min(start + _GROUP, count)):
                name = f"{number:08}-0000-4000-8000-000000000000"
                changes.append(Put(_renamed(consent, name, number)))
                if number % every == 0:
                    secret = f"bench-{name}"
                    changes += _token(token, grant, name, secret)
                    reads.append(_granted(given, name, secret))
            await keeper.commit(changes, [_event(start)])
    return reads


async def _given(keeper: SqliteKeeper, given: Granted) -> tuple[Consent, AccessToken, Grant]:
    consent = await keeper.lookup(Consent, given.consent_id)
    token = await keeper.lookup(AccessToken, digest_of(given.access_token))
    grant = await keeper.lookup(Grant, token[0].grant_id) if token else None
    if consent is None or token is None or grant is None:
        raise SystemExit("stored consents: what was given is not in the store")
    return consent[0], token[0], grant[0]


def _renamed(consent: Consent, name: str, number: int) -> Consent:
    body = {**consent.body, "Data": {**consent.body.get("Data", {}), "ConsentId": name}}
    return msgspec.structs.replace(
        consent,
        id=name,
        group_id=name,
        body=body,
        psu_identifiers={"userId": f"customer-{number // 3}"},
    )


def _token(token: AccessToken, grant: Grant, name: str, secret: str) -> list[Change]:
    kept = {"digest": digest_of(secret), "consent_id": name, "grant_id": name, "expires": _FOREVER}
    return [
        Put(msgspec.structs.replace(grant, id=name, consent_id=name)),
        Put(msgspec.structs.replace(token, **kept)),
    ]


def _granted(given: Granted, name: str, secret: str) -> Granted:
    return msgspec.structs.replace(
        given, consent_id=name, access_token=secret, refresh_token="", expires=_FOREVER
    )


def _event(number: int) -> Event:
    return Event(
        kind=Kind.NODE, time_ms=WallClock().now_ms(), subject="bench", change=f"stored:{number}"
    )
