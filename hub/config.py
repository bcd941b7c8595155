"""Typed settings from one TOML file and the environment, validated, then frozen; each value remembers its origin.

A setting is looked up in the environment (``HUB__SECTION__KEY``, values in TOML syntax or plain text), then in the
configuration file, then in the defaults below; the limits' defaults stand in ``config/limits.toml`` with unit, reason
and precedent. Unknown keys are errors. Paths are relative to the configuration file. Secrets are never values here,
only paths of files that hold them.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_type_hints

import msgspec

from hub.model.address import wrong_addresses


class ConfigError(Exception):
    """Say in one line what is wrong with the configuration, where it came from, and what was expected."""


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
        time_zone: For every date rule.
        beside: Versions of official documents that ``hub specs use`` laid beside ours and that are served too.
        bank_codes: Which organisation of the Trust Framework an IBAN's three-digit bank code belongs to; banks tell
            their codes when they join.
    """

    provider_id: str
    organisation_id: str
    organisation_name: str
    issuer: str
    resource_base: str
    environment: Literal["production", "pre-production", "sandbox"] = "production"
    profile: Literal["uae", "general"] = "uae"
    time_zone: str = "Asia/Dubai"
    beside: tuple[str, ...] = ()
    bank_codes: dict[str, str] = {}


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name the files of a certificate chain (leaf first) and its private key, PEM."""

    certificate: Path
    key: Path


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where a face listens, and with which certificate; ``hosts`` are the authorities it answers to (empty: any).

    ``certificates`` are those of single host names, chosen by the server name that the client sends (RFC 6066
    section 3); every other name, and none, gets ``certificate``.
    """

    bind: str = "127.0.0.1"
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    hosts: tuple[str, ...] = ()
    certificates: dict[str, Pair] = {}


class Lfi(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where the bank calls us, and which client certificates are the bank's (subject OU and CN)."""

    bind: str = "127.0.0.1"
    port: int
    certificate: Path
    key: Path
    client_ca: Path
    base: str
    organisation_id: str
    client_ids: tuple[str, ...]
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
        base_paths: Optional base path per family.
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
    base_paths: dict[str, str] = {}
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
    client_id: str
    ca: Path
    certificate: Path
    key: Path
    crl: str = ""
    ocsp: str = ""
    statement_keys: str = ""
    refresh: int = 300
    keys_refresh: int = 300
    outage_read: int = 14_400
    outage_pay: int = 1_800
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
    retain: dict[str, int] = {}


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


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold every bound. Defaults, units, reasons and precedents: ``config/limits.toml``."""

    connections: int
    connections_per_address: int
    handshakes: int
    handshakes_per_address: int
    handshake_s: float
    header_octets: int
    header_s: float
    body_octets: int
    body_rate_octets_s: int
    bodies_octets: int
    idle_s: float
    send_s: float
    streams: int
    stream_window: int
    connection_window: int
    frame_octets: int
    control_frames: int
    control_frames_s: float
    resets: int
    resets_per_s: float
    continuations: int
    requests: int
    request_s: float
    drain_s: float
    complete_answer_octets: int
    commit_queue: int
    commit_s: float
    bank_connections: int
    bank_streams: int
    bank_exchanges: int
    bank_exchange_s: float
    bank_connect_s: float
    bank_idle_s: float
    bank_answer_octets: int
    bank_header_octets: int
    bank_age_s: float
    bank_waiting: int
    bank_failures: int
    bank_open_s: float
    bank_open_most_s: float
    bank_health_s: float
    bank_validate_s: float
    bank_event_s: float
    deliveries: int
    reserve_octets: int
    bearer_s: int
    trust_document_octets: int
    trust_fetch_s: float
    trust_clients: int
    request_object_octets: int
    assertion_octets: int
    form_octets: int
    token_cache: int
    consent_cache: int
    request_uri_s: int
    interaction_s: int
    code_s: int
    access_token_s: int
    assertion_s: int
    request_object_s: int
    clock_ahead_s: int
    signing_key_wait_s: int
    signing_key_overlap_s: int
    replay_entries: int
    client_requests_per_s: float
    client_requests: int
    buckets: int
    calls_operation_per_s: float
    calls_client_per_s: float
    calls_organisation_per_s: float
    calls_platform_per_s: float
    pages_attended_per_day: int
    pages_unattended_per_day: int


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
    workers: int = 1


def config_folder() -> Path:
    """Return the folder of shipped configuration: ``config/`` in a checkout, ``hub/_config`` in a wheel."""
    shipped = Path(__file__).parent / "_config"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "config"


def default_limits() -> dict[str, Any]:
    """Return the shipped default of each limit by name."""
    table = tomllib.loads((config_folder() / "limits.toml").read_text())
    return {name: row["value"] for name, row in table.items()}


_SECTIONS: Final = {
    "tenant": Tenant,
    "tpp": Listen,
    "lfi": Lfi,
    "ops": Listen,
    "keys": Keys,
    "bank": BankSettings,
    "trust": TrustSettings,
    "state": StateSettings,
    "log": LogSettings,
    "switches": Switches,
    "limits": Limits,
}


class Loaded(msgspec.Struct, frozen=True):
    """Hold settings together with where each value came from (``section.key`` -> origin)."""

    settings: Settings
    origins: dict[str, str]


def load(path: Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read, merge, validate and freeze the settings.

    Args:
        path: The TOML file.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: One line that names file, key, what came and what was expected.
    """
    environ = os.environ if environ is None else environ
    raw = _read(path)
    origins = {f"{s}.{k}": str(path) for s, t in raw.items() if isinstance(t, dict) for k in t}
    for name, value in default_limits().items():
        if name not in raw.setdefault("limits", {}):
            raw["limits"][name] = value
            origins[f"limits.{name}"] = "config/limits.toml"
    _overlay(raw, environ, origins)
    _absolute(raw, path.resolve().parent)
    try:
        settings = msgspec.convert(raw, Settings, strict=True, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    _check(settings, path)
    return Loaded(settings, origins)


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); check owner and mode") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _overlay(raw: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    for name, text in environ.items():
        if not name.startswith("HUB__"):
            continue
        parts = name[5:].lower().split("__")
        if len(parts) == 1 and parts[0] == "workers":
            raw["workers"] = _toml_value(text)
            origins["workers"] = f"environment {name}"
            continue
        if len(parts) != 2 or parts[0] not in _SECTIONS:
            raise ConfigError(
                f"environment {name}: expected HUB__SECTION__KEY with a section of {', '.join(_SECTIONS)}"
            )
        raw.setdefault(parts[0], {})[parts[1]] = _toml_value(text)
        origins[".".join(parts)] = f"environment {name}"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _absolute(raw: dict[str, Any], base: Path) -> None:
    """Make each path absolute, relative to the configuration file."""
    for section, kind in _SECTIONS.items():
        table = raw.get(section)
        if not isinstance(table, dict):
            continue
        for name, hint in get_type_hints(kind).items():
            if Pair in _flat(hint) and isinstance(table.get(name), dict):
                _absolute_pairs(table[name], base)
            if Path not in _flat(hint) or name not in table:
                continue
            value = table[name]
            if isinstance(value, str):
                table[name] = str(base / value)
            elif isinstance(value, list):
                table[name] = [str(base / v) if isinstance(v, str) else v for v in value]


def _absolute_pairs(pairs: dict[str, Any], base: Path) -> None:
    for pair in pairs.values():
        if isinstance(pair, dict):
            pair.update({k: str(base / v) for k, v in pair.items() if isinstance(v, str)})


def _flat(hint: Any) -> set[Any]:
    found = {hint}
    for part in getattr(hint, "__args__", ()):
        found |= _flat(part)
    return found


def _check(settings: Settings, path: Path) -> None:
    """Refuse what types cannot express."""
    tenant, bank, trust = settings.tenant, settings.bank, settings.trust
    wrong = wrong_addresses(
        origins={
            "tenant.issuer": tenant.issuer,
            "tenant.resource_base": tenant.resource_base,
            "bank.base_url": bank.base_url,
        },
        pages={"bank.authorization_endpoint": bank.authorization_endpoint}
        | {f"trust.{n}": getattr(trust, n) for n in ("participants", "keystore", "api")}
        | {"trust.token_endpoint": trust.token_endpoint},
        lists={"trust.crl": trust.crl, "trust.ocsp": trust.ocsp},
    )
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    if settings.trust.auto_activate and settings.tenant.environment != "sandbox":
        raise ConfigError(
            f"{path}: trust.auto_activate: is for tenant.environment = 'sandbox' only"
        )
    if not 1 <= settings.trust.keys_refresh <= 1200:
        raise ConfigError(
            f"{path}: trust.keys_refresh: the standard allows key sets to be kept for 20 minutes at most, "
            f"got {settings.trust.keys_refresh} seconds"
        )
    if not 1 <= settings.workers <= 64:
        raise ConfigError(f"{path}: workers: expected 1 to 64, got {settings.workers}")
    ports = [settings.tpp.port, settings.lfi.port, settings.ops.port]
    if any(not 1 <= port <= 65535 for port in ports) or len(set(ports)) != 3:
        raise ConfigError(
            f"{path}: tpp.port, lfi.port, ops.port: expected three different ports, got {ports}"
        )
