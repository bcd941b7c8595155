"""What every journey has in common: discovery, the pushed request, the customer at the bank, the callback, the tokens."""

from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from hub.node.wall import SystemDice
from hub.sandbox.browser import Browser, Page
from hub.sandbox.clock import SharedClock
from hub.sandbox.manifest import CustomerSection, Manifest
from hub.sandbox.narration import Narrator
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import (
    Callback,
    Discovery,
    Identity,
    Pushed,
    Refused,
    Tokens,
    Tpp,
    read_callback,
)
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import authorization_url

T = TypeVar("T")

CALLBACK_S: Final = 15.0


class Stopped(Exception):  # noqa: N818 - a refusal is not an error of ours
    """Say at which step the journey ended, and who said what."""


class Travel:
    """One customer, one TPP, one consent: the steps that journeys share, each told; any of them raises ``Stopped``."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        person: CustomerSection,
        *,
        clock: SharedClock,
        narrator: Narrator,
    ) -> None:
        """Take the world and who travels through it, with its first TPP."""
        section = manifest.tpps[0]
        dice = SystemDice()
        self.manifest = manifest
        self.folder = folder
        self.section = section
        self.person = person
        self.narrator = narrator
        self.clock = clock
        self.dice = dice
        self.identity = Identity.read(section, folder, manifest.ca_bundle, clock, dice)

    async def discover(self, tpp: Tpp) -> Discovery:
        """Read the authorization server's metadata."""
        discovery = got("discovery", await tpp.discover(self.manifest.hub.issuer))
        self.narrator.step(
            f"Discovery: {discovery.issuer} says where to push requests and get tokens",
            "a TPP configures nothing but the issuer, and checks that the metadata names it",
        )
        return discovery

    async def push(
        self, tpp: Tpp, discovery: Discovery, detail: dict[str, Any], scope: str, asks: str
    ) -> Pushed:
        """Push the authorization request."""
        pushed = got("the pushed request", await tpp.push(discovery, detail, scope))
        self.narrator.step(
            f"Pushed authorization request: consent {detail['consent']['ConsentId']} for {asks}",
            "signed with PS256 and sent over mTLS with a signed client assertion, so nobody can change or forge it",
        )
        self.narrator.step(
            f"The Hub stored the consent and answered {pushed.request_uri[:48]}…, "
            f"good for {pushed.expires_in} s",
            "the browser will carry this reference and nothing else",
        )
        return pushed

    async def consent(
        self, discovery: Discovery, pushed: Pushed, scope: str, *, decline: bool, most: int = 0
    ) -> None:
        """Be the customer at the bank; ``most`` accounts are chosen, all that are offered where it is 0."""
        url = authorization_url(self.identity, discovery, pushed.request_uri, scope)
        context = client_context(self.folder / self.manifest.ca_bundle)
        async with Browser(context, self.narrator.visit) as browser:
            page = await browser.visit(url)
            self.narrator.step(
                f"The browser opens the bank's own page at {discovery.authorization_endpoint}",
                "the customer's password is typed at the bank only; the bank asks the Hub what the request is about",
            )
            page = await self._log_in(browser, page)
            await self._decide(browser, page, decline=decline, most=most)

    async def at_own_page(
        self, consent_id: str, decision: str, person: CustomerSection | None = None
    ) -> None:
        """Decide on one's own consent at the bank's page: ``revoke`` it, ``approve`` or ``decline`` as second signatory."""
        customer = person or self.person
        context = client_context(self.folder / self.manifest.ca_bundle)
        async with Browser(context, self.narrator.visit) as browser:
            page = await browser.visit(f"{self.manifest.bank.authorization_endpoint}/consents")
            form = page.form_with("username", "password")
            if form is None:
                raise Stopped(f"the bank shows no login form ({page.status})")
            given = {"username": customer.username, "password": customer.password}
            page = await browser.submit(form, given)
            mine = [f for f in page.forms if ("consent", consent_id) in f.preset]
            if not mine or decision not in mine[0].offers.get("decision", ()):
                raise Stopped(f"the bank does not let {customer.username} {decision} that consent")
            page = await browser.submit(mine[0], {"decision": decision})
            if page.status != 200:
                raise Stopped(f"the bank's page answered {page.status}")

    async def _log_in(self, browser: Browser, page: Page) -> Page:
        form = page.form_with("username", "password")
        if form is None:
            raise Stopped(f"the bank shows no login form ({page.status})")
        person = self.person
        page = await browser.submit(
            form, {"username": person.username, "password": person.password}
        )
        if page.form_with("account", "decision") is None:
            raise Stopped(f"the bank does not let {person.username} in ({page.status})")
        self.narrator.step(
            f"{person.name} logs in as {person.username}",
            "the bank shows the consent as the Hub keeps it: which TPP, what data, until when",
        )
        return page

    async def _decide(self, browser: Browser, page: Page, *, decline: bool, most: int) -> None:
        form = page.form_with("account", "decision")
        if form is None:
            raise Stopped("the bank shows no decision form")
        offered = list(form.offers.get("account", ()))[: most or None]
        fields: dict[str, str | list[str]] = {"decision": "decline" if decline else "approve"}
        if not decline:
            fields["account"] = offered
        await browser.submit(form, fields)
        if decline:
            self.narrator.step(
                f"{self.person.name} declines", "the bank tells the Hub, and the Hub the TPP"
            )
        else:
            self.narrator.step(
                f"{self.person.name} approves {len(offered)} account(s): {', '.join(offered)}",
                "the bank writes user and accounts into the Hub's consent, now Authorized; the Hub will let no other through",
            )

    async def came_back(
        self,
        callbacks: trio.MemoryReceiveChannel[str],
        pushed: Pushed,
        discovery: Discovery,
        *,
        decline: bool,
    ) -> Callback | None:
        """Wait for the browser to come back; None where the customer declined, as was wanted."""
        with trio.move_on_after(CALLBACK_S) as waiting:
            came = read_callback(await callbacks.receive(), pushed, discovery)
        if waiting.cancelled_caught:
            raise Stopped("the browser did not come back to the TPP")
        if isinstance(came, Refused):
            if decline and came.code == "access_denied":
                self.narrator.step(
                    "The browser comes back with error=access_denied",
                    "iss and state were right, so it is the Hub's true answer to this request",
                )
                return None
            raise Stopped(f"the callback: {came.line}")
        self.narrator.step(
            "The browser comes back to the TPP with a code; state and iss are right",
            "the code is good once, for a minute, for this TPP alone, and only with the PKCE verifier",
        )
        return came

    async def redeem(
        self, tpp: Tpp, discovery: Discovery, came: Callback, pushed: Pushed
    ) -> Tokens:
        """Turn the code into tokens, and check the id_token."""
        tokens = got("the token", await tpp.redeem(discovery, came.code, pushed))
        if tokens.id_token:
            got(
                "the id_token",
                await tpp.check_id_token(discovery, tokens.id_token, pushed.nonce),
            )
        status = at(tokens.authorization_details, 0, "consent", "Data", "Status")
        self.narrator.step(
            f"Code turned into tokens (access: {tokens.expires_in} s); the consent is {status}",
            "the access token is bound to the TPP's certificate: stolen, it opens nothing",
        )
        return tokens

    def page_files(self) -> Files:
        """Return the certificate of the page behind the redirect URI."""
        section = self.section
        return Files(
            ca=self.folder / self.manifest.ca_bundle,
            certificate=self.folder / section.server_cert,
            key=self.folder / section.server_key,
        )


def got(what: str, value: T | Refused) -> T:
    """Return a value, or stop at its refusal."""
    if isinstance(value, Refused):
        raise Stopped(f"{what} was refused: {value.line}")
    return value


def at(value: Any, *path: str | int) -> Any:
    """Return what lies at a path of foreign JSON, or None."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value
