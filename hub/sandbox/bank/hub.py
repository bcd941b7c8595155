"""The bank's calls to the Hub: Headless Heimdall and the Consent Manager, over mTLS with the bank's certificate (C3).

A call that fails, whatever the reason, is a ``HubTrouble``; the pages decide what the customer sees of it. Redirects are
never followed: a 303 is the Hub's word to the customer's browser and is relayed untouched.

Sources: authorisation server ("Headless Heimdall") v2.1.2, Consent Manager v2.1.9.
"""

from typing import Any, Final, final
from urllib.parse import quote

import httpx
import msgspec

from hub.sandbox.bank.own_bearer import OwnBearer

Json = dict[str, Any]
_TIMEOUT_S: Final = 10.0
_PAGE: Final = 100


class HubTrouble(Exception):  # noqa: N818 - what happened, seen from the bank
    """Say that the Hub could not be reached, or did not answer as documented."""


class Interaction(msgspec.Struct, frozen=True):
    """Hold an interaction that the Hub began: its id, the consent concerned, who asks."""

    id: str
    consent_id: str
    tpp_name: str


class Redirect(msgspec.Struct, frozen=True):
    """Hold where the customer's browser is to go."""

    location: str


class Unredirectable(msgspec.Struct, frozen=True):
    """Hold an error that the bank must show on a page of its own."""

    error: str
    description: str


def _location(answer: httpx.Response) -> Redirect:
    location = answer.headers.get("location", "")
    if answer.status_code != httpx.codes.SEE_OTHER or not location:
        raise HubTrouble(f"status {answer.status_code} where 303 was expected")
    return Redirect(location)


def _object(answer: httpx.Response) -> Json:
    try:
        return msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        raise HubTrouble("an answer that is no JSON object") from None


@final
class Hub:
    """Call the Hub's face for the bank."""

    __slots__ = ("_bearer", "_consents", "_heimdall", "_http")

    def __init__(
        self,
        http: httpx.AsyncClient,
        heimdall_base: str,
        consent_base: str,
        bearer: OwnBearer | None = None,
    ) -> None:
        """Take a client with the bank's certificate, the bases (https, no trailing slash), and what signs bearers."""
        self._http = http
        self._bearer = bearer
        self._heimdall = heimdall_base.rstrip("/")
        self._consents = consent_base.rstrip("/")

    async def begin(self, query: str) -> Interaction | Redirect | Unredirectable:
        """Hand over the query that the browser came with, as it came."""
        answer = await self._send("GET", f"{self._heimdall}/auth?{query}")
        if answer.status_code == httpx.codes.SEE_OTHER:
            return _location(answer)
        body = _object(answer)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            error = str(body.get("error", "invalid_request"))
            return Unredirectable(error, str(body.get("error_description", "")))
        if answer.status_code != httpx.codes.OK:
            raise HubTrouble(f"status {answer.status_code} of GET /auth")
        return _interaction(body)

    async def consent(self, consent_id: str) -> Json:
        """Return a consent record."""
        answer = await self._send("GET", f"{self._consents}/consents/{quote(consent_id, safe='')}")
        data = _object(answer).get("data") if answer.status_code == httpx.codes.OK else None
        if not isinstance(data, dict):
            raise HubTrouble(f"status {answer.status_code} of GET /consents/{{id}}")
        return data

    async def consents_of(self, user_id: str) -> list[Json]:
        """Return a customer's consents: the hundred that changed last, the Hub lists the oldest first."""
        found, pages = await self._page_of(user_id, 1)
        if pages > 1:
            earlier, _ = await self._page_of(user_id, pages - 1) if pages > 2 else (found, pages)
            latest, _ = await self._page_of(user_id, pages)
            found = [*earlier, *latest]
        return found[-_PAGE:]

    async def _page_of(self, user_id: str, page: int) -> tuple[list[Json], int]:
        path = f"/psu/{quote(user_id, safe='')}/consents?page={page}&pageSize={_PAGE}"
        answer = await self._send("GET", self._consents + path)
        body = _object(answer) if answer.status_code == httpx.codes.OK else {}
        data, meta = body.get("data"), body.get("meta")
        if not isinstance(data, list):
            raise HubTrouble(f"status {answer.status_code} of GET /psu/{{userId}}/consents")
        pages = meta.get("totalPages") if isinstance(meta, dict) else 1
        return [r for r in data if isinstance(r, dict)], pages if isinstance(pages, int) else 1

    async def patch(self, consent_id: str, change: Json) -> None:
        """Change a consent."""
        path = f"{self._consents}/consents/{quote(consent_id, safe='')}"
        await self._done("PATCH", path, change)

    async def revoke(self, consent_id: str, user_id: str) -> None:
        """Revoke a consent in the customer's name."""
        path = f"{self._consents}/consents/{quote(consent_id, safe='')}/action/revoke"
        change = {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": {"userId": user_id}}
        await self._done("POST", path, change)

    async def patch_payment(self, payment_id: str, change: Json) -> None:
        """Tell the Hub a payment's status."""
        path = f"{self._consents}/payment-log/{quote(payment_id, safe='')}"
        await self._done("PATCH", path, change)

    async def confirm(self, interaction_id: str) -> Redirect:
        """End an interaction with a code for the TPP."""
        return _location(
            await self._send("POST", self._interaction_url(interaction_id, "doConfirm"))
        )

    async def fail(self, interaction_id: str, error: str, description: str) -> Redirect:
        """End an interaction with an error for the TPP."""
        form = {"error": error, "error_description": description}
        url = self._interaction_url(interaction_id, "doFail")
        return _location(await self._send("POST", url, data=form))

    def _interaction_url(self, interaction_id: str, action: str) -> str:
        return f"{self._heimdall}/auth/{quote(interaction_id, safe='')}/{action}"

    async def _done(self, method: str, url: str, change: Json) -> None:
        answer = await self._send(method, url, json=change)
        if answer.status_code != httpx.codes.NO_CONTENT:
            raise HubTrouble(f"status {answer.status_code} of {method}")

    async def _send(self, method: str, url: str, **content: Any) -> httpx.Response:
        headers = {} if self._bearer is None else {"authorization": self._bearer.value()}
        try:
            return await self._http.request(
                method, url, timeout=_TIMEOUT_S, headers=headers, **content
            )
        except httpx.HTTPError as error:
            raise HubTrouble(f"{type(error).__name__} of {method}") from error


def _interaction(body: Json) -> Interaction:
    about = body.get("interaction")
    if not isinstance(about, dict) or not isinstance(about.get("interactionId"), str):
        raise HubTrouble("an interaction without an id")
    consents = about.get("consentIdsList") or [about.get("consentId")]
    if not isinstance(consents, list) or not isinstance(consents[0], str):
        raise HubTrouble("an interaction without a consent")
    tpp = body.get("tpp")
    name = tpp.get("tppName", "") if isinstance(tpp, dict) else ""
    return Interaction(about["interactionId"], consents[0], str(name))
