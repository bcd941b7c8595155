"""What the refusals at resources mean, by the name of the check: for the page behind an error's ``Url``, and traces."""

from typing import Final

RESOURCE_CHECKS: Final[dict[str, str]] = {
    "token.missing": "Expect an access token in the header Authorization.",
    "token.scheme": "Expect the scheme Bearer, or DPoP for a token that is bound to a DPoP key.",
    "token.malformed": "Expect an access token as the token endpoint gave it.",
    "token.unknown": "Expect an access token of this Hub; this one was never issued, or is long over.",
    "token.expired": "Expect an access token that is not over; get a new one with the refresh token.",
    "token.revoked": "Expect an access token that was not revoked.",
    "token.grant_revoked": "Expect an access token whose grant stands; the code was used twice, or the grant was revoked.",
    "token.certificate_binding": "Expect the client certificate that the token was issued over.",
    "token.client": "Expect the token of the client that the certificate names.",
    "token.consent": "Expect a token for a consent of a type that this operation takes.",
    "token.approved": "Expect a consent that all its approvers have authorized.",
    "enforce.status": "Expect an Authorized consent; this one awaits its customer, or is over.",
    "enforce.suspended": "Expect a consent that is not suspended.",
    "enforce.permission": "Expect one of the permissions that this operation needs among those the customer gave.",
    "enforce.account": "Expect one of the accounts that the customer chose.",
    "enforce.scope": "Expect an access token with the scope of this API.",
    "consent.unknown": "Expect a consent of the calling client.",
    "consent.patch": "Expect a change that the consent's state allows.",
    "request.accept": "Expect an Accept header that this operation can satisfy.",
    "request.body": "Expect a body as the standard's schema says; Path names what is wrong.",
    "request.content_type": "Expect the content type that this operation takes.",
    "request.header": "Expect the header that the message names.",
    "request.idempotency_key": "Expect x-idempotency-key: 1 to 40 characters.",
    "request.interaction_id": "Expect x-fapi-interaction-id to be a UUID.",
    "request.paging": "Expect page and page-size as the standard bounds them.",
    "request.query": "Expect query parameters as the standard's schema says; the message names which.",
    "reports.period": "Expect a period that ends after it begins, of at most 93 days.",
    "route.unknown": "Expect an operation of the standard at this path.",
    "route.unserved": "The Hub does not serve this operation.",
    "jws.header": "Expect the header of a signed message as the standard says.",
    "jws.signature": "Expect a signature by a key of the caller's key set in the Trust Framework.",
    "payment.amount": "Expect the amount, or a share of it, that the consent still allows.",
    "payment.consent": "Expect what the customer consented to: the order differs from the consent.",
    "payment.differs": "Expect the same body under the same idempotency key.",
    "payment.key_reused": "Expect an idempotency key that was not used for something else.",
    "payment.unknown": "The outcome of this payment is not known yet; ask again.",
    "record.conflict": "Too many changed the same record at the same moment; try again.",
}

RESOURCE_FAMILIES: Final[dict[str, str]] = {
    "bank": "The bank did not answer as it should, or refused; the Hub passed the request on and this is not its verdict.",
    "limits": "Expect a request within what the consent's limits still allow.",
    "throttle": "Expect fewer requests per second; Retry-After says when to come back.",
    "payment": "Expect a payment that its consent allows, under an idempotency key of its own.",
    "jws": "Expect a signed message as the standard says.",
}
"""For checks without a text of their own: the part before the dot."""
