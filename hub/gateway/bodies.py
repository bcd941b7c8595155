"""Read request bodies: by media type, plain or signed, judged by the contract."""

from typing import Any

import orjson

from hub.contract import Contract
from hub.gateway.media import open_body, parse_body
from hub.gateway.values import Access, Call
from hub.model.fault import Fault, caller_fault
from hub.model.route import Signing
from hub.trust.view import TrustView


class Bodies:
    """Read the bodies of one tenant's TPPs."""

    def __init__(self, *, contract: Contract, trust: TrustView, issuer: str) -> None:
        """Take what reading asks.

        Args:
            contract: Judges the body.
            trust: Has the clients' keys.
            issuer: Ours: the audience of signed bodies.
        """
        self._contract = contract
        self._trust = trust
        self._issuer = issuer

    async def read(self, call: Call, access: Access) -> Any:
        """Return the business body, or a Fault.

        Faults: 415; 400 ``JWS.*`` of a signed body; 400 ``Body.InvalidFormat``.

        Cancellation: harmless.
        """
        media = (call.header(b"content-type") or b"").split(b";")[0].strip().lower()
        signing = call.route.request_signing
        if media == b"application/jwt" and signing is not Signing.NEVER:
            value = await self._signed(call, access)
        elif media == b"application/json" and signing is not Signing.ALWAYS:
            value = _plain(call.request.body)
        else:
            return caller_fault(415, "", "", check="request.content_type")
        if isinstance(value, Fault):
            return value
        return self._contract.check_body(call.route.id, value) or value

    async def _signed(self, call: Call, access: Access) -> Any:
        parsed = parse_body(call.request.body.strip(), call.route.body_limit)
        if isinstance(parsed, Fault):
            return parsed
        client, kid = access.caller.client_id, str(parsed.header["kid"])
        key = self._trust.key(client, kid, "sig")
        if key is None:
            await self._trust.refresh_keys(client)
            key = self._trust.key(client, kid, "sig")
        return open_body(parsed, key, issuer=client, audience=self._issuer, now=call.now)


def _plain(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        text = "The body is not JSON."
        return caller_fault(400, "Body.InvalidFormat", text, check="request.body")
