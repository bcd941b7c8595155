"""kill -9 of keeper, publisher and workers at random moments: every answer that a client has is in the log that verifies."""

import gc
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import count
from random import Random

import httpx
import msgspec
import pytest
import trio

from bench.evidence import append
from hub.audit import verify
from hub.sandbox.tpp import Ask
from hub.sandbox.tpp.schedules import controls, variable_on_demand
from tests.waiting import ended, pause_of_a_peer, until
from tests.wire.own_hub import OwnHub, copy_state, settings_beside
from tests.wire.payer import Payer
from tests.wire.test_payment_crowd import today
from tests.wire.world import actor

pytestmark = [
    pytest.mark.wire,
    # httpx leaves the body's generator behind when a connection breaks while it is being sent.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]
ACCOUNTS = "/open-finance/account-information/v2.1/accounts"
CLIENTS = 12
KILLS = int(os.environ.get("AUDIT_KILLS", "200"))


class Victim:
    """A Hub of two workers beside the sandbox, and what its log says."""

    def __init__(self, hub: OwnHub) -> None:
        self.hub = hub
        self.kills: Counter[str] = Counter()
        self.most_marked = 0
        self.kept: list[tuple[str, bytes]] = []

    async def kill(self, which: int, dice: Random) -> None:
        """Kill the keeper (0) or a worker; after the keeper, look at what is left and start anew."""
        workers = await until(self.hub.workers, 30, "a worker")
        pid = dice.choice(workers) if which else self.hub.pid
        os.kill(pid, signal.SIGKILL)
        if pid != self.hub.pid:
            self.kills["worker"] += 1
            await ended(pid, 10, "a killed worker")
            return
        self.kills["keeper"] += 1
        await trio.to_thread.run_sync(self.hub.wait)
        for worker in workers:
            await ended(worker, 20, "a worker without its keeper")
        self.most_marked = max(self.most_marked, len(self.judged(live=True)))
        await trio.to_thread.run_sync(self.hub.start)

    def leaves(self) -> list[bytes]:
        with closing(sqlite3.connect(f"file:{self.hub.folder}/hub.db?mode=ro", uri=True)) as store:
            return [leaf for (leaf,) in store.execute("SELECT leaf FROM event ORDER BY position")]

    def judged(self, *, live: bool) -> set[int]:
        """Verify what is published, with the checkpoints kept from before; return which intents it marks as open."""
        audit = self.hub.folder / "audit"
        keys = [verify.Key.parse(one) for one in (audit / "key").read_text().split()]
        report = verify.verify_log(audit / "log", keys, older=self.kept[-3:], live=live)
        leaves = self.leaves()
        assert report.size <= len(leaves) if live else report.size == len(leaves)
        note = (audit / "log/checkpoint").read_bytes()
        self.kept.append((f"after {self.kills.total()}", note))
        marked = {int(r.split()[1][:-1]) for r in report.remarks if "without an outcome" in r}
        assert marked == open_intents(leaves[: report.size])
        return marked

    def unsettled(self) -> int:
        with closing(sqlite3.connect(f"file:{self.hub.folder}/hub.db?mode=ro", uri=True)) as store:
            sql = "SELECT count(*) FROM lookup WHERE kind = 'attempt' AND name = 'state' AND value IN ('open', 'unknown')"
            return int(store.execute(sql).fetchone()[0])


def open_intents(leaves: list[bytes]) -> set[int]:
    alone: dict[str, int] = {}
    for at, leaf in enumerate(leaves):
        event = msgspec.json.decode(leaf)
        if event["kind"] == "intent":
            alone[event["interaction_id"]] = at
        elif event["kind"] == "outcome" and ">" in event.get("change", ""):
            continue  # the bank's later word about a status: it settles nothing
        elif event["kind"] == "outcome" and event.get("verdict") != "unknown":
            del alone[event["interaction_id"]]
    return set(alone.values())


class Clients:
    """Read accounts, order payments and ask without a token until stopped; remember every whole answer."""

    def __init__(self, hub: OwnHub, payer: Payer, token: str) -> None:
        self.hub = hub
        self.payer = payer
        self.token = token
        self.answers: list[tuple[str, str, int]] = []
        self.lost = 0
        self.stopping = False
        self._numbers = count(1)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(self._client, Random(number))

    async def more(self, answers: int) -> None:
        wanted = len(self.answers) + answers
        await until(lambda: len(self.answers) >= wanted, 60, f"{wanted} answers")

    async def _client(self, dice: Random) -> None:
        context = self.payer.tpp.identity.tls()
        while not self.stopping:
            try:
                async with httpx.AsyncClient(verify=context, trust_env=False) as at:
                    while not self.stopping:
                        await self._ask(at, dice)
            except httpx.HTTPError:
                self.lost += 1
                await pause_of_a_peer(0.05)

    async def _ask(self, at: httpx.AsyncClient, dice: Random) -> None:
        ask = self._any(dice)
        path = ask.url.partition("://")[2].partition("/")[2]
        answer = await at.request(
            ask.method,
            f"https://localhost:{self.hub.port}/{path}",
            headers=ask.headers,
            content=ask.content,
        )
        self.answers.append((ask.headers["x-fapi-interaction-id"], ask.method, answer.status_code))

    def _any(self, dice: Random) -> Ask:
        if dice.random() < 0.4:
            number = next(self._numbers)
            return self.payer.ask(f"k{number}", f"{number // 90}.{1 + number % 90:02d}")
        name = {"x-fapi-interaction-id": self.payer.tpp.identity.dice.uuid()}
        if dice.random() < 0.7:
            name["authorization"] = f"Bearer {self.token}"
        return Ask(method="GET", url=f"https://localhost{ACCOUNTS}", headers=name)


def check_answers(clients: Clients, leaves: list[bytes]) -> int:
    """Find the event of every answer, with the status that the client was given; a payment made has its outcome.

    Only "503, ask again" may have none: a worker says it that has lost its keeper, and with it the log. Return how often.
    """
    told: dict[str, list[dict]] = {}
    silent = 0
    for leaf in leaves:
        event = msgspec.json.decode(leaf)
        told.setdefault(event.get("interaction_id", ""), []).append(event)
    for name, method, status in clients.answers:
        mine = told.get(name, [])
        said = any(event.get("status") == status for event in mine)
        silent += status == 503 and not said
        assert said or status == 503, (name, method, status, mine)
        if (method, status) == ("POST", 201):
            assert {"intent", "outcome"} <= {event["kind"] for event in mine}, mine
    return silent


async def killed(sandbox, folder, kills: list[int], seed: int, *, settle: bool) -> dict[str, int]:
    """Kill that many times under load; judge the log after each death of the keeper, and all of it at the end."""
    async with actor(sandbox) as tpp:
        token = (await tpp.consented()).access_token
        limit = controls(number=1_000_000, most="999.00")
        payer = await (await Payer.at(tpp)).consented(variable_on_demand("Day", today(tpp), limit))
        await trio.to_thread.run_sync(copy_state, sandbox, folder)
        bank = {"dedupes_by_key": settle}
        hub = OwnHub(folder, settings_beside(sandbox, folder, workers=2, bank=bank))
        victim, clients, dice = Victim(hub), Clients(hub, payer, token), Random(seed)
        try:
            await trio.to_thread.run_sync(hub.start)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clients.run)
                for which in kills:
                    await clients.more(dice.randrange(1, 60))
                    await victim.kill(which, dice)
                await clients.more(40)
                clients.stopping = True
            gc.collect()
            if settle:
                await until(lambda: not victim.unsettled(), 240, "every payment's outcome")
        finally:
            await trio.to_thread.run_sync(hub.stop)
    assert b"Traceback" not in hub.log.read_bytes(), hub.tail()
    silent = check_answers(clients, victim.leaves())
    marked = victim.judged(live=False)
    assert len(marked) == victim.unsettled()
    statuses = Counter(f"{method} {status}" for _, method, status in clients.answers)
    return {
        **victim.kills,
        **statuses,
        "answers": len(clients.answers),
        "503 without keeper": silent,
        "broken": clients.lost,
        "events": len(victim.leaves()),
        "open at most": victim.most_marked,
        "open at the end": len(marked),
    }


async def test_every_answer_is_in_the_log_although_keeper_and_workers_are_killed(sandbox, tmp_path):
    counts = await killed(sandbox, tmp_path / "hub", [1, 0], 3, settle=False)
    assert counts["answers"] > 40
    assert counts["POST 201"] > 3


@pytest.mark.nightly
async def test_two_hundred_kills_under_load(sandbox, tmp_path):
    kills = Random(8).choices([0, 1, 1], k=KILLS)
    counts = await killed(sandbox, tmp_path / "hub", kills, 200, settle=True)
    assert (counts["keeper"], counts["worker"]) == (kills.count(0), kills.count(1))
    assert counts["open at the end"] == 0
    append("audit-kills-of-whole-nodes", counts, [8, 200], "passed")
