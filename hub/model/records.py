"""Everything the store keeps besides consents, each kind a frozen Struct.

Each record has a ``key``, the ``indexes`` it can be found by, and the moment after which the store may forget it.
Secrets (codes, tokens, request URIs) are stored under their SHA-256 (``digest_of``), never themselves. A new kind is
added to ``Record`` at the end of the file; its ``tag`` is its name in the database and never changes.
"""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import msgspec

from hub.model.consent import Consent
from hub.model.limits import Allowance

Indexes = dict[str, tuple[str | int, ...]]


def digest_of(secret: str) -> str:
    """Return the base64url SHA-256 under which a secret is stored."""
    return urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).rstrip(b"=").decode()


class Pushed(msgspec.Struct, frozen=True, kw_only=True, tag="pushed"):
    """Hold a pushed authorization request (RFC 9126); key: digest of the ``request_uri``.

    ``parameters`` are the request object's claims (without ``authorization_details``, which is the consent).
    ``finished`` is set by the first ``doConfirm`` or ``doFail``; until then ``GET /auth`` may be repeated.
    """

    digest: str
    client_id: str
    consent_id: str
    parameters: dict[str, Any]
    request_object: str = ""
    expires: int = 0
    x5t_s256: str = ""
    dpop_jkt: str = ""
    finished: bool = False

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.digest

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it."""
        return self.expires + 7200


class Interaction(msgspec.Struct, frozen=True, kw_only=True, tag="interaction"):
    """Hold one hand-over to the bank (Headless Heimdall); key: its id."""

    id: str
    pushed_digest: str
    client_id: str
    consent_id: str
    expires: int
    finished: bool = False

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it."""
        return self.expires + 86400


class Code(msgspec.Struct, frozen=True, kw_only=True, tag="code"):
    """Hold an authorization code; key: its digest. ``used`` stays so that a replay can revoke the ``grant_id``.

    ``sealed`` is what the bank adds to the id_token, under a key that only who has the code can derive.
    """

    digest: str
    client_id: str
    consent_id: str
    grant_id: str
    redirect_uri: str
    code_challenge: str
    scope: str
    nonce: str = ""
    auth_time: int = 0
    dpop_jkt: str = ""
    sealed: bytes = b""
    expires: int = 0
    used: bool = False

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.digest

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: late, so that a replay is still recognised."""
        return self.expires + 86400


class AccessToken(msgspec.Struct, frozen=True, kw_only=True, tag="access"):
    """Hold an access token; key: its digest. ``consent_id`` and ``grant_id`` are empty for client credentials.

    ``revoked`` is a moment or 0; ``approved`` the digest of what the customer had approved by then, empty while that was open.
    """

    digest: str
    client_id: str
    scope: str
    x5t_s256: str
    issued: int
    expires: int
    jkt: str = ""
    consent_id: str = ""
    grant_id: str = ""
    revoked: int = 0
    approved: str = ""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.digest

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,)} if self.consent_id else {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it."""
        return self.expires + 3600


class RefreshToken(msgspec.Struct, frozen=True, kw_only=True, tag="refresh"):
    """Hold a refresh token, which lives as long as its consent and is not rotated; key: its digest."""

    digest: str
    client_id: str
    consent_id: str
    grant_id: str
    scope: str
    issued: int
    expires: int
    jkt: str = ""
    revoked: int = 0

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.digest

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it."""
        return self.expires + 86400


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag="grant"):
    """Hold what one code gave; key: its id. ``revoked`` (a moment, 0 for none) kills all its tokens at once.

    ``expires`` is when its last token does, with the consent; 0, from an earlier version: it is kept as long as the consent.
    """

    id: str
    client_id: str
    consent_id: str
    created: int
    revoked: int = 0
    expires: int = 0

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: a day after its refresh token, which cannot be used without it."""
        return self.expires + 172_800 if self.expires else None


class Registration(msgspec.Struct, frozen=True, kw_only=True, tag="registration"):
    """Hold a TPP client at this tenant, with the three levels of activation; key: its client id.

    Each level is ``inactive``, ``active`` or ``blocked``; ``blocked_from`` holds, by level, what a blocked one was before. What
    the framework says of the client is not here but in the trust snapshot; ``framework`` is the last copy, for the portal.
    """

    client_id: str
    organisation_id: str
    software_statement_id: str
    tpp_id: str
    tpp_state: str = "inactive"
    statement_state: str = "inactive"
    client_state: str = "inactive"
    blocked_from: dict[str, str] = {}
    registered: int = 0
    framework: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.client_id

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"organisation": (self.organisation_id,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself."""
        return None


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag="seen"):
    """Remember that something single-use was used (an assertion's ``jti``, a DPoP proof); key: space and value."""

    space: str
    value: str
    until: int

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return f"{self.space}\x00{self.value}"

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it."""
        return self.until


class Setting(msgspec.Struct, frozen=True, kw_only=True, tag="setting"):
    """Hold one small thing the node must find again (trust snapshot, salts, cursors); key: its name."""

    name: str
    value: bytes

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.name

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself."""
        return None


class ConsentChange(msgspec.Struct, frozen=True, kw_only=True, tag="consent_change"):
    """Hold one line of a consent's history, as the Consent Manager shows it; key: its id.

    ``operation`` is ``create`` or ``patch``. ``patch`` is the JSON text of what was changed, without secrets;
    ``patch_filter`` that of the selector. Whoever changes a consent puts one of these into the same commit.
    """

    id: str
    consent_id: str
    operation: str
    time_ms: int
    interaction_id: str
    organisation_id: str = ""
    client_id: str = ""
    software_statement_id: str = ""
    patch: str = ""
    patch_filter: str = ""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,), "time": (self.time_ms,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself, but with its consent."""
        return None


class Payment(msgspec.Struct, frozen=True, kw_only=True, tag="payment"):
    """Hold one payment as the payment log shows it (hub-apis 3.7); key: the payment id that the bank gave.

    ``response`` is the bank's ``data`` in its own spelling. ``request_body`` is the TPP's message with the customer's data still
    encrypted; ``request_headers`` are without credentials (retained.toml). ``date`` is the day it counts for in the tenant's
    zone; ``amount`` is the decimal text. ``reservation`` names its share in the consent's ``Allowance``.
    """

    id: str
    consent_id: str
    client_id: str
    organisation_id: str
    payment_type: str
    idempotency_key: str
    created_ms: int
    updated_ms: int
    amount: str = "0.00"
    currency: str = "AED"
    date: str = ""
    response: dict[str, Any] = {}
    request_body: dict[str, Any] = {}
    signed_request: str = ""
    signed_response: str = ""
    request_headers: dict[str, str] = {}
    tpp: dict[str, Any] = {}
    account_id: str = ""
    psu_identifiers: dict[str, Any] = {}
    interaction_id: str = ""
    client_interaction_id: str = ""
    access_token_hash: str = ""
    reservation: str = ""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    @property
    def status(self) -> str:
        """Return the bank's word on it; of one that it has only received: pending."""
        said = str(self.response.get("status", "Pending"))
        return "Pending" if said == "Received" else said

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {"consent": (self.consent_id,), "created": (self.created_ms,)}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself, but with its consent."""
        return None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the request that the bank was sent, to be sent again as it was; without its bearer."""

    path: str
    family: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    scope: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True, tag="attempt"):
    """Hold one use of an idempotency key; key: digest of client and key (errors.md 7, decisions.md 3).

    Attributes:
        digest: Keyed hash of the canonical message: another one under the same key is refused.
        reservation: Names its share in the consent's ``Allowance``.
        created: The first receipt; the key is free a day later, but never while the outcome is not known.
        state: ``open`` while the bank is being asked, ``made``, ``refused``, or ``unknown`` where nobody can say what became of
            it: its share stays reserved until an operator settles it with the bank.
        draft: The payment as far as it is known, while ``open`` or ``unknown``; then in the payment log.
        question: What the bank was sent, where it promises to de-duplicate; kept as long as ``draft``.
        tries: How often it was sent again.
        due: When it is to be looked at again, seconds; 0 for never by itself.
        sealed: The answer, under a key that only who sends the same request again can derive.
    """

    id: str
    client_id: str
    consent_id: str
    digest: str
    reservation: str
    created: int
    state: str = "open"
    payment_id: str = ""
    draft: Payment | None = None
    question: Question | None = None
    tries: int = 0
    due: int = 0
    sealed: bytes = b""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.id

    @property
    def ended(self) -> bool:
        """Tell whether it is known what became of it."""
        return self.state not in {"open", "unknown"}

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        if self.ended:  # it is found by its key alone, and there are many
            return {}
        return {"state": (self.state,), "due": (self.due,) if self.due else ()}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: after a day, but never while its outcome is not known."""
        return self.created + 86_400 if self.ended else None


class Settlement(msgspec.Struct, frozen=True, kw_only=True, tag="settlement"):
    """Hold what one operator says became of a payment, until another one says the same; key: the attempt's id."""

    attempt_id: str
    outcome: str
    payment_id: str
    status: str
    by: str
    time: int

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.attempt_id

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: after a week."""
        return self.time + 604_800


class Delivery(msgspec.Struct, frozen=True, kw_only=True, tag="delivery"):
    """Hold one thing to be told to the bank or to a TPP, and what became of it; key: event index and target.

    It is made of an audit event that is already durable, so nothing can be forgotten. ``target`` is ``bank`` or
    ``webhook``, ``operation`` is ``post`` (it is new) or ``patch``, ``state`` is ``waiting``, ``told`` or ``dead`` (since
    ``told_ms``). ``payment_id`` names the payment it is about; empty where it is about the consent itself.
    """

    index: int
    target: str
    consent_id: str
    operation: str
    time_ms: int
    state: str = "waiting"
    due_ms: int = 0
    attempts: int = 0
    told_ms: int = 0
    status: int = 0
    payment_id: str = ""

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return f"{self.index:015d}:{self.target}"

    def indexes(self) -> Indexes:
        """Return what the store finds it by."""
        return {
            "lane": (f"{self.consent_id}:{self.target}:{self.state}",),
            "consent": (self.consent_id,),
            "state": (self.state,),
            "index": (self.index,),
            "due": (self.due_ms,) if self.state == "waiting" else (),
        }

    def purge_at(self) -> int | None:
        """Return when the store may forget it: thirty days after it was told, ninety after nobody heard it."""
        days = 30 if self.state == "told" else 90
        return None if self.state == "waiting" else self.told_ms // 1000 + days * 86_400


Record = (
    Consent
    | Pushed
    | Interaction
    | Code
    | AccessToken
    | RefreshToken
    | Grant
    | Registration
    | Seen
    | Setting
    | ConsentChange
    | Payment
    | Attempt
    | Settlement
    | Allowance
    | Delivery
)
