"""The data-sharing journey step by step: discovery to refreshed token, each step told (journeys.md section 2)."""

from pathlib import Path
from typing import Any, Final, TypeVar, final

import trio

from hub.node.wall import SystemDice
from hub.sandbox.browser import Browser, Page
from hub.sandbox.clock import SharedClock
from hub.sandbox.manifest import CustomerSection, Manifest, TppSection
from hub.sandbox.narration import Narrator
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import (
    Answer,
    Callback,
    Discovery,
    Identity,
    Pushed,
    Refused,
    Tokens,
    Tpp,
    Wire,
    data_sharing_consent,
    read_callback,
    serve_callbacks,
)
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from hub.sandbox.tpp.exchange import refused
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import authorization_url

T = TypeVar("T")

ACCOUNT_INFORMATION: Final = "/open-finance/account-information/v2.1"
CONSENT_S: Final = 90 * 86_400
CALLBACK_S: Final = 15.0


class Stopped(Exception):  # noqa: N818 - a refusal is not an error of ours
    """Say at which step the journey ended, and who said what."""


@final
class DataSharingJourney:
    """One customer, one TPP, one consent."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        person: CustomerSection,
        *,
        clock: SharedClock,
        narrator: Narrator,
        tpp: TppSection | None = None,
    ) -> None:
        """Take the world and who travels through it; the first TPP by default."""
        section = tpp or manifest.tpps[0]
        dice = SystemDice()
        self._manifest = manifest
        self._folder = folder
        self._section = section
        self._person = person
        self._narrator = narrator
        self._clock = clock
        self._dice = dice
        self._identity = Identity.read(section, folder, manifest.ca_bundle, clock, dice)

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        tell, person = self._narrator, self._person
        tell.title(
            f"{self._section.name} asks {person.name} for the accounts at "
            f"{self._manifest.bank.provider_id}, through the Hub"
        )
        async with (
            Wire.of(self._identity, tell.exchange) as wire,
            serve_callbacks(self._identity.redirect_uri, self._page_files()) as callbacks,
        ):
            tpp = Tpp(self._identity, wire)
            discovery = await self._discover(tpp)
            pushed = await self._push(tpp, discovery)
            await self._consent(discovery, pushed, decline=decline)
            came = await self._came_back(callbacks, pushed, discovery, decline=decline)
            if came is None:
                tell.good("Done: the customer declined, and the TPP got nothing.")
                return
            tokens = await self._redeem(tpp, discovery, came, pushed)
            await self._read(tpp, tokens.access_token)
            await self._refresh(tpp, discovery, tokens)
        tell.good("Done: the customer's consent took account data from the bank to the TPP.")

    async def _discover(self, tpp: Tpp) -> Discovery:
        discovery = _got("discovery", await tpp.discover(self._manifest.hub.issuer))
        self._narrator.step(
            f"Discovery: {discovery.issuer} says where to push requests and get tokens",
            "a TPP configures nothing but the issuer, and checks that the metadata names it",
        )
        return discovery

    async def _push(self, tpp: Tpp, discovery: Discovery) -> Pushed:
        consent_id = self._dice.uuid()
        detail = data_sharing_consent(consent_id=consent_id, expires=self._clock.now() + CONSENT_S)
        pushed = _got("the pushed request", await tpp.push(discovery, detail, DATA_SHARING_SCOPE))
        self._narrator.step(
            f"Pushed authorization request: consent {consent_id} for "
            f"{', '.join(detail['consent']['Permissions'])}",
            "signed with PS256 and sent over mTLS with a signed client assertion, so nobody can change or forge it",
        )
        self._narrator.step(
            f"The Hub stored the consent and answered {pushed.request_uri[:48]}…, "
            f"good for {pushed.expires_in} s",
            "the browser will carry this reference and nothing else",
        )
        return pushed

    async def _consent(self, discovery: Discovery, pushed: Pushed, *, decline: bool) -> None:
        url = authorization_url(self._identity, discovery, pushed.request_uri, DATA_SHARING_SCOPE)
        context = client_context(self._folder / self._manifest.ca_bundle)
        async with Browser(context, self._narrator.visit) as browser:
            page = await browser.visit(url)
            self._narrator.step(
                f"The browser opens the bank's own page at {discovery.authorization_endpoint}",
                "the customer's password is typed at the bank only; the bank asks the Hub what the request is about",
            )
            page = await self._log_in(browser, page)
            await self._decide(browser, page, decline=decline)

    async def _log_in(self, browser: Browser, page: Page) -> Page:
        form = page.form_with("username", "password")
        if form is None:
            raise Stopped(f"the bank shows no login form ({page.status})")
        person = self._person
        page = await browser.submit(
            form, {"username": person.username, "password": person.password}
        )
        if page.form_with("account", "decision") is None:
            raise Stopped(f"the bank does not let {person.username} in ({page.status})")
        self._narrator.step(
            f"{person.name} logs in as {person.username}",
            "the bank shows the consent as the Hub keeps it: which TPP, what data, until when",
        )
        return page

    async def _decide(self, browser: Browser, page: Page, *, decline: bool) -> None:
        form = page.form_with("account", "decision")
        if form is None:
            raise Stopped("the bank shows no decision form")
        offered = list(form.offers.get("account", ()))
        fields: dict[str, str | list[str]] = {"decision": "decline" if decline else "approve"}
        if not decline:
            fields["account"] = offered
        await browser.submit(form, fields)
        if decline:
            self._narrator.step(
                f"{self._person.name} declines", "the bank tells the Hub, and the Hub the TPP"
            )
        else:
            self._narrator.step(
                f"{self._person.name} approves {len(offered)} account(s): {', '.join(offered)}",
                "the bank writes user and accounts into the Hub's consent, now Authorized; the Hub will let no other through",
            )

    async def _came_back(
        self,
        callbacks: trio.MemoryReceiveChannel[str],
        pushed: Pushed,
        discovery: Discovery,
        *,
        decline: bool,
    ) -> Callback | None:
        with trio.move_on_after(CALLBACK_S) as waiting:
            came = read_callback(await callbacks.receive(), pushed, discovery)
        if waiting.cancelled_caught:
            raise Stopped("the browser did not come back to the TPP")
        if isinstance(came, Refused):
            if decline and came.code == "access_denied":
                self._narrator.step(
                    "The browser comes back with error=access_denied",
                    "iss and state were right, so it is the Hub's true answer to this request",
                )
                return None
            raise Stopped(f"the callback: {came.line}")
        self._narrator.step(
            "The browser comes back to the TPP with a code; state and iss are right",
            "the code is good once, for a minute, for this TPP alone, and only with the PKCE verifier",
        )
        return came

    async def _redeem(
        self, tpp: Tpp, discovery: Discovery, came: Callback, pushed: Pushed
    ) -> Tokens:
        tokens = _got("the token", await tpp.redeem(discovery, came.code, pushed))
        if tokens.id_token:
            _got(
                "the id_token",
                await tpp.check_id_token(discovery, tokens.id_token, pushed.nonce),
            )
        status = _at(tokens.authorization_details, 0, "consent", "Data", "Status")
        self._narrator.step(
            f"Code turned into tokens (access: {tokens.expires_in} s); the consent is {status}",
            "the access token is bound to the TPP's certificate: stolen, it opens nothing",
        )
        return tokens

    async def _read(self, tpp: Tpp, token: str) -> None:
        base = self._manifest.hub.resource_base + ACCOUNT_INFORMATION
        accounts = _data("GET /accounts", await tpp.get(f"{base}/accounts", token))
        found = [str(row.get("AccountId")) for row in accounts.get("Account", [])]
        self._narrator.step(
            f"GET /accounts: {len(found)} account(s): {', '.join(found)}",
            "the Hub checked token, certificate and consent, asked the bank for these accounts only, and recorded the call",
        )
        if not found:
            raise Stopped("the answer holds no account")
        one = f"{base}/accounts/{found[0]}"
        _data("GET one account", await tpp.get(one, token))
        self._narrator.step(
            f"GET /accounts/{found[0]}: the account in detail",
            "the permission ReadAccountsDetail was asked for and granted",
        )
        balances = _data("GET balances", await tpp.get(f"{one}/balances", token))
        self._narrator.step(
            f"GET balances: {_first_amount(balances, 'Balance')}",
            "live from the bank's ledger; the Hub keeps no account data",
        )
        answer = _data("GET transactions", await tpp.get(f"{one}/transactions", token))
        rows = answer.get("Transaction", [])
        self._narrator.step(
            f"GET transactions: {len(rows)} on the first page, newest {_first_amount(answer, 'Transaction')}",
            "each call is an event in the Hub's audit log before the TPP sees the answer",
        )

    async def _refresh(self, tpp: Tpp, discovery: Discovery, tokens: Tokens) -> None:
        if not tokens.refresh_token:
            return
        again = _got("the refresh", await tpp.refresh(discovery, tokens.refresh_token))
        url = f"{self._manifest.hub.resource_base}{ACCOUNT_INFORMATION}/accounts"
        _data("GET /accounts", await tpp.get(url, again.access_token))
        self._narrator.step(
            "Refreshed the token and read the accounts again",
            "no customer is needed while the consent lasts; revoked, this ends at once",
        )

    def _page_files(self) -> Files:
        section = self._section
        return Files(
            ca=self._folder / self._manifest.ca_bundle,
            certificate=self._folder / section.server_cert,
            key=self._folder / section.server_key,
        )


def _got(what: str, value: T | Refused) -> T:
    if isinstance(value, Refused):
        raise Stopped(f"{what} was refused: {value.line}")
    return value


def _data(what: str, answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        raise Stopped(f"{what} was refused: {refused(answer).line}")
    body = answer.json()
    data = body.get("Data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise Stopped(f"{what}: the answer has no Data")
    return data


def _at(value: Any, *path: str | int) -> Any:
    """Return what lies at a path of foreign JSON, or None."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _first_amount(data: dict[str, Any], name: str) -> str:
    amount, currency = (_at(data, name, 0, "Amount", part) for part in ("Amount", "Currency"))
    return f"{amount} {currency}" if amount else "none"
