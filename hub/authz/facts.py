"""What a check may look at: the request, what the shell looked up for it, and the rules in force.

Invariants. Facts are complete before the first check of a phase runs; checks never look anything up. The rows run
in order, so a check may rely on what the rows above it established (``caller`` after ``trust``).
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from hub.config import Settings
from hub.model.caller import Caller
from hub.model.consent import Consent
from hub.model.fault import Fault, caller_fault
from hub.model.records import AccessToken, Code, Grant, Interaction, Pushed, RefreshToken
from hub.protocol.dpop import Proof, ProofFault
from hub.protocol.jose import DPOP_ALGS, GENERAL_ALGS, UAE_ALGS, JoseFault, Parsed, PublicKey
from hub.protocol.oauth import FormFault

AuthorizationDetailsCheck = Callable[[str, dict[str, Any]], Fault | None]
"""Validate one element of ``authorization_details`` of a registered type against its schema."""


class Column(StrEnum):
    """Enumerate the columns of the matrix: what a caller may ask for."""

    PAR = "par"
    CODE = "token.authorization_code"
    REFRESH = "token.refresh_token"
    CREDENTIALS = "token.client_credentials"
    OTHER_GRANT = "token.other"
    REVOKE = "revoke"
    INTROSPECT = "introspect"
    AUTHORIZE = "authorize"
    FINISH = "finish"


TOKEN: Final = frozenset({Column.CODE, Column.REFRESH, Column.CREDENTIALS, Column.OTHER_GRANT})
CLIENT: Final = TOKEN | {Column.PAR, Column.REVOKE, Column.INTROSPECT}
"""Where a client authenticates."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the figures and lists in force at this tenant."""

    issuer: str
    time_zone: str = "Asia/Dubai"
    algs: tuple[str, ...] = UAE_ALGS
    dpop_algs: tuple[str, ...] = DPOP_ALGS
    general: bool = False
    jarm: bool = False
    dpop_required: bool = False
    tls_client_auth: bool = False
    assertion_s: int = 300
    request_object_s: int = 600
    ahead_s: int = 30
    assertion_octets: int = 8192
    request_object_octets: int = 65536


def rules_of(settings: Settings) -> Rules:
    """Derive the rules from the settings."""
    general = settings.tenant.profile == "general"
    limits = settings.limits
    return Rules(
        issuer=settings.tenant.issuer,
        time_zone=settings.tenant.time_zone,
        algs=GENERAL_ALGS if general else UAE_ALGS,
        dpop_algs=GENERAL_ALGS if general else DPOP_ALGS,
        general=general,
        jarm=settings.switches.jarm,
        dpop_required=settings.switches.dpop_required,
        tls_client_auth=settings.switches.tls_client_auth,
        assertion_s=limits.assertion_s,
        request_object_s=limits.request_object_s,
        ahead_s=limits.clock_ahead_s,
        assertion_octets=limits.assertion_octets,
        request_object_octets=limits.request_object_octets,
    )


_ABSENT: Final = JoseFault("jose.absent", "nothing was sent")
UNKNOWN_CALLER: Final = Caller(
    client_id="",
    organisation_id="",
    software_statement_id="",
    tpp_id="",
    tpp_name="",
    roles=(),
    redirect_uris=(),
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Hold everything the checks of one request may look at.

    Attributes:
        column: What is asked for.
        rules: In force.
        now: Seconds since 1970.
        form: The parameters; empty while ``form_fault`` is set.
        form_fault: Why the form cannot be read.
        judged: What the Trust Framework says of the peer.
        assertion: The client assertion, parsed.
        assertion_key: The client's key of its ``kid``.
        proof: The DPoP proof, if one was sent.
        request: The request object, parsed.
        request_key: The client's key of its ``kid``.
        request_seen: Its ``jti`` was used before.
        details_check: The schema of authorization details.
        taken: The consent that already has the asked-for ``ConsentId``.
        base: The consent that ``BaseConsentId`` names.
        can_encrypt_to: The client has an encryption key.
        code: The code's record.
        refresh: The refresh token's record.
        access: The access token's record (revocation, introspection).
        grant: What the code gave.
        consent: The consent that is concerned.
        pushed: The pushed request.
        interaction: The hand-over to the bank.
    """

    column: Column
    rules: Rules
    now: int
    form: Mapping[str, str] = {}
    form_fault: FormFault | None = None
    judged: Caller | Fault = UNKNOWN_CALLER
    assertion: Parsed | JoseFault = _ABSENT
    assertion_key: PublicKey | None = None
    proof: Proof | ProofFault | None = None
    request: Parsed | JoseFault = _ABSENT
    request_key: PublicKey | None = None
    request_seen: bool = False
    details_check: AuthorizationDetailsCheck | None = None
    taken: Consent | None = None
    base: Consent | None = None
    can_encrypt_to: bool = False
    code: Code | None = None
    refresh: RefreshToken | None = None
    access: AccessToken | None = None
    grant: Grant | None = None
    consent: Consent | None = None
    pushed: Pushed | None = None
    interaction: Interaction | None = None

    @property
    def caller(self) -> Caller:
        """Return the client behind the certificate; without one it has no id, no role and no URI."""
        return self.judged if isinstance(self.judged, Caller) else UNKNOWN_CALLER

    @property
    def by_certificate(self) -> bool:
        """Tell whether the client authenticates by its certificate alone (``tls_client_auth``, RFC 8705 section 2.1)."""
        sent = {"client_assertion", "client_assertion_type"} & set(self.form)
        return self.rules.tls_client_auth and not sent and "client_id" in self.form

    @property
    def claims(self) -> Mapping[str, Any]:
        """Return the request object's claims; empty if there is none."""
        return self.request.claims if isinstance(self.request, Parsed) else {}

    @property
    def assertion_claims(self) -> Mapping[str, Any]:
        """Return the assertion's claims; empty if there is none."""
        return self.assertion.claims if isinstance(self.assertion, Parsed) else {}

    @property
    def detail(self) -> Mapping[str, Any]:
        """Return the one element of ``authorization_details``; empty if it is not there."""
        details = self.claims.get("authorization_details")
        first = details[0] if isinstance(details, list) and details else {}
        return first if isinstance(first, dict) else {}

    @property
    def asked(self) -> Mapping[str, Any]:
        """Return the consent that is asked for; empty if it is not there."""
        consent = self.detail.get("consent")
        return consent if isinstance(consent, dict) else {}

    @property
    def jkt(self) -> str:
        """Return the thumbprint of the DPoP key in use; empty without a proof."""
        return self.proof.jkt if isinstance(self.proof, Proof) else ""


def refuse(code: str, check: str, public: str, *, status: int = 400, path: str = "") -> Fault:
    """Make the refusal of a check; ``public`` names the claim, what was expected and what came."""
    return caller_fault(status, code, public, check=check, path=path)
