"""Crypto helpers for people who test by hand, as the public sandbox has them: sign, seal, Postman files, what was emitted.

They take private keys over the network, so they exist in a tenant of environment ``sandbox`` and nowhere else: the constructor
refuses any other, and the composition root does not ask it. Keys and what was signed are forgotten with the request; its event
holds neither. A ``jwksUrl`` must lie below the sandbox's own key store: nothing else is ever fetched.

Source: journeys.md section 17; hub-behaviour 12 (sandbox-only utilities).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, final
from urllib.parse import parse_qs

import msgspec
import orjson

from hub.config import Settings
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.http import Handler, Request, Response, json_response
from hub.model.records import Delivery
from hub.model.route import Route, Signing
from hub.protocol.jose import JoseFault, encrypt, load_key_set, load_private_key, sign
from hub.state.keeper import Keeper, Query

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Get a document of the sandbox's key store by its path."""

_TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"))
_COLLECTION: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_EVERYTHING: Final = "CBUAE"
_SHOWN: Final = 100


class Refused(Exception):  # noqa: N818 - it carries a refusal to the one place that answers it
    """Say in one sentence what a person should change."""


class Wanted(msgspec.Struct):
    """Hold what is to be signed: header members, claims, and the PEM of the key."""

    header: dict[str, Any]
    body: dict[str, Any]
    signingKeyPEM: str  # noqa: N815 - the public sandbox's names
    jwksUrl: str = ""  # noqa: N815


@final
class ByHand:
    """Help people who have no TPP of their own yet."""

    def __init__(
        self,
        *,
        settings: Settings,
        keeper: Keeper,
        routes: Sequence[Route],
        clock: Clock,
        dice: Dice,
        fetch: Fetch,
    ) -> None:
        """Take the tenant, the store, the routes to make collections of, and the way to the sandbox's key store.

        Raises:
            ValueError: The tenant is not a sandbox's.
        """
        if settings.tenant.environment != "sandbox":
            raise ValueError("helpers that take private keys exist in sandboxes only")
        self._settings = settings
        self._keeper = keeper
        self._routes = routes
        self._clock = clock
        self._dice = dice
        self._fetch = fetch

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {
            ("GET", "/o3/v1.0/message-signature"): self.signature,
            ("POST", "/o3/v1.0/message-signature"): self.signature,
            ("GET", "/o3/v1.0/message-encryption"): self.encryption,
            ("POST", "/o3/v1.0/message-encryption"): self.encryption,
            ("GET", "/o3/v1.0/postman/environment"): self.environment,
            ("GET", "/o3/v1.0/postman/collection/{standard}"): self.collection,
            ("GET", "/review-emitted-events"): self.emitted,
        }

    async def signature(self, request: Request) -> Response:
        """Answer a compact JWS (PS256) over the claims.

        Cancellation: harmless.
        """
        try:
            return await self._answered(request, _signed(_wanted(request)))
        except Refused as error:
            return await self._answered(request, str(error), status=400)

    async def encryption(self, request: Request) -> Response:
        """Answer a JWE for the newest encryption key behind ``jwksUrl``, around a JWS over the claims.

        Cancellation: harmless.
        """
        try:
            wanted = _wanted(request)
            return await self._answered(request, await self._sealed(wanted))
        except Refused as error:
            return await self._answered(request, str(error), status=400)

    async def _sealed(self, wanted: Wanted) -> str:
        base = self._settings.trust.keystore
        path = wanted.jwksUrl.removeprefix(base)
        if not wanted.jwksUrl.startswith(f"{base}/") or any(
            mark in path for mark in ("?", "#", "%", "\\", "..")
        ):
            raise Refused(f"jwksUrl: expected a key set below {base}/")
        document = await self._fetch(path)
        keys = load_key_set(document) if document is not None else ()
        usable = [k for k in keys if k.use == "enc"] if isinstance(keys, tuple) else []
        if not usable:
            raise Refused("jwksUrl: no encryption key there")
        return encrypt(_signed(wanted).encode(), usable[-1], cty="JWT")

    async def environment(self, request: Request) -> Response:
        """Answer a Postman environment for one client; public, no event."""
        client = parse_qs(request.query).get("client_id", [""])[0]
        tenant = self._settings.tenant
        values = {
            "clientId": client[:128],
            "issuer": tenant.issuer,
            "discovery": f"{tenant.issuer}/.well-known/openid-configuration",
            "par": f"{tenant.issuer}/par",
            "token": f"{tenant.issuer}/token",
            "resourceServer": tenant.resource_base,
            "authorization": self._settings.bank.authorization_endpoint,
            "participants": self._settings.trust.participants,
            "signature": f"{tenant.resource_base}/o3/v1.0/message-signature",
            "encryption": f"{tenant.resource_base}/o3/v1.0/message-encryption",
        }
        rows = [{"key": k, "value": v, "enabled": True} for k, v in values.items()]
        document = {"name": f"API Hub sandbox {tenant.provider_id}", "values": rows}
        return json_response(200, orjson.dumps(document))

    async def collection(self, request: Request) -> Response:
        """Answer a Postman collection of one family, or of all (``CBUAE``); public, no event."""
        standard = request.path.rpartition("/")[2]
        found = [r for r in self._routes if standard in {_EVERYTHING, r.family}]
        if not found:
            return Response(status=404)
        families = dict.fromkeys(route.family for route in found)
        folders = [
            {"name": name, "item": [_item(r) for r in found if r.family == name]}
            for name in families
        ]
        about = {"name": f"API Hub {standard}", "schema": _COLLECTION}
        return json_response(200, orjson.dumps({"info": about, "item": folders}))

    async def emitted(self, request: Request) -> Response:
        """Answer the newest deliveries to TPPs and bank: what was told, when, and how it was taken; no event."""
        query = Query(kind="delivery", order="index", descending=True, limit=_SHOWN)
        page = await self._keeper.search(query)
        rows = [v.record for v in page.items if isinstance(v.record, Delivery)]
        asked = parse_qs(request.query).get("client_id", [""])[0]
        shown = [await self._told(row) for row in rows]
        kept = [row for row in shown if asked in {"", row["clientId"]}]
        return json_response(200, orjson.dumps({"data": kept}))

    async def _told(self, row: Delivery) -> dict[str, Any]:
        consent = await self._keeper.lookup(Consent, row.consent_id)
        return {
            "target": row.target,
            "operation": row.operation,
            "consentId": row.consent_id,
            "clientId": consent[0].client_id if consent is not None else "",
            "timestamp": row.time_ms,
            "state": row.state,
            "attempts": row.attempts,
            "status": row.status,
        }

    async def _answered(self, request: Request, text: str, status: int = 200) -> Response:
        event = Event(
            kind=Kind.CALL,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            face=request.face,
            x5t_s256=request.peer.x5t_s256,
            route=f"sandbox.{request.path.rpartition('/')[2]}",
            verdict=Verdict.ALLOWED if status == 200 else Verdict.REFUSED,
            status=status,
            octets_in=len(request.body),
            octets_out=len(text),
        )
        done = await self._keeper.commit((), [event])
        if isinstance(done, Fault):
            return Response(status=503, headers=((b"retry-after", b"1"),))
        return Response(status=status, headers=_TEXT, body=text.encode(), event=event)


def _wanted(request: Request) -> Wanted:
    try:
        return msgspec.json.decode(request.body, type=Wanted)
    except msgspec.DecodeError as error:
        _refuse(f"the body: {error}")


def _refuse(why: str) -> NoReturn:
    raise Refused(why)


def _signed(wanted: Wanted) -> str:
    """Sign with PS256 and nothing else; what the library says of a key is told, the key never."""
    if wanted.header.get("alg", "PS256") != "PS256":
        _refuse("header.alg: expected PS256")
    key = load_private_key(wanted.signingKeyPEM.encode())
    if isinstance(key, JoseFault):
        _refuse(f"signingKeyPEM: {key.why}")
    further = {k: v for k, v in wanted.header.items() if k not in {"alg", "crit"}}
    try:
        return sign(wanted.body, key, alg="PS256", header=further)
    except ValueError:
        _refuse("signingKeyPEM: expected an RSA key")


def _item(route: Route) -> dict[str, Any]:
    """Return one request of a collection, its parameters as Postman variables."""
    headers = {"authorization": "Bearer {{accessToken}}", "x-fapi-interaction-id": "{{$guid}}"}
    if route.idempotent:
        headers["x-idempotency-key"] = "{{$guid}}"
    if route.forward:
        headers["x-fapi-customer-ip-address"] = "192.0.2.1"
    body: dict[str, Any] = {}
    if route.method in {"POST", "PATCH"}:
        signed = route.request_signing is Signing.ALWAYS
        headers["content-type"] = "application/jwt" if signed else "application/json"
        body = {"body": {"mode": "raw", "raw": "{{requestBody}}"}}
    path = route.path.replace("{", "{{").replace("}", "}}")
    return {
        "name": route.id,
        "request": {
            "method": route.method,
            "url": "{{resourceServer}}" + path,
            "header": [{"key": k, "value": v} for k, v in headers.items()],
            **body,
        },
    }
