"""The TPP's webhook: what the Hub tells of a consent, over https, opened with Enc2 and checked with the Hub's keys.

Source: consents.md section 9; RFC 7516, RFC 7515.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from hub.sandbox.server import SiteRequest, SiteResponse
from hub.sandbox.tpp.callback import serving
from hub.sandbox.tpp.exchange import Refused
from hub.sandbox.tpp.identity import Files

_MOST: Final = 64
_SEALED: Final = ["RSA-OAEP-256", "A256GCM"]


@asynccontextmanager
async def serve_webhooks(
    webhook_uri: str, server: Files, *, status: int = 202
) -> AsyncIterator[trio.MemoryReceiveChannel[bytes]]:
    """Serve the address that the TPP has registered; yields a channel of the bodies that came.

    Args:
        webhook_uri: https, with a port.
        server: The page's certificate, its key, and the CA.
        status: What is answered; below 300 means heard.

    Raises:
        OSError: The port is in use.
    """
    send, receive = trio.open_memory_channel[bytes](_MOST)
    parts = urlsplit(webhook_uri)

    async def answer(request: SiteRequest) -> SiteResponse:
        await trio.lowlevel.checkpoint()
        if (request.method, request.path) != ("POST", parts.path):
            return SiteResponse(status=404)
        try:
            send.send_nowait(request.body)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return SiteResponse(status=503)
        return SiteResponse(status=status)

    async with serving(webhook_uri, answer, server), receive:
        yield receive


def read_webhook(
    body: bytes,
    encryption_key: Path,
    hub_keys: dict[str, Any],
    *,
    issuer: str,
    client_id: str,
    now: int,
) -> dict[str, Any] | Refused:
    """Open a webhook and return its message.

    Args:
        body: As received.
        encryption_key: The TPP's Enc2, PEM.
        hub_keys: The Hub's key set.
        issuer: Who must have signed.
        client_id: Whom it must be for.
        now: Seconds since 1970.
    """
    try:
        private = RSAKey.import_key(encryption_key.read_bytes())
        opened = jwe.decrypt_compact(body, private, algorithms=_SEALED)
        if opened.plaintext is None:
            return Refused(status=0, code="webhook", text="nothing is in it")
        keys = KeySet.import_key_set({"keys": hub_keys["keys"]})
        signed = jws.deserialize_compact(opened.plaintext, keys, algorithms=["PS256"])
        claims = msgspec.json.decode(signed.payload, type=dict[str, Any])
    except (JoseError, ValueError, msgspec.DecodeError) as error:
        return Refused(status=0, code="webhook", text=str(error))
    audience = claims.get("aud")
    if claims.get("iss") != issuer or client_id not in (audience or ()):
        return Refused(status=0, code="webhook", text="not from this Hub, or not for us")
    if not claims.get("nbf", now + 1) <= now < claims.get("exp", 0):
        return Refused(status=0, code="webhook", text="not of this moment")
    message = claims.get("message")
    return message if isinstance(message, dict) else Refused(status=0, code="webhook", text="empty")
