"""``hub admin`` on a Hub of two workers that activates nobody by itself: levels, blocks, outages,
payments of unknown outcome; at once, on every worker."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from hub.node.keys import new_signing_key
from hub.sandbox.control import ask as tell_world
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Pushed
from hub.sandbox.tpp.schedules import controls, variable_on_demand
from hub.trust.push import ROUTE
from tests.waiting import until
from tests.wire.crashes import book_of
from tests.wire.newcomer import do, events, log_of, newcomer, operator, three_places, thumbprint
from tests.wire.payer import Payer
from tests.wire.test_payment_crowd import today
from tests.wire.world import ROOT, Sandbox, actor, free_base

pytestmark = pytest.mark.wire
SETTINGS = {"HUB__TRUST__AUTO_ACTIVATE": "false", "HUB__BANK__DEDUPES_BY_KEY": "false"}
PUSH_KEY = "a-key-that-only-the-framework-and-we-know"
held: dict[str, str] = {}


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Start a sandbox whose Hub activates nobody, and whose bank promises nothing about keys."""
    world = Sandbox(tmp_path_factory.mktemp("strict") / "sandbox", free_base(), "--workers", "2")
    key = tmp_path_factory.mktemp("push") / "push.key"
    key.write_text(PUSH_KEY)
    given = {**SETTINGS, "HUB__TRUST__PUSH_KEY": str(key)}
    os.environ.update(given)
    try:
        world.start()
    finally:
        for name in given:
            del os.environ[name]
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
            # Nobody had a token before; what a block does at the resource is the next test.
            assert [e["check"] for e in told] == [check, check, "token.unknown"]
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


async def accounts_everywhere(sandbox, section) -> set[int]:
    """Ask for accounts over eight connections, so that both workers are met."""
    found = set()
    for _ in range(8):
        async with newcomer(sandbox, section) as acting:
            found.add((await acting.get("/accounts", held["token"])).status)
    return found


async def notify(sandbox, key: str) -> int:
    """Push a notification as the framework does: with no certificate of a TPP, the key as a password."""
    context = client_context(sandbox.folder / sandbox.manifest.ca_bundle)
    async with httpx.AsyncClient(verify=context, trust_env=False, auth=("tf", key)) as client:
        url = sandbox.manifest.hub.issuer + "/trust-framework/notifications"
        return (await client.post(url, json={"Message": "something changed"})).status_code


async def test_the_framework_pushes_and_a_delisting_is_obeyed_at_once(strict):
    section = strict.manifest.tpps[0]
    given = {"organisation_id": section.organisation_id}

    async def all_refused() -> bool:
        return await accounts_everywhere(strict, section) == {401}

    async def all_pass() -> bool:
        return await accounts_everywhere(strict, section) == {200}

    await do(strict, "withdraw", **given)
    try:
        assert await notify(strict, "a-key-that-is-not-the-one-that-we-know") == 401
        assert await all_pass()
        assert await notify(strict, PUSH_KEY) == 204
        await until(all_refused, 30, "every worker to have heard of the push")
        last = thumbprint(strict.folder / section.transport_cert)
        told = events(strict.folder / "state", last)
        assert {e["check"] for e in told} == {"trust.organisation_inactive"}
    finally:
        await do(strict, "reinstate", **given)
        assert await notify(strict, PUSH_KEY) == 204
    await until(all_pass, 30, "every worker to have heard of the second push")
    pushes = [e for e in log_of(strict.folder / "state", 900) if e.get("route") == ROUTE]
    assert [e.get("check", "") for e in pushes] == ["trust.push_key", "", ""]
    assert "something changed" in admin(strict, "trust").stdout


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


@pytest.fixture
async def payer(strict):
    """Let the second TPP hold a consent to two payments a day."""
    admin(strict, "activate", strict.manifest.tpps[1].client_id)
    async with actor(strict, 1) as tpp:
        schedule = variable_on_demand("Day", today(tpp), controls(number=2, most="9.00"))
        yield await (await Payer.at(tpp)).consented(schedule)


async def lost(strict, payer, key: str, **plan) -> str:
    """Order while the bank misbehaves, until nobody knows the outcome; return the payment's name in the operators' list."""
    told = {"do": "fault", "at": "bank", "plan": {"path": "/payments", "times": 1, **plan}}
    assert (await tell_world(strict.folder, told))["ok"]
    answer, _ = await payer.order(key, "1.01")
    assert answer.status in {500, 504}, answer

    async def listed():
        rows = (await operator(strict, "payments-unknown"))["payments"]
        return [one["payment"] for one in rows if one["consent"] == payer.consent_id]

    return (await until(listed, 20, "the payment to be listed as unknown"))[0]


async def test_a_payment_that_was_never_made_gives_its_share_back(strict, payer):
    name = await lost(strict, payer, "never-1", status=500)
    assert name in admin(strict, "payments", "unknown").stdout
    assert (await payer.order("never-2", "1.02"))[0].status == 201
    assert (await payer.order("never-3", "1.03"))[0].status == 400, "its share stays taken"
    first = admin(strict, "payments", "settle", name, "--never", "--by", "amal")
    assert first.stdout.strip() == "noted; another operator must say the same"
    alone = admin(strict, "payments", "settle", name, "--never", "--by", "amal")
    assert (alone.returncode, "payment.four_eyes" in alone.stderr) == (1, True)
    second = admin(strict, "payments", "settle", name, "--never", "--by", "badr")
    assert second.stdout.strip() == "settled"
    assert "taken 1 payments" in admin(strict, "payments", "left", payer.consent_id).stdout
    assert (await payer.order("never-4", "1.04"))[0].status == 201
    assert (await payer.order("never-1", "1.01"))[0].status == 400
    assert set(book_of(strict, payer.consent_id)[0]) == {"never-2", "never-4"}
    told = [e for e in log_of(strict.folder / "state") if e.get("consent_id") == payer.consent_id]
    changes = [e["change"] for e in told if e["kind"] == "admin"]
    assert changes == ["proposed:never:amal", "settled:never:amal+badr"]


async def test_a_payment_that_the_bank_did_make_is_answered_from_then_on(strict, payer):
    name = await lost(strict, payer, "made-1", half_answer=True)
    [payment_id] = book_of(strict, payer.consent_id)[0].values()
    said = {"payment": name, "outcome": "made", "id": payment_id}
    assert not (await operator(strict, "payment-settle", **said, by="amal"))["settled"]
    done = admin(strict, "payments", "settle", name, "--made", payment_id, "--by", "badr")
    assert (done.returncode, done.stdout.strip()) == (0, "settled"), done.stderr
    again, message = await payer.order("made-1", "1.01")
    assert again.status == 201
    assert message["Data"]["PaymentId"] == payment_id
    left = await operator(strict, "allowance", consent=payer.consent_id)
    assert left["taken"]["number"] == 1
    late = await operator(strict, "payment-settle", payment=name, outcome="never", by="amal")
    assert (late["ok"], late["check"]) == (False, "payment.not_unknown")
    assert len(book_of(strict, payer.consent_id)[0]) == 1


async def test_a_reload_takes_the_configuration_and_its_keys_over_in_every_worker(strict, tmp_path):
    path = strict.folder / "hub.toml"
    text = path.read_text()
    new = new_signing_key(tmp_path / "new.key", "PS256").kid
    changed = text.replace('signing = ["', f'signing = ["{tmp_path / "new.key"}", "', 1)
    assert changed != text
    context = client_context(strict.folder / strict.manifest.ca_bundle)

    async def published() -> list[bool]:
        """Ask over eight connections, so that both workers are met."""
        told = []
        for _ in range(8):
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                answer = await client.get(strict.manifest.hub.issuer + "/jwks")
            assert answer.status_code in {200, 503}  # a worker that has no lease yet says so
            keys = answer.json()["keys"] if answer.status_code == 200 else []
            told.append(new in {key["kid"] for key in keys})
        return told

    async def everywhere() -> bool:
        return all(await published())

    path.write_text(changed)
    assert not any(await published()), "nothing but the command makes the Hub read it"
    assert admin(strict, "reload").returncode == 0
    await until(everywhere, 40, "the new key at every worker")

    def told() -> list[str]:
        events = [e for e in log_of(strict.folder / "state") if e.get("change") == "reload"]
        return [e["subject"] for e in events if e["kind"] == "configuration"]

    await until(lambda: told() != [], 40, "the event of what the reload changed")
    assert told() == ["keys.signing"]
