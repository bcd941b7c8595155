"""The revocation journey: what a customer gave is taken back, by the TPP and then by the customer at the bank (journeys.md section 4)."""

from typing import Final, final

import trio

from hub.sandbox.tpp import Ask, Discovery, Tokens, Tpp, Wire, data_sharing_consent, serve_callbacks
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from hub.sandbox.travel import Stopped, Travel, at, got

ACCOUNT_INFORMATION: Final = "/open-finance/account-information/v2.1"
CONSENT_S: Final = 90 * 86_400


@final
class RevocationJourney(Travel):
    """Give a consent twice; the TPP revokes the first, the customer the second at the bank's own page."""

    async def run(self, *, decline: bool) -> None:
        """Travel; nothing can be declined here.

        Raises:
            Stopped: Something was refused that should not have been, or passed that should have been refused.
        """
        del decline
        tell = self.narrator
        tell.title(f"{self.person.name} gives {self.section.name} a consent, and it is taken back")
        async with (
            Wire.of(self.identity, tell.exchange) as wire,
            serve_callbacks(self.identity.redirect_uri, self.page_files()) as callbacks,
        ):
            tpp = Tpp(self.identity, wire)
            discovery = await self.discover(tpp)
            for at_bank in (False, True):
                consent_id, tokens = await self._given(tpp, discovery, callbacks)
                await self._use(tpp, tokens, 200)
                if at_bank:
                    await self.at_own_page(consent_id, "revoke")
                    told = f"{self.person.name} stops the consent at the bank's page"
                    why = "the bank tells the Hub, whose record is the truth; the TPP is not asked"
                else:
                    await self._revoke(tpp, discovery, consent_id)
                    told = "PATCH Status Revoked: the TPP gives the consent back"
                    why = "consent, history, grants and tokens change in one commit, before the answer"
                tell.step(told, why)
                await self._ended(tpp, discovery, tokens)
        tell.good("Done: what was given was taken back, from either side, at once.")

    async def _given(
        self, tpp: Tpp, discovery: Discovery, callbacks: trio.MemoryReceiveChannel[str]
    ) -> tuple[str, Tokens]:
        detail = data_sharing_consent(
            consent_id=self.dice.uuid(), expires=self.clock.now() + CONSENT_S
        )
        pushed = await self.push(tpp, discovery, detail, DATA_SHARING_SCOPE, "account data")
        await self.consent(discovery, pushed, DATA_SHARING_SCOPE, decline=False)
        came = await self.came_back(callbacks, pushed, discovery, decline=False)
        if came is None:
            raise Stopped("the customer declined")
        tokens = await self.redeem(tpp, discovery, came, pushed)
        return str(detail["consent"]["ConsentId"]), tokens

    async def _use(self, tpp: Tpp, tokens: Tokens, wanted: int) -> None:
        url = f"{self.manifest.hub.resource_base}{ACCOUNT_INFORMATION}/accounts"
        answer = await tpp.get(url, tokens.access_token)
        if answer.status != wanted:
            raise Stopped(f"GET /accounts answered {answer.status}, not {wanted}")
        self.narrator.step(
            f"GET /accounts with the access token: {answer.status}",
            "the Hub looks at the consent itself at each request, not at what a token once said",
        )

    async def _revoke(self, tpp: Tpp, discovery: Discovery, consent_id: str) -> None:
        own = got("the TPP's own token", await tpp.client_credentials(discovery, "accounts openid"))
        base = f"{self.manifest.hub.resource_base}{ACCOUNT_INFORMATION}/account-access-consents"
        body = {"Data": {"Status": "Revoked", "RevokedBy": "TPP.InitiatedByUser"}}
        headers = {"authorization": f"Bearer {own.access_token}"}
        url = f"{base}/{consent_id}"
        answer = await tpp.wire.carry(Ask(method="PATCH", url=url, headers=headers, json=body))
        if answer.status != 204:
            raise Stopped(f"the revocation answered {answer.status}")
        shown = await tpp.get(url, own.access_token)
        status = at(shown.json() if shown.status == 200 else {}, "Data", "Status")
        if status != "Revoked":
            raise Stopped(f"the revoked consent is shown as {status}")

    async def _ended(self, tpp: Tpp, discovery: Discovery, tokens: Tokens) -> None:
        await self._use(tpp, tokens, 401)
        if tokens.refresh_token:
            again = await tpp.refresh(discovery, tokens.refresh_token)
            if isinstance(again, Tokens) or again.code != "invalid_grant":
                raise Stopped("the refresh token outlived its consent")
            self.narrator.step(
                "The refresh token is worth nothing either: invalid_grant",
                "there is no way back but a new consent",
            )
