"""Payments from the TPP's side: what is sealed for the bank, the consent, the signed order, the signed answer.

Personal data never pass the Hub in the clear: the TPP signs them (Sig1) and seals the result for the bank (Enc1); the
Hub forwards what it cannot read. The order itself is a signed message to the Hub, and so is its answer.

Sources: consents.md sections 5 and 8; journeys.md section 3; hub-behaviour 4.9.
"""

from typing import Any, Final

import msgspec
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from hub.sandbox.tpp.consent import timestamp
from hub.sandbox.tpp.exchange import Answer, Ask, Refused, refused
from hub.sandbox.tpp.identity import Identity
from hub.sandbox.tpp.schedules import Schedule, dirhams, single

PAYMENT_TYPE: Final = "urn:openfinanceuae:service-initiation-consent:v2.1"
PAYMENT_SCOPE: Final = "payments openid"
PURPOSE: Final = "ACM"
MESSAGE_S: Final = 120
_SEALED: Final = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT"}
_RISK: Final = {"TransactionIndicators": {"IsCustomerPresent": True, "Channel": "Web"}}


def creditor(iban: str, name: str) -> dict[str, Any]:
    """Return one creditor of a domestic payment."""
    account = {"SchemeName": "IBAN", "Identification": iban, "Name": {"en": name}}
    return {"Creditor": {"Name": name}, "CreditorAccount": account}


def seal(
    identity: Identity, bank_keys: dict[str, Any], initiation: dict[str, Any]
) -> str | Refused:
    """Sign and seal personal data for the bank.

    Args:
        identity: Who signs.
        bank_keys: The bank's key set; its key with ``use`` ``enc`` is taken.
        initiation: ``{"Creditor": [...]}`` in a consent, one creditor's members in a payment.
    """
    found = [key for key in bank_keys.get("keys", []) if key.get("use") == "enc"]
    if not found:
        return Refused(status=0, code="enc", text="the bank's key set has no encryption key")
    now = identity.clock.now()
    claims = {
        "iss": identity.client_id,
        "iat": now,
        "exp": now + MESSAGE_S,
        "Initiation": initiation,
        "Risk": _RISK,
    }
    key = RSAKey.import_key(found[-1])
    header = _SEALED | {"kid": str(found[-1]["kid"])}
    return jwe.encrypt_compact(
        header, identity.sign(claims), key, algorithms=["RSA-OAEP-256", "A256GCM"]
    )


def payment_consent(*, consent_id: str, expires: int, amount: str, sealed: str) -> dict[str, Any]:
    """Return the authorization detail of one instant payment; see ``payments_consent``."""
    return payments_consent(
        consent_id=consent_id, expires=expires, schedule=single(amount), sealed=sealed
    )


def payments_consent(
    *, consent_id: str, expires: int, schedule: Schedule, sealed: str
) -> dict[str, Any]:
    """Return the authorization detail of payments by a schedule.

    Args:
        consent_id: A UUID version 4, chosen by the TPP.
        expires: ``ExpirationDateTime``, seconds since 1970.
        schedule: Of ``schedules``: which payments.
        sealed: What ``seal`` made of the creditor.
    """
    consent = {
        "ConsentId": consent_id,
        "PersonalIdentifiableInformation": sealed,
        "ControlParameters": {"ConsentSchedule": schedule},
        "IsSingleAuthorization": True,
        "ExpirationDateTime": timestamp(expires),
        "PaymentPurposeCode": PURPOSE,
    }
    return {"type": PAYMENT_TYPE, "consent": consent}


def request_payment(
    identity: Identity,
    url: str,
    *,
    audience: str,
    access_token: str,
    key: str,
    consent_id: str,
    amount: str,
    sealed: str,
) -> Ask:
    """Order the payment that a consent allows, once: the same ``key`` never pays twice."""
    now = identity.clock.now()
    data = {
        "ConsentId": consent_id,
        "Instruction": {"Amount": dirhams(amount)},
        "PaymentPurposeCode": PURPOSE,
        "PersonalIdentifiableInformation": sealed,
        "OpenFinanceBilling": {"Type": "PushP2P"},
    }
    message = {
        "iss": identity.client_id,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + MESSAGE_S,
        "message": {"Data": data},
    }
    headers = {
        "authorization": f"Bearer {access_token}",
        "content-type": "application/jwt",
        "accept": "application/jwt",
        "x-idempotency-key": key,
        "x-fapi-interaction-id": identity.dice.uuid(),
        "x-fapi-customer-ip-address": "192.0.2.17",
    }
    return Ask(method="POST", url=url, headers=headers, content=identity.sign(message))


def read_signed(answer: Answer, hub_keys: dict[str, Any], issuer: str) -> dict[str, Any] | Refused:
    """Read a signed answer: the Hub's signature (PS256), its ``iss``, then the message or the refusal inside."""
    if not answer.headers.get("content-type", "").startswith("application/jwt"):
        return refused(answer)
    try:
        keys = KeySet.import_key_set({"keys": hub_keys["keys"]})
        signed = jws.deserialize_compact(answer.body, keys, algorithms=["PS256"])
        claims = msgspec.json.decode(signed.payload, type=dict[str, Any])
    except (JoseError, ValueError, msgspec.DecodeError) as error:
        return Refused(status=answer.status, code="signature", text=str(error))
    message = claims.get("message")
    if claims.get("iss") != issuer or not isinstance(message, dict):
        return Refused(status=answer.status, code="iss", text="not a message of this Hub")
    if answer.status >= 400:
        inner = msgspec.structs.replace(answer, body=msgspec.json.encode(message))
        return refused(inner)
    return message
