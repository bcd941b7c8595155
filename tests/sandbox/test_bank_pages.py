"""The model bank's pages: login, consent, what the Hub is told, and what cannot be done with them."""

from pathlib import Path
from urllib.parse import parse_qs, urlencode

import httpx
import pytest
import trio

from hub.sandbox.bank.sessions import COOKIE
from hub.sandbox.browser import Form, forms_of
from hub.sandbox.site import SiteRequest, SiteResponse
from tests.sandbox.bank_world import CONSENT, World, account_access, payment_consent

BASE = "/open-finance"
QUERY = "client_id=abc&response_type=code&scope=openid&request_uri=urn%3Aietf%3Aparams%3A1&x=%2B"
A, B = "100100000001", "100100000002"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Browser:
    """A customer's browser without a network."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookie = ""

    async def send(self, method: str, target: str, body: bytes = b"") -> SiteResponse:
        path, _, query = target.partition("?")
        answer = await self.world.bank.pages_handler(
            SiteRequest(
                method=method,
                path=path,
                query=query,
                headers=(("cookie", self.cookie), ("host", "localhost")),
                body=body,
                certificate=b"",
            )
        )
        for name, value in answer.headers:
            if name == "set-cookie":
                self.cookie = value.split(";")[0]
        return answer

    async def submit(self, answer: SiteResponse, want: str, **fields: object) -> SiteResponse:
        """Fill in the first form of a page that has the field ``want``."""
        form = next(f for f in forms(answer) if want in f.offers)
        preset = [(k, v) for k, v in form.preset if k not in fields]
        given = [(k, v) for k, vs in fields.items() for v in (vs if isinstance(vs, list) else [vs])]
        return await self.send("POST", form.action, urlencode([*preset, *given]).encode())

    async def arrive(self) -> SiteResponse:
        return await self.send("GET", f"{BASE}?{QUERY}")

    async def log_in(self, username: str = "aisha", password: str = "pearl-diver-21"):
        page = await self.arrive()
        return await self.submit(page, "password", username=username, password=password)


def forms(answer: SiteResponse) -> tuple[Form, ...]:
    return forms_of(answer.body.decode(), "")


def location(answer: SiteResponse) -> str:
    assert answer.status == 303, answer.body
    return dict(answer.headers)["location"]


def failure(world: World) -> tuple[str, str]:
    """Return what the Hub was told by doFail."""
    ((_, _, body),) = world.hub.of("POST", "doFail")
    form = parse_qs(body)
    return form["error"][0], form["error_description"][0]


async def test_hub_gets_the_query_as_the_browser_brought_it(world: World) -> None:
    answer = await Browser(world).arrive()
    assert world.hub.calls[0][:2] == ("GET", f"/auth?{QUERY}")
    assert answer.status == 200
    assert {"username", "password"} <= set(forms(answer)[0].offers)


async def test_customer_approves_and_is_sent_to_the_tpp(world: World) -> None:
    browser = Browser(world)
    page = await browser.log_in()
    assert page.status == 200
    (form,) = forms(page)
    assert form.offers["account"] == (A, B)
    assert form.offers["decision"] == ("approve", "decline")
    answer = await browser.submit(page, "account", account=[A, B], decision="approve")
    assert location(answer) == "https://tpp.example/cb?did=doConfirm"
    ((_, path, change),) = world.hub.of("PATCH")
    assert path == f"/consents/{CONSENT}"
    assert change == {
        "psuIdentifiers": {"userId": "u-7c1d5e01"},
        "accountIds": [A, B],
        "authorizationChannel": "Web",
        "consentBody.Data.Status": "Authorized",
    }
    assert [c[1] for c in world.hub.calls][-2:] == [path, "/auth/int-1/doConfirm"]
    granted = world.book.granted(CONSENT)
    assert granted is not None
    assert granted.accounts == (A, B)


async def test_what_was_agreed_survives_a_restart(world: World, tmp_path: Path) -> None:
    browser = Browser(world)
    await browser.submit(await browser.log_in(), "account", account=[A], decision="approve")
    again = World(tmp_path)
    assert (await again.data(f"/accounts?accountIds={A}&page=1"))["data"][0]["id"] == A


async def test_customer_declines(world: World) -> None:
    browser = Browser(world)
    answer = await browser.submit(await browser.log_in(), "account", decision="decline")
    assert location(answer).endswith("did=doFail")
    ((_, _, change),) = world.hub.of("PATCH")
    assert change == {"consentBody.Data.Status": "Rejected", "authorizationChannel": "Web"}
    assert failure(world) == ("access_denied", "user_rejected_consent")
    assert world.book.granted(CONSENT) is None


async def test_approval_without_an_account_shows_the_form_again(world: World) -> None:
    browser = Browser(world)
    answer = await browser.submit(await browser.log_in(), "account", decision="approve")
    assert answer.status == 400
    assert b'role="alert"' in answer.body
    assert not world.hub.of("PATCH")


async def test_account_of_somebody_else_cannot_be_chosen(world: World) -> None:
    browser = Browser(world)
    page = await browser.log_in()
    answer = await browser.submit(page, "account", account=["300100000001"], decision="approve")
    assert answer.status == 400
    answer = await browser.submit(page, "account", account=["300100000001", A], decision="approve")
    assert world.hub.of("PATCH")[0][2]["accountIds"] == [A]


async def test_wrong_password_shows_the_form_again_and_the_third_ends_it(world: World) -> None:
    browser = Browser(world)
    page = await browser.arrive()
    for _ in range(2):
        page = await browser.submit(page, "password", username="aisha", password="wrong")
        assert page.status == 401
    answer = await browser.submit(page, "password", username="aisha", password="wrong")
    assert location(answer).endswith("did=doFail")
    assert failure(world) == ("access_denied", "user_failed_to_authenticate")
    assert not world.hub.of("PATCH")


async def test_unknown_username_looks_like_a_wrong_password(world: World) -> None:
    browser = Browser(world)
    page = await browser.arrive()
    wrong = await browser.submit(page, "password", username="aisha", password="wrong")
    unknown = await browser.submit(page, "password", username="nobody", password="wrong")
    assert wrong.status == unknown.status == 401
    assert wrong.body == unknown.body


async def test_five_failures_lock_the_username_for_a_while(world: World) -> None:
    for _ in range(2):
        browser = Browser(world)
        page = await browser.arrive()
        for _ in range(2):
            page = await browser.submit(page, "password", username="aisha", password="wrong")
    browser = Browser(world)
    page = await browser.arrive()
    await browser.submit(page, "password", username="aisha", password="wrong")
    assert failure(world) == ("access_denied", "user_account_blocked")
    world.hub.calls.clear()
    await Browser(world).log_in()
    assert failure(world) == ("access_denied", "user_account_blocked")
    world.clock.advance(901)
    assert (await Browser(world).log_in()).status == 200


async def test_customer_gives_up_before_logging_in(world: World) -> None:
    browser = Browser(world)
    page = await browser.arrive()
    answer = await browser.submit(page, "decision", decision="decline")
    assert location(answer).endswith("did=doFail")
    assert failure(world) == ("access_denied", "user_failed_to_authenticate")


async def test_form_without_the_session_or_its_token_is_refused(world: World) -> None:
    browser = Browser(world)
    page = await browser.arrive()
    right = {"username": "aisha", "password": "pearl-diver-21"}
    assert (await browser.submit(page, "password", csrf="", **right)).status == 403
    browser.cookie = ""
    assert (await browser.submit(page, "password", **right)).status == 403
    other = Browser(world)
    await other.arrive()
    assert (await other.submit(page, "password", **right)).status == 403


async def test_interaction_of_another_session_cannot_be_decided(world: World) -> None:
    victim = Browser(world)
    page = await victim.log_in()
    interaction = dict(forms(page)[0].preset)["interaction"]
    thief = Browser(world)
    world.hub.auth = httpx.Response(
        200, json={"interaction": {"interactionId": "int-2", "consentIdsList": [CONSENT]}}
    )
    own = await thief.log_in("omar", "cedar-oven-44")
    answer = await thief.submit(
        own, "account", interaction=interaction, account=["100200000001"], decision="approve"
    )
    assert answer.status == 400
    assert not world.hub.of("PATCH")


async def test_decision_before_login_is_refused(world: World) -> None:
    browser = Browser(world)
    fields = dict(forms(await browser.arrive())[0].preset)
    body = urlencode({**fields, "account": A, "decision": "approve"}).encode()
    assert (await browser.send("POST", f"{BASE}/consent", body)).status == 400
    assert not world.hub.of("PATCH")


async def test_decision_counts_once(world: World) -> None:
    browser = Browser(world)
    page = await browser.log_in()
    await browser.submit(page, "account", account=[A], decision="approve")
    again = await browser.submit(page, "account", account=[A], decision="approve")
    assert again.status == 400
    assert len(world.hub.of("PATCH")) == 1


async def test_form_that_is_sent_twice_at_once_counts_once(world: World) -> None:
    browser = Browser(world)
    page = await browser.log_in()
    statuses: list[int] = []

    async def press() -> None:
        answer = await browser.submit(page, "account", account=[A], decision="approve")
        statuses.append(answer.status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(press)
        nursery.start_soon(press)
    assert sorted(statuses) == [303, 400]
    assert len(world.hub.of("PATCH")) == 1
    assert not world.hub.of("POST", "doFail")


async def test_session_gets_a_new_id_at_login_and_ends_by_time(world: World) -> None:
    browser = Browser(world)
    await browser.arrive()
    before = browser.cookie
    page = await browser.log_in()
    assert browser.cookie != before
    world.clock.advance(1_801)
    answer = await browser.submit(page, "account", account=[A], decision="approve")
    assert answer.status == 403


async def test_cookie_is_out_of_reach_of_scripts_and_other_sites(world: World) -> None:
    answer = await Browser(world).arrive()
    cookie = dict(answer.headers)["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert set(cookie.split("; ")[1:]) == {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}
    policy = dict(answer.headers)["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


async def test_name_of_the_provider_is_escaped(world: World) -> None:
    page = await Browser(world).log_in()
    assert b"Budget Buddy &lt;FZ&gt;" in page.body
    assert b"<FZ>" not in page.body


async def test_redirect_of_the_hub_is_relayed_untouched(world: World) -> None:
    target = "https://tpp.example/cb?error=invalid_request_uri&state=a%2Bb&iss=https%3A%2F%2Fas"
    world.hub.auth = httpx.Response(303, headers={"location": target})
    assert location(await Browser(world).arrive()) == target


async def test_error_that_may_not_be_redirected_is_shown_here(world: World) -> None:
    world.hub.auth = httpx.Response(
        400, json={"error": "invalid_client", "error_description": "<b>unknown</b>"}
    )
    answer = await Browser(world).arrive()
    assert answer.status == 400
    assert b"invalid_client" in answer.body


async def test_hub_that_is_away_is_an_error_page(world: World) -> None:
    world.hub.down = {"auth"}
    assert (await Browser(world).arrive()).status == 502


async def test_consent_manager_that_is_away_ends_the_interaction(world: World) -> None:
    browser = Browser(world)
    page = await browser.log_in()
    world.hub.down = {"PATCH"}
    answer = await browser.submit(page, "account", account=[A], decision="approve")
    assert location(answer).endswith("did=doFail")
    assert failure(world) == ("server_error", "api_hub_communication_error")


async def test_customer_without_a_fitting_account_is_turned_down(world: World) -> None:
    world.hub.record = account_access(AccountSubType=["Mortgage"])
    answer = await Browser(world).log_in()
    assert location(answer).endswith("did=doFail")
    assert failure(world) == ("invalid_request", "user_lacks_eligible_accounts")
    assert world.hub.of("PATCH")[0][2]["consentBody.Data.Status"] == "Rejected"


async def test_only_accounts_of_the_asked_kind_are_offered(world: World) -> None:
    world.hub.record = account_access(AccountType=["Retail"], AccountSubType=["Savings"])
    page = await Browser(world).log_in()
    assert forms(page)[0].offers["account"] == (B,)


async def test_consent_of_a_kind_this_bank_has_not_is_turned_down(world: World) -> None:
    world.hub.record = {**account_access(), "consentType": "cbuae-insurance-consents"}
    await Browser(world).log_in()
    assert failure(world) == ("access_denied", "consent_not_supported")


async def test_payment_takes_exactly_one_account(world: World) -> None:
    world.hub.record = payment_consent()
    browser = Browser(world)
    page = await browser.log_in()
    assert b"250.00 AED" in page.body
    refused = await browser.submit(page, "account", account=[A, B], decision="approve")
    assert refused.status == 400
    answer = await browser.submit(page, "account", account=[A], decision="approve")
    assert location(answer).endswith("did=doConfirm")
    assert world.hub.of("PATCH")[0][2]["accountIds"] == [A]


async def test_payment_from_an_account_of_two_signatories_waits_for_the_second(
    world: World,
) -> None:
    world.hub.record = payment_consent()
    browser = Browser(world)
    page = await browser.log_in("noura", "harbour-light-7")
    answer = await browser.submit(page, "account", account=["300100000001"], decision="approve")
    assert location(answer).endswith("did=doConfirm")
    change = world.hub.of("PATCH")[0][2]
    assert "consentBody.Data.Status" not in change
    progress = change["consentBody.Meta.MultipleAuthorizers"]
    assert progress["TotalRequired"] == 2
    states = [a["AuthorizationStatus"] for a in progress["Authorizations"]]
    assert states == ["Approved", "Pending"]


async def test_every_field_has_a_label_and_every_page_a_language_and_heading(
    world: World,
) -> None:
    browser = Browser(world)
    login = await browser.arrive()
    consent = await browser.submit(login, "password", username="aisha", password="pearl-diver-21")
    for page in (login, consent):
        text = page.body.decode()
        assert '<html lang="en">' in text
        assert text.count("<h1>") == 1
        assert "<script" not in text
        for field in ("username", "password", "account-1", "account-2"):
            assert (f'id="{field}"' in text) == (f'for="{field}"' in text)


async def test_style_sheet_is_served_and_unknown_pages_are_not(world: World) -> None:
    browser = Browser(world)
    assert dict((await browser.send("GET", f"{BASE}/style.css")).headers)[
        "content-type"
    ].startswith("text/css")
    assert (await browser.send("GET", f"{BASE}/nothing")).status == 404
