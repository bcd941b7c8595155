"""The data-sharing journey step by step: discovery to refreshed token, each step told (journeys.md section 2)."""

from typing import Any, Final, final

from hub.sandbox.proof import prove
from hub.sandbox.tpp import (
    Answer,
    Discovery,
    Tokens,
    Tpp,
    Wire,
    data_sharing_consent,
    serve_callbacks,
)
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from hub.sandbox.tpp.exchange import refused
from hub.sandbox.travel import Stopped, Travel, at, got

ACCOUNT_INFORMATION: Final = "/open-finance/account-information/v2.1"
CONSENT_S: Final = 90 * 86_400
STATE: Final = "state"
"""Of the main tenant's Hub, below the sandbox's folder."""


@final
class DataSharingJourney(Travel):
    """Take a customer's consent to account data, read them, and read them again with a refreshed token."""

    async def run(self, *, decline: bool) -> None:
        """Travel.

        Raises:
            Stopped: Something was refused that should not have been.
        """
        tell, person = self.narrator, self.person
        tell.title(
            f"{self.section.name} asks {person.name} for the accounts at "
            f"{self.manifest.bank.provider_id}, through the Hub"
        )
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            detail = data_sharing_consent(
                consent_id=self.dice.uuid(), expires=self.clock.now() + CONSENT_S
            )
            asks = ", ".join(detail["consent"]["Permissions"])
            pushed = await self.push(tpp, discovery, detail, DATA_SHARING_SCOPE, asks)
            await self.consent(discovery, pushed, DATA_SHARING_SCOPE, decline=decline)
            came = await self.came_back(callbacks, pushed, discovery, decline=decline)
            if came is None:
                tell.good("Done: the customer declined, and the TPP got nothing.")
                return
            tokens = await self.redeem(tpp, discovery, came, pushed)
            interaction = await self._read(tpp, tokens.access_token)
            await self._refresh(tpp, discovery, tokens)
        await self._prove(interaction)
        tell.good("Done: the customer's consent took account data from the bank to the TPP.")

    async def _read(self, tpp: Tpp, token: str) -> str:
        """Read the account data; return the interaction id of the first call."""
        base = self.manifest.hub.resource_base + ACCOUNT_INFORMATION
        first = await tpp.get(f"{base}/accounts", token)
        accounts = _data("GET /accounts", first)
        found = [str(row.get("AccountId")) for row in accounts.get("Account", [])]
        self.narrator.step(
            f"GET /accounts: {len(found)} account(s): {', '.join(found)}",
            "the Hub checked token, certificate and consent, asked the bank for these accounts only, and recorded the call",
        )
        if not found:
            raise Stopped("the answer holds no account")
        one = f"{base}/accounts/{found[0]}"
        _data("GET one account", await tpp.get(one, token))
        self.narrator.step(
            f"GET /accounts/{found[0]}: the account in detail",
            "the permission ReadAccountsDetail was asked for and granted",
        )
        balances = _data("GET balances", await tpp.get(f"{one}/balances", token))
        self.narrator.step(
            f"GET balances: {_first_amount(balances, 'Balance')}",
            "live from the bank's ledger; the Hub keeps no account data",
        )
        answer = _data("GET transactions", await tpp.get(f"{one}/transactions", token))
        rows = answer.get("Transaction", [])
        self.narrator.step(
            f"GET transactions: {len(rows)} on the first page, newest {_first_amount(answer, 'Transaction')}",
            "each call is an event in the Hub's audit log before the TPP sees the answer",
        )
        return first.headers.get("x-fapi-interaction-id", "")

    async def _prove(self, interaction: str) -> None:
        proof = await prove(self.folder, self.folder / STATE, interaction)
        told = proof.said.partition(": ")[2]
        self.narrator.step(
            f"The receipt of GET /accounts holds: {told}",
            "checked offline by verify.py, which shares no code with the Hub, with the keys of the log and of a witness; "
            f"the receipt is {proof.receipt}",
        )

    async def _refresh(self, tpp: Tpp, discovery: Discovery, tokens: Tokens) -> None:
        if not tokens.refresh_token:
            return
        again = got("the refresh", await tpp.refresh(discovery, tokens.refresh_token))
        url = f"{self.manifest.hub.resource_base}{ACCOUNT_INFORMATION}/accounts"
        _data("GET /accounts", await tpp.get(url, again.access_token))
        self.narrator.step(
            "Refreshed the token and read the accounts again",
            "no customer is needed while the consent lasts; revoked, this ends at once",
        )


def _data(what: str, answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        raise Stopped(f"{what} was refused: {refused(answer).line}")
    body = answer.json()
    data = body.get("Data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise Stopped(f"{what}: the answer has no Data")
    return data


def _first_amount(data: dict[str, Any], name: str) -> str:
    amount, currency = (at(data, name, 0, "Amount", part) for part in ("Amount", "Currency"))
    return f"{amount} {currency}" if amount else "none"
