"""The settings of one node, typed: what each may be stands in its type. ``hub.config`` reads them.

Secrets are never values here, only paths of files that hold them.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

_YEAR_S: Final = 31_536_000
_MOST: Final = 2**53 - 1

Name = Annotated[str, Meta(pattern=r"^[!-~]+\Z")]
"""Printable ASCII without a space: it travels in headers and certificates' subjects."""
Title = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""One line of text."""
BankCode = Annotated[str, Meta(pattern=r"^[0-9]{3}\Z")]
BankFamily = Annotated[
    str, Meta(pattern=r"^(data-sharing|service-initiation|products|events|echo)\Z")
]
"""Operations of Ozone Connect that may have a base path of their own."""
Port = Annotated[int, Meta(ge=1, le=65535)]
Days = Annotated[int, Meta(ge=1, le=36_500)]
HistoryDays = Annotated[int, Meta(ge=366, le=36_500)]
"""A bank serves payments for a year, and shows its customers what they consented to for as long."""
Count = Annotated[int, Meta(ge=1, le=_MOST)]
"""A bound of something that there must be at least one of."""
Some = Annotated[int, Meta(ge=0, le=_MOST)]
"""A bound that may be nothing."""
Window = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""RFC 9113 section 6.9.1."""
Frame = Annotated[int, Meta(ge=16_384, le=16_777_215)]
"""RFC 9113 section 4.2."""
Seconds = Annotated[float, Meta(gt=0, le=_YEAR_S)]
"""A deadline: never endless, never not a number."""
Silence = Annotated[float, Meta(ge=3, le=_YEAR_S)]
"""A loop beats once a second: less than three seconds would end one that is merely busy."""
Rate = Annotated[float, Meta(gt=0, le=_MOST)]
FreeRate = Annotated[float, Meta(ge=0, le=_MOST)]
"""A rate; 0 is not limited."""
Share = Annotated[float, Meta(gt=0, le=1)]
"""A part of a whole."""
Life = Annotated[int, Meta(ge=1, le=_YEAR_S)]
"""Whole seconds that something is good for."""
Wait = Annotated[int, Meta(ge=0, le=_YEAR_S)]
CodeLife = Annotated[int, Meta(ge=1, le=60)]
"""FAPI 2.0 Security Profile section 5.3.2.1: a minute at most."""
RequestUriLife = Annotated[int, Meta(ge=10, lt=600)]
"""FAPI 2.0 Security Profile section 5.3.2.2: under ten minutes; in less than ten seconds no browser has followed it."""
RequestObjectLife = Annotated[int, Meta(ge=1, le=3600)]
"""FAPI 2.0 Message Signing section 5.3.1: an hour at most."""
InteractionLife = Annotated[int, Meta(ge=1, le=7200)]
"""The pushed request that an interaction belongs to is kept for two hours."""
Ahead = Annotated[int, Meta(ge=10, le=60)]
"""FAPI 2.0 Security Profile section 5.3.2.1: ten seconds must be accepted, more than a minute must not."""
Refresh = Annotated[int, Meta(ge=1, le=1200)]
"""Who was taken off the framework's list is refused within 20 minutes; key sets may be kept no longer either."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say whose Hub this is.

    Attributes:
        provider_id: The LFI code; also ``o3-provider-id``.
        organisation_id: The bank's organisation in the Trust Framework.
        organisation_name: Its legal name there.
        issuer: Our issuer identifier, an https URL without trailing slash.
        resource_base: Where TPPs reach resources, an https URL without trailing slash.
        environment: ``production``, ``pre-production`` or ``sandbox``.
        profile: ``uae`` (PS256, mTLS) or ``general`` (DPoP, JARM and more algorithms may be switched on).
        time_zone: For every date
        beside: Versions of official documents that ``hub specs use`` laid beside ours and that are served too.
        bank_codes: Which organisation of the Trust Framework an IBAN's three-digit bank code belongs to; banks tell
            their codes when they join.
    """

    provider_id: Name
    organisation_id: Name
    organisation_name: Title
    issuer: str
    resource_base: str
    environment: Literal["production", "pre-production", "sandbox"] = "production"
    profile: Literal["uae", "general"] = "uae"
    time_zone: str = "Asia/Dubai"
    beside: tuple[str, ...] = ()
    bank_codes: dict[BankCode, Name] = {}


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name the files of a certificate chain (leaf first) and its private key, PEM."""

    certificate: Path
    key: Path


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where a face listens, and with which certificate; ``hosts`` are the authorities it answers to (empty: any).

    ``certificates`` are those of single host names, chosen by the server name that the client sends (RFC 6066
    section 3); every other name, and none, gets ``certificate``.
    """

    bind: Name = "127.0.0.1"
    port: Port
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    hosts: tuple[str, ...] = ()
    certificates: dict[str, Pair] = {}


class Lfi(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where the bank calls us, and which client certificates are the bank's (subject OU and CN)."""

    bind: Name = "127.0.0.1"
    port: Port
    certificate: Path
    key: Path
    client_ca: Path
    base: str
    organisation_id: Name
    client_ids: Annotated[tuple[Name, ...], Meta(min_length=1)]
    hosts: tuple[str, ...] = ()
    certificates: dict[str, Pair] = {}


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name where our private keys are.

    Attributes:
        signing: Files of Sig2 (id_tokens, answers), newest first: PEM, or PKCS#12 ending in ``.p12`` or ``.pfx``.
        bearer: File of Sig3 (JWT Auth).
        log: File of the audit log's key.
        pkcs11: URIs (RFC 7512) of Sig2 in a token; newer than those in files.
        password: File with the password of encrypted files.
    """

    signing: tuple[Path, ...]
    bearer: Path
    log: Path | None = None
    pkcs11: tuple[str, ...] = ()
    password: Path | None = None


class BankSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say how the bank's Ozone Connect is reached.

    Attributes:
        base_url: https, host and port only: no path, no query, no trailing slash.
        authorization_endpoint: The bank's own page, https, no query.
        ca: CA bundle for its server certificate.
        certificate: Our client certificate (C4).
        key: Its private key.
        auth: ``jwt`` (JWT Auth), ``api_key``, ``oauth`` or ``mtls``.
        audience: ``aud`` of the bearer; the bank's provider id as agreed.
        api_key: File with the API key.
        token_endpoint: For ``oauth``.
        client_id: For ``oauth``.
        client_secret: File with the secret, for ``oauth``.
        base_paths: Optional base path per family of operations.
        jwt_auth_inbound: Demand JWT Auth on the LFI edge too.
        validate: Ask the bank before a consent is stored.
        validate_silence: What becomes of a consent when the bank, asked, gives no usable answer.
        augment: Ask the bank for charges and rates of each payment consent before it is stored.
        events: Tell the bank of each consent change.
        dedupes_by_key: The bank promises to de-duplicate payments by idempotency key.
        http2: Offer HTTP/2 by ALPN; the bank chooses.
    """

    base_url: str
    authorization_endpoint: str
    ca: Path
    certificate: Path
    key: Path
    auth: Literal["jwt", "api_key", "oauth", "mtls"] = "jwt"
    audience: str = ""
    api_key: Path | None = None
    token_endpoint: str = ""
    client_id: str = ""
    client_secret: Path | None = None
    base_paths: dict[BankFamily, str] = {}
    jwt_auth_inbound: bool = False
    validate: bool = False
    validate_silence: Literal["refuse", "accept"] = "refuse"
    augment: bool = False
    events: bool = False
    dedupes_by_key: bool = False
    http2: bool = True


class TrustSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where the Trust Framework is, and how long its last word may be used.

    Attributes:
        participants: URL of the participants document.
        keystore: Base URL of the key store.
        api: Base URL of the directory's API (mTLS).
        token_endpoint: Of the directory (mTLS, ``directory:software``).
        client_id: Our own client there.
        ca: CA bundle of these hosts' server certificates.
        certificate: Our client certificate for its API.
        key: Its private key.
        crl: URL of the certificate revocation list; empty for none.
        ocsp: URL of the OCSP responder; empty for none.
        statement_keys: URL of the key set that software statement assertions are signed with; empty: the key
            store's ``/directory.jwks``.
        refresh: Seconds between refreshes of the mirror.
        keys_refresh: Seconds between refreshes of key sets.
        outage_read: Seconds that reads go on with the last good snapshot.
        outage_pay: Seconds that payments go on.
        auto_activate: Activate each registration at once (sandbox only).
        push_key: File with the key that notifications of the framework must present; none are taken without it.
    """

    participants: str
    keystore: str
    api: str
    token_endpoint: str
    client_id: Name
    ca: Path
    certificate: Path
    key: Path
    crl: str = ""
    ocsp: str = ""
    statement_keys: str = ""
    refresh: Refresh = 300
    keys_refresh: Refresh = 300
    outage_read: Life = 14_400
    outage_pay: Life = 1_800
    auto_activate: bool = False
    push_key: Path | None = None


class StateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where the tenant's database, log and socket are: one folder, mode 0700."""

    folder: Path
    socket: Path | None = None


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say how the audit log is published; its key is ``keys.log``, and without that key it is not.

    Attributes:
        retiring: Keys that ``keys.log`` replaces: they sign beside it until they are taken out of this list.
        witnesses: Whom to ask for a cosignature: the base URL and the verifier key, with a space between.
        ca: CA bundle of the witnesses' servers; the system's by default.
        retain: For each kind of event how many days ``hub audit prune`` leaves it; kinds not named are kept for ever.
    """

    retiring: tuple[Path, ...] = ()
    witnesses: tuple[str, ...] = ()
    ca: Path | None = None
    retain: dict[str, Days] = {}


class Switches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what a tenant may switch on or off (decisions.md)."""

    dpop_nonce: bool = False
    dpop_required: bool = False
    jarm: bool = False
    jwt_access_tokens: bool = False
    encrypted_id_tokens: bool = False
    signed_introspection: bool = False
    tls_client_auth: bool = False
    own_authorization_endpoint: bool = False
    strict_interaction_id: bool = False
    strip_detail: bool = True
    publish_log: bool = False
    personal_identifiers: Literal["accept", "flag", "refuse"] = "flag"
    response_validation: Literal["off", "shadow", "enforce"] = "shadow"
    month_periods: Literal["calendar", "anchored"] = "calendar"
    exact_payment_days: bool = False
    payee_yes: Share = 0.95
    payee_partial: Share = 0.70


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold every bound. Defaults, units, reasons and precedents: ``config/limits.toml``."""

    connections: Count
    connections_per_address: Count
    handshakes: Count
    handshakes_per_address: Count
    handshake_s: Seconds
    header_octets: Count
    header_s: Seconds
    body_octets: Count
    body_rate_octets_s: Count
    bodies_octets: Count
    idle_s: Seconds
    send_s: Seconds
    send_rate_octets_s: Count
    streams: Window
    stream_window: Window
    connection_window: Window
    frame_octets: Frame
    control_frames: Count
    control_frames_s: Seconds
    resets: Count
    resets_per_s: Rate
    continuations: Count
    requests: Count
    request_s: Seconds
    drain_s: Seconds
    loop_silent_s: Silence
    worker_start_s: Silence
    complete_answer_octets: Some
    commit_queue: Count
    commit_s: Seconds
    bank_connections: Count
    bank_streams: Count
    bank_exchanges: Count
    bank_exchange_s: Seconds
    bank_connect_s: Seconds
    bank_idle_s: Seconds
    bank_answer_octets: Count
    bank_header_octets: Count
    bank_age_s: Seconds
    bank_waiting: Some
    bank_failures: Count
    bank_open_s: Seconds
    bank_open_most_s: Seconds
    bank_health_s: Seconds
    bank_validate_s: Seconds
    bank_event_s: Seconds
    payments_again: Count
    deliveries: Count
    deliveries_per_receiver: Count
    reserve_octets: Some
    bearer_s: Life
    trust_document_octets: Count
    trust_fetch_s: Seconds
    trust_clients: Count
    request_object_octets: Count
    assertion_octets: Count
    form_octets: Count
    token_cache: Count
    consent_cache: Count
    request_uri_s: RequestUriLife
    interaction_s: InteractionLife
    code_s: CodeLife
    access_token_s: Life
    assertion_s: Life
    request_object_s: RequestObjectLife
    clock_ahead_s: Ahead
    signing_key_wait_s: Wait
    signing_key_overlap_s: Wait
    replay_entries: Count
    consent_history_days: HistoryDays
    client_requests_per_s: Rate
    client_requests: Count
    buckets: Count
    calls_operation_per_s: FreeRate
    calls_client_per_s: FreeRate
    calls_organisation_per_s: FreeRate
    calls_platform_per_s: FreeRate
    pages_attended_per_day: Some
    pages_unattended_per_day: Some


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold all settings of one node."""

    tenant: Tenant
    tpp: Listen
    lfi: Lfi
    ops: Listen
    keys: Keys
    bank: BankSettings
    trust: TrustSettings
    state: StateSettings
    limits: Limits
    switches: Switches = Switches()
    log: LogSettings = LogSettings()
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
