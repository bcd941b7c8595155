"""``sandbox.json``: the one file an outside client needs; its layout is version 1 and only ever grows.

Paths are relative to the folder the file lies in. Keys are only ever added; a removed or renamed one is version 2.
All private keys are PEM (PKCS#8), certificates PEM; JSON Web Key Sets are where the directory serves them.

The control socket (``control``, a Unix stream socket of mode 0600) speaks one JSON object per line, each answered by
one: ``{"do": "time", "add": seconds}`` moves the clock of the whole world and answers ``{"ok": true, "now": ...}``;
``{"do": "stop"}`` ends the world; an unknown request answers ``{"ok": false, "error": "..."}``. ``{"do": "directory",
"act": ...}`` and ``{"do": "fault", "at": ...}`` turn the counterparties' knobs (see ``knobs``).

The bank's pages are plain HTML forms with stable field names: ``username``, ``password``; then ``account``
(repeated) and ``decision`` = ``approve`` or ``decline``.
"""

from pathlib import Path
from typing import Final

import msgspec

MANIFEST_VERSION: Final = 1
MANIFEST_NAME: Final = "sandbox.json"


class HubSection(msgspec.Struct, frozen=True, kw_only=True):
    """Say where the Hub is."""

    issuer: str
    discovery: str
    jwks: str
    registration: str
    par: str
    token: str
    resource_base: str
    heimdall_base: str
    consent_manager_base: str
    ops_base: str
    pids: list[int] = []


class DirectorySection(msgspec.Struct, frozen=True, kw_only=True):
    """Say where the Trust Framework is."""

    base: str
    participants: str
    keystore_base: str
    token_endpoint: str
    page: str = ""


class BankSection(msgspec.Struct, frozen=True, kw_only=True):
    """Say where the bank is, and what it authenticates to the Hub with."""

    provider_id: str
    authorization_endpoint: str
    ozone_connect_base: str
    transport_cert: str
    transport_key: str
    signing_key: str
    signing_kid: str


class TppSection(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one TPP's identity, keys and addresses; ``server_cert`` is for the pages behind its redirect URIs and webhooks."""

    name: str
    client_id: str
    organisation_id: str
    roles: list[str]
    redirect_uris: list[str]
    transport_cert: str
    transport_key: str
    signing_key: str
    signing_kid: str
    encryption_key: str
    encryption_kid: str
    server_cert: str = ""
    server_key: str = ""
    webhook_uri: str = ""


class CustomerSection(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one customer of the model bank, with the published password."""

    name: str
    username: str
    password: str
    accounts: list[str]


class TenantSection(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a tenant beside the main one (``--profile both``)."""

    profile: str
    hub: HubSection
    bank: BankSection


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the whole file; ``tenants`` are those beside the main one, whose sections stand at the top."""

    version: int
    ca_bundle: str
    hub: HubSection
    directory: DirectorySection
    control: str
    bank: BankSection
    tpps: list[TppSection]
    customers: list[CustomerSection]
    tenants: list[TenantSection] = []


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the options of ``hub sandbox up``.

    Attributes:
        folder: Where keys and data are made and kept.
        port_base: First of at most 50 ports: +0 TPP edge, +1 LFI edge, +2 ops, +3 portal; +10 directory (public),
            +11 directory API (mTLS), +12 CRL and OCSP (plain), +14 the directory's page; +20 Ozone Connect, +21 the bank's pages; +30 and +31
            the TPPs' redirect URIs; +40.. the same for a second tenant (``profile`` both).
        journey: Run the narrated journey once the world is up.
        exit_after_journey: Stop afterwards; the exit status tells how it went.
        workers: Gateway processes of the Hub.
        profile: ``uae``, ``general`` or ``both``.
        tpp_redirect_uris: Added to each TPP's registered redirect URIs.
        bank_url: Use this Ozone Connect instead of the model bank's.
        bank_authorization_endpoint: With ``bank_url``.
        bank_ca: CA bundle of ``bank_url``.
        tpp_cert: Register this TPP transport certificate's subject too.
        tpp_jwks: Its key set.
    """

    folder: Path = Path(".sandbox")
    port_base: int = 8400
    journey: bool = True
    exit_after_journey: bool = False
    workers: int = 1
    profile: str = "uae"
    tpp_redirect_uris: tuple[str, ...] = ()
    bank_url: str = ""
    bank_authorization_endpoint: str = ""
    bank_ca: Path | None = None
    tpp_cert: Path | None = None
    tpp_jwks: Path | None = None


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write ``sandbox.json`` into a folder, whole or not at all, readable by the owner only."""
    path = folder / MANIFEST_NAME
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    part.chmod(0o600)
    part.replace(path)
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read ``sandbox.json`` of a folder.

    Raises:
        FileNotFoundError: No sandbox was started there.
        msgspec.ValidationError: The file is not version 1 of the layout.
    """
    manifest = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=Manifest)
    if manifest.version != MANIFEST_VERSION:
        raise msgspec.ValidationError(
            f"sandbox.json is version {manifest.version}; this release reads version {MANIFEST_VERSION}"
        )
    return manifest
