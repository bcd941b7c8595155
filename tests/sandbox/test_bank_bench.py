"""The test bench: faults are set and cleared from a page, accounts are blocked and unblocked."""

from pathlib import Path

import pytest

from hub.sandbox.server import NO_FAULT, FaultPlan
from tests.sandbox.bank_world import World, code_of
from tests.sandbox.test_bank_pages import BASE, Browser

PAGE = f"{BASE}/bench"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_fault_is_set_from_the_page_and_cleared(world: World) -> None:
    browser = Browser(world)
    page = await browser.send("GET", PAGE)
    assert b"behaving well" in page.body
    fields = {"path": "/accounts", "times": "2", "latency": "1500", "status": "503"}
    page = await browser.submit(page, "kind", do="set", kind="goaway", **fields)
    assert world.bank.faults.plan == FaultPlan(
        path="/accounts", times=2, latency_s=1.5, status=503, goaway=True
    )
    assert b"status 503" in page.body
    await browser.submit(page, "kind", do="clear")
    assert world.bank.faults.plan is NO_FAULT


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "99"},
        {"status": "600"},
        {"times": "-1"},
        {"latency": "999999"},
        {"kind": "explode"},
        {"path": "accounts"},
    ],
)
async def test_fault_that_makes_no_sense_is_not_set(world: World, wrong: dict[str, str]) -> None:
    browser = Browser(world)
    page = await browser.send("GET", PAGE)
    assert (await browser.submit(page, "kind", do="set", **wrong)).status == 400
    assert world.bank.faults.plan is NO_FAULT


async def test_account_is_blocked_and_unblocked_from_the_page(world: World) -> None:
    world.grant("aisha")
    browser = Browser(world)
    account = "100100000001"
    page = await browser.send("GET", PAGE)
    page = await browser.submit(page, "csrf", do="state", account=account, state="Suspended")
    answer = await world.call(f"/accounts/{account}/balances?page=1")
    assert code_of(answer) == (403, "Consent.AccountTemporarilyBlocked")
    await browser.submit(page, "csrf", do="state", account=account, state="Active")
    assert (await world.call(f"/accounts/{account}/balances?page=1")).status == 200
    assert (await browser.submit(page, "csrf", do="state", account="x", state="y")).status == 400


async def test_bench_needs_the_token_of_its_form(world: World) -> None:
    browser = Browser(world)
    page = await browser.send("GET", PAGE)
    assert (await browser.submit(page, "kind", csrf="", do="set", status="503")).status == 403
    assert world.bank.faults.plan is NO_FAULT
