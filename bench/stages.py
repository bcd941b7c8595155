"""Halves of a consented read alone, in CPU microseconds: the edge with HTTP/2, and the gateway; neither bank nor sockets nor TLS.

    python -m bench.stages [--rounds N]

The edge answers ten GETs that came in one piece, from memory; the gateway answers one GET after the other, with a bank that
answers at once, a worker's cache, and a keeper that takes every event without writing it. The least of the rounds counts,
since noise only ever adds.
"""

import argparse
import io
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from bench.client import literals
from bench.mixes import uuid
from bench.upstream import balances
from hub.config import Limits, config_folder, load
from hub.edge.connection import Connection
from hub.edge.desk import Desk
from hub.edge.router import Router
from hub.gateway.pipeline import Gateway
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent
from hub.model.consent_change import date_time_of
from hub.model.event import Event, Kind
from hub.model.http import Admission, Request, Response
from hub.model.records import AccessToken, Grant
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol.h2 import H2Engine
from hub.protocol.message import Bounds
from hub.state.cache import Cache
from tests.gateway.world import (
    AIS,
    KEY,
    NOW,
    PEER,
    World,
    answer_of,
    consent_of,
    contract,
    grant_of,
    token_of,
)

PATH = f"{AIS}/accounts/acc-1/balances"
STREAMS = 10
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_WINDOW = bytes((0, 0, 4, 8, 0, 0, 0, 0, 0)) + (2**30).to_bytes(4)
_EVENT = Event(
    kind=Kind.CALL, time_ms=1, interaction_id=uuid(), client_id=uuid(), consent_id=uuid(), status=200,
    route="account-information.balances", octets_out=865, bank_us=500,
)  # fmt: skip
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-fapi-interaction-id", uuid().encode()),
)


class Peer:
    """A transport whose other end sends ten requests, reads ten answers, and sends the next ten."""

    stuck = False

    def __init__(self, pieces: Sequence[bytes]) -> None:
        """Take what is sent, piece by piece."""
        self._pieces = iter(pieces)
        self._open = 0
        self._answered = trio.Event()

    async def receive(self) -> bytes:
        """Return the next piece once the last one is answered. Cancellation: nothing is lost."""
        while self._open > 0:
            self._answered = trio.Event()
            await self._answered.wait()
        self._open = STREAMS
        await trio.lowlevel.checkpoint()
        return next(self._pieces, b"")

    def send_now(self, data: bytes) -> bool:
        """Count the answers in what is sent."""
        self._open -= data.count(b"no-store")
        self._answered.set()
        return True

    async def flush(self) -> None:
        """Do nothing."""

    async def bye(self) -> None:
        """Do nothing."""


class Canned:
    """Answer everything from memory, after one pass of the scheduler; implements ``App``."""

    def admit(self, request: Request) -> Admission | Response:
        """Take no body."""
        return Admission(limit=0)

    async def respond(self, request: Request) -> Response:
        """Answer a kilobyte."""
        await trio.lowlevel.checkpoint()
        return Response(status=200, headers=_HEADERS, body=b"x" * 865, event=_EVENT)


def pieces(count: int) -> list[bytes]:
    """Return what a client sends: the preface with the first ten requests, then ten more each."""
    found, stream = [], 1
    for _ in range(count):
        frames = []
        for _ in range(STREAMS):
            block = _block()
            head = len(block).to_bytes(3) + bytes((1, 5)) + stream.to_bytes(4)
            frames.append(head + block)
            stream += 2
        found.append(b"".join(frames))
    return [_PREFACE + _WINDOW + found[0], *found[1:]]


def _block() -> bytes:
    return literals(
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "hub.example"),
            (":path", PATH),
            ("authorization", "Bearer " + "A" * 43),
            ("accept", "application/json"),
            ("x-fapi-customer-ip-address", "192.0.2.17"),
            ("user-agent", "bench"),
            ("x-fapi-interaction-id", uuid()),
        ]
    )


async def edge(limits: Limits, rounds: int, count: int = 60) -> float:
    """Measure the edge and its HTTP/2 engine."""
    observer = Observer(FixedClock(NOW), io.StringIO())
    router = Router({}, fallback=Canned())
    desk = Desk(
        face=Face.TPP, app=router, limits=limits, observer=observer, clock=FixedClock(NOW), hosts=()
    )
    bounds = Bounds(**{name: getattr(limits, name) for name in Bounds.__struct_fields__})
    best = float("inf")
    for _ in range(rounds):
        engine = H2Engine(bounds, now=trio.current_time())
        connection = Connection(desk, Peer(pieces(count)), engine, PEER)  # type: ignore[arg-type]
        began = time.process_time()
        await connection.run()
        best = min(best, time.process_time() - began)
    observer.close()
    return round(best / count / STREAMS * 1e6, 1)


class Instant:
    """A keeper that takes every event without writing it."""

    def __init__(self, keeper: Any) -> None:
        """Ask this one for everything else."""
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        """Return what the keeper has."""
        return getattr(self._keeper, name)

    async def commit(self, changes: Any, events: Any) -> tuple[int, ...]:
        """Say that it is done."""
        return (0,)


class Bank:
    """Answer one account's balances at once."""

    def __init__(self) -> None:
        """Make the answer."""
        self._answer = answer_of(balances())

    async def exchange(self, call: Any) -> Any:
        """Return the answer."""
        return self._answer


async def gateway(rounds: int, count: int = 600) -> float:
    """Measure the gateway's stages, from route to rendered answer and event."""
    world = World()
    shared = msgspec.structs.replace(consent_of(), usage={"lastDataShared": date_time_of(NOW)})
    await world.keep(shared, grant_of(), token_of())
    caller = world.trust.caller(world.trust.client_id)
    world.trust.judge = lambda *_: caller  # type: ignore[method-assign, assignment]
    cache = Cache(world.keeper, {AccessToken: 1000, Grant: 1000, Consent: 1000})
    served = Gateway(
        settings=world.settings, keeper=Instant(world.keeper), cache=cache, trust=world.trust, bank=Bank(),
        contract=contract(), signing_keys=(KEY,), clock=world.clock, dice=SeededDice(), observer=world.observer,
    )  # fmt: skip
    headers = (
        (b"authorization", b"Bearer secret"), (b"accept", b"application/json"), (b"user-agent", b"bench"),
        (b"x-fapi-customer-ip-address", b"192.0.2.17"), (b"x-fapi-interaction-id", uuid().encode()),
    )  # fmt: skip
    request = Request(
        face=Face.TPP, method="GET", authority="hub.example", path=PATH, peer=PEER, headers=headers
    )
    response = await served.respond(request)
    assert response.status == 200, response
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(count):
            served.admit(request)
            await served.respond(request)
        best = min(best, time.process_time() - began)
    cache.close()
    world.observer.close()
    return round(best / count * 1e6, 1)


async def _both(rounds: int) -> dict[str, float]:
    limits = load(config_folder() / "hub.production.toml", {}).settings.limits
    return {
        "edge and HTTP/2, ten GETs in a piece": await edge(limits, rounds),
        "gateway, one read": await gateway(rounds),
    }


def run(rounds: int = 9) -> dict[str, float]:
    """Measure both."""
    return trio.run(_both, rounds)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    for name, value in run(parser.parse_args().rounds).items():
        sys.stdout.write(f"{name:40} {value:8.1f} us\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
