"""The page on which customers see their consents, stop them, and approve as second signatory."""

from pathlib import Path
from typing import Any

import pytest

from hub.sandbox.site import SiteResponse
from tests.sandbox.bank_world import CONSENT, World, account_access, payment_consent
from tests.sandbox.test_bank_pages import BASE, Browser, forms, location

PAGE = f"{BASE}/consents"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def given(user_id: str, status: str = "Authorized", **record: Any) -> dict[str, Any]:
    return {
        **account_access(),
        "status": status,
        "psuIdentifiers": {"userId": user_id},
        "accountIds": ["100100000001"],
        "consentUsage": {"lastDataShared": "2026-11-01T08:00:00Z"},
        **record,
    }


async def see(world: World, username: str, password: str) -> tuple[Browser, SiteResponse]:
    browser = Browser(world)
    page = await browser.send("GET", PAGE)
    return browser, await browser.submit(page, "password", username=username, password=password)


async def test_customer_sees_consents_and_stops_one(world: World) -> None:
    world.hub.record = given("u-7c1d5e01")
    browser, page = await see(world, "aisha", "pearl-diver-21")
    text = page.body.decode()
    assert "Active" in text
    assert "Everyday 0001" in text
    assert "1 November 2026" in text
    done = await browser.submit(page, "consent", consent=CONSENT, decision="revoke")
    assert b'role="status"' in done.body
    ((_, path, body),) = world.hub.of("POST", "action/revoke")
    assert path == f"/consents/{CONSENT}/action/revoke"
    assert body == {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": {"userId": "u-7c1d5e01"}}


async def test_consent_that_has_ended_cannot_be_stopped(world: World) -> None:
    world.hub.record = given("u-7c1d5e01", "Expired")
    browser, page = await see(world, "aisha", "pearl-diver-21")
    assert "revoke" not in forms(page)[0].offers.get("decision", ())
    again = await browser.submit(page, "consent", consent=CONSENT, decision="revoke")
    assert b'role="alert"' in again.body
    assert not world.hub.of("POST", "action/revoke")


async def test_consent_of_somebody_else_cannot_be_stopped(world: World) -> None:
    world.hub.record = given("u-7c1d5e02")
    browser, page = await see(world, "aisha", "pearl-diver-21")
    await browser.submit(page, "consent", consent=CONSENT, decision="revoke")
    assert not world.hub.of("POST", "action/revoke")


async def test_page_needs_a_login_and_logging_out_ends_it(world: World) -> None:
    world.hub.record = given("u-7c1d5e01")
    browser, page = await see(world, "aisha", "wrong")
    assert page.status == 401
    browser, page = await see(world, "aisha", "pearl-diver-21")
    assert b"Your consents" in (await browser.send("GET", PAGE)).body
    csrf = dict(forms(page)[-1].preset)["csrf"]
    out = await browser.send("POST", f"{BASE}/logout", f"csrf={csrf}".encode())
    assert location(out) == PAGE
    assert b'name="password"' in (await browser.send("GET", PAGE)).body


async def test_locked_username_is_told_to_wait(world: World) -> None:
    browser = Browser(world)
    page = await browser.send("GET", PAGE)
    for _ in range(5):
        page = await browser.submit(page, "password", username="aisha", password="wrong")
    assert b"Too many attempts" in page.body


async def _first_signature(world: World) -> None:
    world.hub.record = payment_consent()
    browser = Browser(world)
    page = await browser.log_in("noura", "harbour-light-7")
    await browser.submit(page, "account", account=["300100000001"], decision="approve")
    world.hub.record = {
        **world.hub.record,
        "psuIdentifiers": {"userId": "u-7c1d5e03"},
        "accountIds": ["300100000001"],
    }
    world.hub.calls.clear()


async def test_second_signatory_completes_the_consent(world: World) -> None:
    await _first_signature(world)
    browser, page = await see(world, "yusuf", "north-wind-90")
    done = await browser.submit(page, "consent", consent=CONSENT, decision="approve")
    assert b"You have approved" in done.body
    ((_, _, change),) = world.hub.of("PATCH")
    assert change["consentBody.Data.Status"] == "Authorized"
    progress = change["consentBody.Meta.MultipleAuthorizers"]["Authorizations"]
    assert [a["AuthorizationStatus"] for a in progress] == ["Approved", "Approved"]
    granted = world.book.granted(CONSENT)
    assert granted is not None
    assert granted.approvals == ("u-7c1d5e03", "u-7c1d5e04")
    again = await browser.submit(page, "consent", consent=CONSENT, decision="approve")
    assert b'role="alert"' in again.body


async def test_second_signatory_declines(world: World) -> None:
    await _first_signature(world)
    browser, page = await see(world, "yusuf", "north-wind-90")
    await browser.submit(page, "consent", consent=CONSENT, decision="decline")
    assert world.hub.of("PATCH")[0][2]["consentBody.Data.Status"] == "Rejected"


async def test_first_signatory_cannot_sign_twice(world: World) -> None:
    await _first_signature(world)
    browser, page = await see(world, "noura", "harbour-light-7")
    await browser.submit(page, "consent", consent=CONSENT, decision="approve")
    assert not world.hub.of("PATCH")


async def test_hub_that_is_away_is_an_error_page(world: World) -> None:
    world.hub.down = {"consents"}
    _, page = await see(world, "aisha", "pearl-diver-21")
    assert page.status == 502
