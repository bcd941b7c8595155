"""One frozen row of everything the gateway must know of an operation.

Rows are made by ``contract`` from ``config/contract`` and never written by hand elsewhere. ``path`` is the template
below the resource base (``/open-finance/account-information/v2.1/accounts/{AccountId}``).
"""

from enum import StrEnum

import msgspec


class TokenKind(StrEnum):
    """Say what kind of access token a route wants."""

    USER = "user"
    """Issued for a consent (authorization_code, refresh_token)."""
    CLIENT = "client"
    """client_credentials."""
    EITHER = "either"
    NONE = "none"


class Signing(StrEnum):
    """Say when an answer or a body is a JWS."""

    NEVER = "never"
    ACCEPT = "accept"
    """As the ``Accept`` header (answers) or ``Content-Type`` (bodies) asks."""
    ALWAYS = "always"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Hold all that the gateway must know of one operation.

    Attributes:
        id: ``account-information.accounts``; stable, used in events, metrics and tests.
        family: ``account-information``, ``payment``, ...
        version: ``v2.1``.
        method: Upper case.
        path: Template with ``{Name}`` segments.
        token: What kind of token it wants.
        scopes: Any one of these suffices (besides ``openid``).
        permissions: Any one of these consent permissions suffices; empty for none needed.
        consent_types: The consent types whose user tokens are accepted here.
        roles: Any one of these framework roles suffices.
        account_parameter: Name of the path segment that must be one of the consent's accounts; empty for none.
        consent_parameter: Name of the path segment that must be the caller's own consent; empty for none.
        request_signing: Of the body.
        response_signing: Of the answer.
        one_audience: A signed answer names its client as one string; otherwise in a list.
        idempotent: ``x-idempotency-key`` is required.
        cancellable: The bank call is cancelled with its caller.
        paged: ``page`` and ``page-size`` are sent to the bank, ``Links`` and ``Meta`` are made of its ``meta``.
        target: ``bank`` or ``hub``; ``authorization`` where the gateway does not serve it at all.
        bank_method: Upper case.
        bank_path: Template at Ozone Connect.
        bank_family: Which optional base path applies: ``data-sharing``, ``service-initiation``, ``products``, ``events``.
        mapper: Name of the response mapper.
        body_limit: Largest request body, octets.
        deadline_ms: For the whole exchange with the bank.
        success: The status of success.
        forward: Headers of the TPP that the bank wants too; they are required.
        finds: 404 is declared for it.
        handler: What serves it, where a mapper alone does not: ``consents``, ``consent``, ``consent.patch``, ...
    """

    id: str
    family: str
    version: str
    method: str
    path: str
    token: TokenKind = TokenKind.USER
    scopes: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    consent_types: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    account_parameter: str = ""
    consent_parameter: str = ""
    request_signing: Signing = Signing.NEVER
    response_signing: Signing = Signing.NEVER
    one_audience: bool = False
    idempotent: bool = False
    cancellable: bool = True
    paged: bool = False
    target: str = "bank"
    bank_method: str = ""
    bank_path: str = ""
    bank_family: str = ""
    mapper: str = ""
    body_limit: int = 65536
    deadline_ms: int = 10_000
    success: int = 200
    forward: tuple[str, ...] = ()
    finds: bool = False
    handler: str = ""
