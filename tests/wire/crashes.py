"""Clients that order payments, repeat them and change them while things die; and what must be true afterwards."""

import os
import socket
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Self

import httpx
import msgspec
import trio

from hub.sandbox.control import ask as tell_world
from hub.sandbox.failpoints import VARIABLE
from hub.sandbox.tpp import Answer
from tests.waiting import pause_of_a_peer, until
from tests.wire.payer import Payer
from tests.wire.world import Sandbox, free_base

WORKER_POINTS = (
    "before_intent",
    "after_intent",
    "before_forward",
    "after_forward_before_record",
    "before_outcome",
    "after_outcome",
    "after_record_before_reply",
    "before_replay",
    "before_ask",
    "after_told",
)
KEEPER_POINTS = (
    "after_asked",
    "before_group",
    "after_begin",
    "after_plan",
    "after_records",
    "after_events",
    "before_commit",
    "after_commit_before_ack",
    "before_invalidation",
    "before_ack",
    "before_told",
)
RECOVERY_POINTS = ("before_recovery", "before_resend", "after_resend")
BANK_FAULTS = (
    {"reset": True, "times": 2},
    {"half_answer": True, "times": 2},
    {"status": 500, "times": 2},
    {"close": True, "times": 2},
    {"wrong_shape": True, "times": 2},
    {"status": 409, "times": 1},
    {"latency_s": 0.5, "times": 3},
    {"goaway": True, "times": 2},
)


class Doomed:
    """A sandbox whose Hub may be told to die at a named place, and is started anew by the world."""

    def __init__(self, folder: Path, *, dedupes: bool) -> None:
        self.plan = folder.parent / "failpoint"
        self.sandbox = Sandbox(folder, free_base(), "--workers", "2")
        self._environment = {
            VARIABLE: f"@{self.plan}",
            "HUB__BANK__DEDUPES_BY_KEY": str(dedupes).lower(),
        }

    def __enter__(self) -> Self:
        os.environ.update(self._environment)
        try:
            self.sandbox.start()
        finally:
            for name in self._environment:
                del os.environ[name]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.sandbox.stop() == 0

    async def die_at(self, point: str, passage: int = 1, **fault: object) -> None:
        """Let one process end at a place, with a fault of the bank that leads there; return when it has."""
        written = self.plan.with_suffix(".new")
        written.write_text(f"{point}=die@{passage}")
        written.rename(self.plan)
        if fault:
            await self.misbehave(**fault)
        await until(lambda: not self.plan.exists(), 60, f"a process to die at {point}")

    async def misbehave(self, **plan: object) -> None:
        """Give the bank's payments a fault."""
        told = {"do": "fault", "at": "bank", "plan": {"path": "/payments", **plan}}
        assert (await tell_world(self.sandbox.folder, told))["ok"]

    async def ready(self) -> None:
        """Return once the Hub answers."""
        base = self.sandbox.manifest.hub.ops_base
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:

            async def answers() -> bool:
                with suppress(httpx.HTTPError):
                    return (await client.get(f"{base}/readyz")).status_code == 200
                return False

            await until(answers, 30, "the Hub to be ready")

    def open_attempts(self) -> int:
        """Return how many payments have an intent and no outcome yet."""
        place = f"file:{self.sandbox.folder}/state/hub.db?mode=ro"
        with closing(sqlite3.connect(place, uri=True)) as store:
            found = store.execute(
                "SELECT count(*) FROM lookup WHERE kind = 'attempt' AND name = 'state' AND value = 'open'"
            )
            return int(found.fetchone()[0])

    def book(self, consent_id: str) -> tuple[dict[str, str], Counter[str]]:
        """Return what ``book_of`` says."""
        return book_of(self.sandbox, consent_id)

    def operator(self, **request: object) -> dict:
        """Give one command over the operator's socket."""
        [path] = self.sandbox.folder.rglob("admin.sock")
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(path))
            line.sendall(msgspec.json.encode(request) + b"\n")
            held = b""
            while not held.endswith(b"\n"):
                piece = line.recv(65_536)
                assert piece
                held += piece
        return msgspec.json.decode(held)


def book_of(sandbox: Sandbox, consent_id: str) -> tuple[dict[str, str], Counter[str]]:
    """Return the bank's payments of a consent (key to id), and how often each key came again."""
    [book] = sandbox.folder.rglob("bank.jsonl")
    keys: dict[str, str] = {}
    ids: dict[str, str] = {}
    again: Counter[str] = Counter()
    for line in book.read_bytes().splitlines():
        note = msgspec.json.decode(line)
        if note["type"] == "again":
            again[ids.get(note["payment_id"], "")] += 1
        if note["type"] == "payment" and note["payment"]["consent_id"] == consent_id:
            payment = note["payment"]
            ids[payment["id"]] = payment["key"]
            assert keys.setdefault(payment["key"], payment["id"]) == payment["id"]
    again.pop("", None)
    return keys, again


class Crowd:
    """Clients, each with keys of its own, that go on until they are told to stop."""

    def __init__(self, payer: Payer, clients: int, seed: int) -> None:
        self.payer = payer
        self.clients = clients
        self.known: dict[str, Answer] = {}
        self.pending: set[str] = set()
        self.amounts: dict[str, str] = {}
        self.sealed: dict[str, str] = {}
        self.wrong: list[str] = []
        self.lost = 0
        self.stopping = False
        self._random = Random(seed)
        self._made = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.clients):
                nursery.start_soon(self._client, number)

    async def more(self, count: int) -> None:
        """Return once so many more orders have been answered."""
        wanted = len(self.known) + count
        await until(
            lambda: len(self.known) >= wanted,
            120,
            f"{wanted} orders to be answered",
            seen=lambda: f"{len(self.known)} were",
        )

    async def _client(self, number: int) -> None:
        round_ = 0
        while not self.stopping:
            key = f"c{number}-{round_}"
            round_ += 1
            self._made += 1
            self.amounts[key] = f"{self._made // 90}.{1 + self._made % 90:02d}"
            self.sealed[key] = self.payer.sealed
            await self._pay(key)
            if key in self.known:
                await self._repeat(key)

    async def _pay(self, key: str) -> None:
        """Order until there is an answer that ends it, or nobody can say."""
        for _ in range(100):
            answer = await self._order(key, self.amounts[key])
            if answer is None or answer.status in {503, 429}:
                self.lost += answer is None
                await pause_of_a_peer(0.1)
                continue
            if answer.status in {201, 400}:
                self.known[key] = answer
                return
            if answer.status == 500 and self._recoverable(answer):
                await pause_of_a_peer(0.1)
                continue
            if answer.status not in {409, 500}:
                self.wrong.append(f"{key}: {answer.status} {self.payer.opened(answer)}")
            self.pending.add(key)
            return
        self.pending.add(key)

    def _recoverable(self, answer: Answer) -> bool:
        return getattr(self.payer.opened(answer), "code", "") == "GenericRecoverableError"

    async def _repeat(self, key: str) -> None:
        """Repeat an answered order: the same bytes; or change it: refused."""
        changed = self._random.random() < 0.4
        amount = "999.00" if changed else self.amounts[key]
        answer = await self._order(key, amount)
        if answer is None or answer.status in {503, 500}:
            return
        first = self.known[key]
        if changed and answer.status != 409:
            self.wrong.append(f"{key}: changed and {answer.status}")
        if not changed and (answer.status, answer.body) != (first.status, first.body):
            self.wrong.append(f"{key}: repeated and {answer.status} instead of {first.status}")

    async def _order(self, key: str, amount: str) -> Answer | None:
        try:
            ask = self.payer.ask(key, amount, self.sealed[key])
            return await self.payer.tpp.tpp.wire.carry(ask)
        except httpx.HTTPError:
            return None

    async def ask_again(self) -> dict[str, int]:
        """Ask for what every order came to; return the statuses of those that were pending."""
        found: dict[str, int] = {}

        async def one(key: str) -> None:
            answer = await self._order(key, self.amounts[key])
            assert answer is not None
            if key in self.known:
                first = self.known[key]
                if (answer.status, answer.body) != (first.status, first.body):
                    self.wrong.append(f"{key}: lost its answer, got {answer.status}")
            else:
                found[key] = answer.status

        keys = [*self.known, *self.pending]
        for at in range(0, len(keys), 20):
            async with trio.open_nursery() as nursery:
                for key in keys[at : at + 20]:
                    nursery.start_soon(one, key)
        return found
