"""Webhooks to TPPs: a signed and encrypted message about a consent, to a URL that the TPP has registered and to no other.

Source: consents 9; decisions.md section 2 (webhook in a subscription). RFC 7515, RFC 7516.
"""

import ssl
from typing import Any, Final, Protocol

import orjson
import trio

from hub.config import Settings
from hub.model.caller import Caller
from hub.model.clock import Clock
from hub.model.consent import Consent, ConsentType
from hub.model.consent_change import as_of, date_time_of
from hub.model.fault import Fault, hub_fault
from hub.model.records import Delivery, Payment
from hub.protocol import jose
from hub.state.keeper import Keeper
from hub.upstream.address import Destination, destination_of, resolve
from hub.upstream.exchange import Progress, Upload, converse
from hub.upstream.h1 import AnswerReader, request_head
from hub.upstream.outbox import Target
from hub.upstream.tls import open_connection

_ANSWER_MOST: Final = 65536
_LIFE_S: Final = 300
_PATHS: Final = {
    ConsentType.ACCOUNT_ACCESS: "/account-access-consents",
    ConsentType.SERVICE_INITIATION: "/payment-consents",
    ConsentType.INSURANCE: "/insurance-consents",
}
_FILE: Final = "cbuae-file-payment"
_ASKED: Final = ("Instruction", "PaymentPurposeCode", "DebtorReference", "OpenFinanceBilling")
_HIDDEN: Final = frozenset({"PersonalIdentifiableInformation"})


def wants_webhook(consent: Consent) -> bool:
    """Tell whether a consent has an active subscription."""
    return bool(_webhook(consent).get("IsActive"))


def _webhook(consent: Consent) -> dict[str, Any]:
    subscription = consent.body.get("Subscription")
    if subscription is None:
        subscription = consent.request.get("subscription")
    webhook = (subscription or {}).get("Webhook")
    return webhook if isinstance(webhook, dict) else {}


def consent_message(consent: Consent, operation: str, time_ms: int, now_ms: int) -> dict[str, Any]:
    """Return the ``message`` of a consent event: the consent's data as of now, and what happened when."""
    current = as_of(consent, now_ms)
    data = {k: v for k, v in current.body.get("Data", {}).items() if k not in _HIDDEN}
    return {
        "Data": data,
        "Meta": {
            "EventDateTime": date_time_of(time_ms // 1000),
            "EventResource": f"{_PATHS[consent.consent_type]}/{consent.id}",
            "EventType": "Resource.Created" if operation == "post" else "Resource.Updated",
            "ConsentId": consent.id,
        },
    }


def payment_message(payment: Payment, operation: str, time_ms: int) -> dict[str, Any]:
    """Return the ``message`` of a payment event: the payment as its TPP reads it; of a file's, only what happened when."""
    file = payment.payment_type == _FILE
    meta = {
        "EventDateTime": date_time_of(time_ms // 1000),
        "EventResource": f"/{'file-payments' if file else 'payments'}/{payment.id}",
        "EventType": "Resource.Created" if operation == "post" else "Resource.Updated",
        "ConsentId": payment.consent_id,
    }
    if file:
        return {"Meta": meta}
    asked, held = payment.request_body.get("Data", {}), payment.response
    created = held.get("creationDateTime") or date_time_of(payment.created_ms // 1000)
    data: dict[str, Any] = {
        "PaymentId": payment.id,
        "ConsentId": payment.consent_id,
        "Status": payment.status,
        "CreationDateTime": created,
        "StatusUpdateDateTime": held.get("statusUpdateDateTime") or created,
        "PaymentTransactionId": held.get("paymentTransactionId"),
        "RejectReasonCode": [
            {"Code": reason.get("code"), "Message": reason.get("message")}
            for reason in held.get("rejectReasonCode") or ()
        ],
        **{name: asked.get(name) for name in _ASKED},
    }
    return {"Data": {name: value for name, value in data.items() if value}, "Meta": meta}


class Clients(Protocol):
    """Know the registered clients (``TrustView`` does)."""

    def caller(self, client_id: str) -> Caller | None:
        """Return a registered and active client, or None."""
        ...

    def encryption_key(self, client_id: str) -> jose.PublicKey | None:
        """Return its newest encryption key, or None."""
        ...


class Webhooks:
    """Send webhooks."""

    def __init__(
        self,
        *,
        settings: Settings,
        trust: Clients,
        signing_key: jose.PrivateKey,
        clock: Clock,
        keeper: Keeper,
    ) -> None:
        """Take what signs, who knows the TPPs' keys and URLs, the clock, and where payments are.

        Raises:
            OSError: The framework's CA bundle cannot be read.
        """
        self._settings = settings
        self._trust = trust
        self._keeper = keeper
        self._key = signing_key
        self._clock = clock
        self._context = ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_verify_locations(cafile=settings.trust.ca)

    def target(self) -> Target:
        """Return the outbox's target ``webhook``."""
        return Target(wants=wants_webhook, send=self.send, payments=True, each_client=True)

    async def send(self, consent: Consent, delivery: Delivery) -> int | Fault:
        """Tell a TPP of its consent; return the status of its answer.

        Faults: ``webhook.unregistered``, ``webhook.no_key``, ``outbound.*``, ``webhook.unreachable``.

        Cancellation: the TPP may have been told.
        """
        if not wants_webhook(consent):
            return 204
        url = str(_webhook(consent).get("Url", ""))
        caller = self._trust.caller(consent.client_id)
        if caller is None or url not in caller.webhook_uris:
            return _failed("webhook.unregistered", "the URL is not registered for this client")
        key = self._trust.encryption_key(consent.client_id)
        if key is None:
            return _failed("webhook.no_key", "the client has no encryption key")
        destination = destination_of(url)
        if isinstance(destination, Fault):
            return destination
        message = await self._message(consent, delivery)
        if message is None:
            return 204
        body = self._sealed(message, consent.client_id, key).encode()
        with trio.move_on_after(self._settings.limits.bank_event_s):
            return await self._post(destination, body)
        return _failed("webhook.unreachable", "no answer in time")

    async def _message(self, consent: Consent, delivery: Delivery) -> dict[str, Any] | None:
        """Return what the delivery says; None where the payment it is about is not there."""
        if not delivery.payment_id:
            now_ms = self._clock.now_ms()
            return consent_message(consent, delivery.operation, delivery.time_ms, now_ms)
        found = await self._keeper.lookup(Payment, delivery.payment_id)
        if found is None or found[0].consent_id != consent.id:
            return None
        return payment_message(found[0], delivery.operation, delivery.time_ms)

    def _sealed(self, message: dict[str, Any], client_id: str, key: jose.PublicKey) -> str:
        now_ms = self._clock.now_ms()
        claims = {
            "iss": self._settings.tenant.issuer,
            "aud": [client_id],
            "iat": now_ms // 1000,
            "nbf": now_ms // 1000,
            "exp": now_ms // 1000 + _LIFE_S,
            "message": message,
        }
        signed = jose.sign(orjson.dumps(claims), self._key, typ="JOSE", header={"cty": "json"})
        return jose.encrypt(signed.encode(), key, cty="JWT")

    async def _post(self, destination: Destination, body: bytes) -> int | Fault:
        private_allowed = self._settings.tenant.environment == "sandbox"
        address = await resolve(destination, private_allowed=private_allowed)
        if isinstance(address, Fault):
            return address
        head = request_head(
            "POST",
            destination.target,
            destination.authority.encode(),
            ((b"content-type", b"application/jwe"),),
            len(body),
        )
        try:
            connection = await open_connection(
                destination.host, destination.port, self._context, address=address
            )
        except (OSError, ssl.SSLError) as error:
            return _failed("webhook.unreachable", f"connect: {error}")
        reader = AnswerReader(_ANSWER_MOST, _ANSWER_MOST)
        try:
            fault = await converse(connection, head, Upload(body, None, ()), reader, Progress())
        finally:
            connection.close()
        if fault is not None:
            return _failed("webhook.unreachable", fault.private)
        return reader.status


def _failed(check: str, why: str) -> Fault:
    return hub_fault(
        500, "GenericError", "The webhook was not delivered.", check=check, private=why
    )
