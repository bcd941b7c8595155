"""``hub admin`` on a Hub of two workers that activates nobody by itself: levels, blocks, outages; at once, on every worker."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hub.sandbox.tpp import Pushed
from tests.wire.newcomer import events, log_of, newcomer, operator, three_places, thumbprint
from tests.wire.world import ROOT, Sandbox, free_base

pytestmark = pytest.mark.wire
SETTING = "HUB__TRUST__AUTO_ACTIVATE"
held: dict[str, str] = {}


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Start a sandbox whose Hub activates nobody."""
    world = Sandbox(tmp_path_factory.mktemp("strict") / "sandbox", free_base(), "--workers", "2")
    os.environ[SETTING] = "false"
    try:
        world.start()
    finally:
        del os.environ[SETTING]
    yield world
    assert world.stop() == 0


def admin(sandbox, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hub", "admin", "--config", str(sandbox.folder / "hub.toml")]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


def outcome(places: dict[str, tuple[int, str]]) -> set[int]:
    return {status for status, _ in places.values()}


async def on_every_worker(sandbox, section, token: str) -> set[frozenset[int]]:
    """Try the three places over eight connections, so that both workers are met."""
    found = set()
    for _ in range(8):
        async with newcomer(sandbox, section) as acting:
            found.add(frozenset(outcome(await three_places(acting, token))))
    return found


async def test_nobody_passes_before_all_three_levels_are_active_in_their_order(strict):
    section = strict.manifest.tpps[0]
    client = section.client_id
    last = thumbprint(strict.folder / section.transport_cert)
    async with newcomer(strict, section) as acting:
        for level, check in (
            ("tpp", "trust.not_activated"),
            ("statement", "trust.not_activated"),
            ("client", "trust.not_activated"),
        ):
            assert outcome(await three_places(acting, "x")) == {401}
            told = events(strict.folder / "state", last, 3)
            assert [e["check"] for e in told][:2] == [check, check]
            if level == "tpp":
                out_of_order = admin(strict, "activate", client, "--level", "client")
                assert out_of_order.returncode == 1
                assert "registration.order" in out_of_order.stderr
            done = admin(strict, "activate", client, "--level", level)
            assert (done.returncode, done.stderr) == (0, "")
        assert isinstance(await acting.push(), Pushed)
        held["token"] = (await acting.consented()).access_token
        assert outcome(await three_places(acting, held["token"])) == {201, 200}


@pytest.mark.parametrize("level", ["tpp", "statement", "client"])
async def test_a_block_at_each_level_holds_on_every_worker_when_the_command_returns(strict, level):
    section = strict.manifest.tpps[0]
    assert await on_every_worker(strict, section, held["token"]) == {frozenset({200, 201})}
    assert (await operator(strict, "block", client=section.client_id, level=level))["ok"]
    assert await on_every_worker(strict, section, held["token"]) == {frozenset({401})}
    last = thumbprint(strict.folder / section.transport_cert)
    assert {e["check"] for e in events(strict.folder / "state", last)} == {"trust.blocked"}
    assert (await operator(strict, "unblock", client=section.client_id, level=level))["ok"]
    assert await on_every_worker(strict, section, held["token"]) == {frozenset({200, 201})}


async def test_one_action_activates_all_three(strict):
    section = strict.manifest.tpps[1]
    async with newcomer(strict, section) as acting:
        assert outcome(await three_places(acting, "x")) == {401}
        shown = admin(strict, "activate", section.client_id)
        assert "client active" in shown.stdout
        assert isinstance(await acting.push(), Pushed)


async def test_an_operator_revokes_a_consent(strict):
    async with newcomer(strict, strict.manifest.tpps[0]) as acting:
        tokens = await acting.consented()
        consent = tokens.authorization_details[0]["consent"]["Data"]["ConsentId"]
        assert (await acting.get("/accounts", tokens.access_token)).status == 200
        done = admin(strict, "revoke", consent)
        assert done.stdout.strip() == f"{consent}  Revoked"
        assert (await acting.get("/accounts", tokens.access_token)).status == 401
    assert admin(strict, "revoke", "unknown").returncode == 1


def test_outages_are_planned_shown_and_called_off(strict):
    day = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%d")
    planned = admin(
        strict,
        "outage",
        "plan",
        "--from",
        f"{day}T00:00",
        "--until",
        f"{day}T02:00",
        "--reason",
        "new disks",
    )
    outage = planned.stdout.split()[0]
    assert "new disks" in admin(strict, "outage", "list").stdout
    assert admin(strict, "outage", "cancel", outage).returncode == 0
    assert "cancelled" in admin(strict, "outage", "list").stdout
    backwards = ("--from", f"{day}T03:00", "--until", f"{day}T02:00")
    wrong = admin(strict, "outage", "plan", *backwards)
    assert wrong.returncode == 1
    assert "outage.period" in wrong.stderr


@pytest.mark.parametrize(
    "command",
    ["registrations", "trust", "expiries", "dead-letters", "replay", "resync", "reload"],
)
def test_every_other_command_is_answered_and_an_event(strict, command):
    done = admin(strict, "--json", command)
    assert done.returncode == 0, done.stderr
    assert msgspec.json.decode(done.stdout)["ok"] is True
    log = [e for e in log_of(strict.folder / "state") if e["kind"] == "admin"]
    assert log[-1]["route"] == f"admin.{command}"


def test_the_socket_is_its_owners_only_and_a_hub_that_is_not_there_is_one_line(strict, tmp_path):
    path = strict.folder / "state/admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    other = tmp_path / "hub.toml"
    other.write_text((strict.folder / "hub.toml").read_text())
    command = [sys.executable, "-m", "hub", "admin", "--config", str(other), "trust"]
    nobody = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert nobody.returncode == 4
    assert len(nobody.stderr.splitlines()) == 1
