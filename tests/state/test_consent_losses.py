"""Consents through the real store: no acknowledged change is lost, none is half done, whatever ends the process."""

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from bench.evidence import append
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent, Status
from hub.model.records import AccessToken
from hub.state.keeper import Query
from hub.state.open import DATABASE, open_keeper
from hub.state.reserve import RESERVE, Reserve
from hub.state.sqlite import Store
from tests.lfi.desk import NOW, Desk, approval, consent
from tests.state.disk import Disk
from tests.state.keepers import limits
from tests.state.test_sqlite import root_of

LIFE = (Status.AWAITING, Status.AUTHORIZED, Status.SUSPENDED, Status.AUTHORIZED, Status.REVOKED)
"""What each consent goes through: version 1 is Awaiting, version 5 Revoked, with its token dead in the same commit."""

CHILD = """
import sys
from pathlib import Path
import trio
from hub.config import Limits, default_limits
from hub.model.clock import FixedClock, SeededDice
from hub.model.records import AccessToken
from hub.state.open import open_keeper
from tests.lfi.desk import NOW, Desk, approval, consent
from hub.model.event import Event, Kind
from hub.state.keeper import Put

def say(name, changes):
    sys.stdout.write(f"{name} {changes}\\n")
    sys.stdout.flush()

async def live(desk, who):
    number = 0
    while True:
        name = f"{who}-{number}"
        number += 1
        token = AccessToken(digest=name, client_id="t", scope="s", x5t_s256="x", issued=NOW,
                            expires=NOW + 9, consent_id=name, grant_id="g")
        event = Event(kind=Kind.CONSENT, time_ms=NOW * 1000, consent_id=name)
        done = await desk.keeper.commit([Put(consent(name), 0), Put(token, 0)], [event])
        assert isinstance(done, tuple), done
        say(name, 1)
        steps = [approval(), {"status": "Suspended"}, {"status": "Authorized"}]
        for at, patch in enumerate(steps):
            body = {"authorizationChannel": "App", **patch}
            status, answer, _ = await desk.call("PATCH", f"/consents/{name}", body)
            assert status == 204, answer
            say(name, 2 + at)
        status, answer, _ = await desk.call(
            "POST", f"/consents/{name}/action/revoke", {"revokedBy": "LFI"}
        )
        assert status == 204, answer
        say(name, 5)

async def main(folder, trial):
    limits = Limits(**default_limits())
    async with open_keeper(folder / "state", clock=FixedClock(NOW), limits=limits) as keeper:
        desk = Desk(folder, keeper=keeper, dice=SeededDice(trial))
        async with trio.open_nursery() as nursery:
            for who in range(16):
                nursery.start_soon(live, desk, f"{trial}.{who}")

trio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


def child(folder: Path, trial: int) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(trial)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(folder: Path, changes: int, kills: int, seed: int) -> int:
    """Kill a Consent Manager ``kills`` times after so many acknowledged changes in all; return how many there were."""
    dice = random.Random(seed)
    ledger: dict[str, int] = defaultdict(int)
    count = 0
    for trial in range(kills):
        share = changes // kills
        with child(folder, trial) as process:
            assert process.stdout is not None
            for _ in range(dice.randrange(share, share + 20)):
                name, version = process.stdout.readline().split()
                ledger[name] = int(version)
                count += 1
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=30)
        for line in rest.splitlines()[
            : rest.count("\n")
        ]:  # said before it died: acknowledged as well
            name, version = line.split()
            ledger[name] = int(version)
            count += 1
        assert behind(folder / "state" / DATABASE, ledger) == 0
    return count


def behind(path: Path, ledger: dict[str, int]) -> int:
    """See that every consent is where its acknowledged changes took it, or one further; return how many are behind."""
    store = Store(path)
    lost = 0
    with ExitStack() as stack:
        stack.callback(store.close)
        assert store._writer.execute("PRAGMA integrity_check").get == "ok"
        assert root_of(store) == store.head().root
        for name, acknowledged in ledger.items():
            found = store.lookup("consent", name)
            if found is None or found.version < acknowledged:
                lost += 1
                continue
            assert found.version <= acknowledged + 1, "one change at most was under way"
            whole(store, name, found.version)
    return lost


def whole(store: Store, name: str, version: int) -> None:
    """A change is its record, its line of history and its tokens: all of them, or none."""
    record = store.lookup("consent", name).record
    assert isinstance(record, Consent)
    assert record.status is LIFE[version - 1]
    lines = store.search(Query(kind="consent_change", where=(("consent", name),)))
    assert len(lines.items) == version - 1
    token = store.lookup("access", name).record
    assert isinstance(token, AccessToken)
    assert bool(token.revoked) is (record.status is Status.REVOKED)


def test_kill_9_loses_no_acknowledged_change_of_a_consent(tmp_path):
    assert killed(tmp_path, 200, 2, 1) >= 200


@pytest.mark.nightly
def test_kill_9_loses_none_of_ten_thousand_acknowledged_changes(tmp_path):
    count = killed(tmp_path, 10_000, 20, 7)
    append("kill -9 during consent changes", {"changes": count, "kills": 20}, [7], {"lost": 0})
    assert count >= 10_000


async def lives_until_the_power_fails(folder: Path, seed: int, synchronous: str) -> int:
    """Take consents through their lives at the Consent Manager, cut the power; return how many are behind."""
    dice, disk = random.Random(seed), Disk(f"consents-{synchronous}-{seed}")
    at = folder / f"{synchronous}-{seed}"
    clock, ledger = FixedClock(NOW), {}
    async with open_keeper(at, clock=clock, limits=limits(), vfs=disk.name) as keeper:
        keeper._store._writer.pragma("synchronous", synchronous)
        desk = Desk(folder, keeper=keeper, dice=SeededDice(str(seed)))
        for number in range(dice.randrange(2, 9)):
            name = f"c{number}"
            token = AccessToken(
                digest=name, client_id="t", scope="s", x5t_s256="x", issued=NOW, expires=NOW + 9,
                consent_id=name, grant_id="g",
            )  # fmt: skip
            await desk.put(consent(name), token)
            ledger[name] = 1
            for status in LIFE[1 : dice.randrange(1, 6)]:
                patch = approval(**{"consentBody.Data.Status": str(status)})
                assert (await desk.call("PATCH", f"/consents/{name}", patch))[0] == 204
                ledger[name] += 1
        platter = disk.cut_power(at / DATABASE, folder / f"after-{synchronous}-{seed}", dice)
        desk.observer.close()
    return behind(platter, ledger)


async def test_no_power_cut_loses_an_acknowledged_change_of_a_consent(tmp_path):
    lost = [await lives_until_the_power_fails(tmp_path, seed, "full") for seed in range(60)]
    assert sum(lost) == 0


async def test_the_power_cuts_of_consents_can_show_a_loss(tmp_path):
    """The positive control: without a sync for each commit, acknowledged changes are lost."""
    lost = [await lives_until_the_power_fails(tmp_path, seed, "normal") for seed in range(15)]
    assert sum(lost) > 0


async def test_a_full_disk_refuses_changes_whole_and_the_end_finds_the_reserve(tmp_path):
    disk, clock = Disk("consents-full"), FixedClock(NOW)
    open_ = {"clock": clock, "limits": limits(), "reserve_octets": 1_000_000}
    async with open_keeper(tmp_path, vfs=disk.name, **open_) as keeper:
        desk = Desk(tmp_path, keeper=keeper)
        await desk.put(consent())
        assert (tmp_path / RESERVE).stat().st_size == 1_000_000
        disk.full = True
        with trio.fail_after(1):
            status, answer, response = await desk.call("PATCH", "/consents/c1", approval())
        assert (status, answer["errorCode"]) == (503, "GenericRecoverableError")
        assert dict(response.headers)[b"retry-after"]
        assert (await desk.stored()).status is Status.AWAITING
        disk.full = False
        assert (await desk.call("PATCH", "/consents/c1", approval()))[0] == 204
        assert (tmp_path / RESERVE).exists()
        disk.full = True
        assert (await desk.call("POST", "/consents/c1/action/revoke", {"revokedBy": "LFI"}))[
            0
        ] == 503
        desk.observer.close()
    assert not (tmp_path / RESERVE).exists(), "the end needed the room"
    disk.full = False
    async with open_keeper(tmp_path, **open_) as keeper:
        assert (tmp_path / RESERVE).stat().st_size == 1_000_000
        assert (await keeper.lookup(Consent, "c1"))[0].status is Status.AUTHORIZED


def test_without_room_nothing_is_set_aside(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    assert not Reserve(tmp_path, 1000).hold()
    assert list(tmp_path.iterdir()) == []
