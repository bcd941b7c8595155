"""What ``sandbox.json`` says of a world: everything an outside client needs, paths relative to the folder."""

from pathlib import Path

from hub.sandbox.configuration import BankAddress
from hub.sandbox.control import CONTROL_PATH
from hub.sandbox.enrolment import redirect_uris, webhook_uri
from hub.sandbox.manifest import (
    MANIFEST_VERSION,
    BankSection,
    CustomerSection,
    DirectorySection,
    HubSection,
    Manifest,
    SandboxOptions,
    TenantSection,
    TppSection,
)
from hub.sandbox.parties import BankKeys, Keyring, TppKeys
from hub.sandbox.places import Places
from hub.sandbox.tenant import Tenant


def describe_world(
    options: SandboxOptions,
    places: Places,
    keys: Keyring,
    *,
    ca: Path,
    tenants: list[TenantSection],
    customers: list[CustomerSection],
) -> Manifest:
    """Return the manifest of a world that is up; the first tenant is the main one."""
    main, *beside = tenants
    return Manifest(
        version=MANIFEST_VERSION,
        ca_bundle=places.relative(ca),
        hub=main.hub,
        directory=DirectorySection(
            base=places.https(10),
            participants=f"{places.https(10)}/participants",
            keystore_base=places.https(10),
            token_endpoint=f"{places.https(11)}/token",
            page=f"{places.https(14)}/",
        ),
        control=str(CONTROL_PATH),
        bank=main.bank,
        tpps=[
            _tpp(places, tpp, redirect_uris(options, places, index), webhook_uri(places, index))
            for index, tpp in enumerate(keys.tpps)
        ],
        customers=customers,
        tenants=beside,
    )


def describe_tenant(
    places: Places, tenant: Tenant, keys: BankKeys, bank: BankAddress, pids: list[int]
) -> TenantSection:
    """Return what the manifest says of one tenant."""
    return TenantSection(
        profile=tenant.profile,
        hub=_hub(places, tenant, pids),
        bank=BankSection(
            provider_id=tenant.provider_id,
            authorization_endpoint=bank.authorization_endpoint,
            ozone_connect_base=bank.base_url,
            transport_cert=places.relative(keys.transport_client.cert_path),
            transport_key=places.relative(keys.transport_client.key_path),
            signing_key=places.relative(keys.signing.key_path),
            signing_kid=keys.signing.kid,
        ),
    )


def _hub(places: Places, tenant: Tenant, pids: list[int]) -> HubSection:
    issuer, bank_face = places.https(tenant.tpp), places.https(tenant.lfi)
    published = f"{places.https(10)}/{tenant.bank.organisation_id}/application.jwks"
    return HubSection(
        issuer=issuer,
        discovery=f"{issuer}/.well-known/openid-configuration",
        jwks=published if tenant.profile == "uae" else f"{issuer}/jwks",
        registration=f"{issuer}/tpp-registration",
        par=f"{issuer}/par",
        token=f"{issuer}/token",
        resource_base=issuer,
        heimdall_base=bank_face,
        consent_manager_base=bank_face,
        ops_base=places.http(tenant.ops),
        pids=pids,
    )


def _tpp(places: Places, tpp: TppKeys, uris: list[str], webhook: str) -> TppSection:
    return TppSection(
        name=tpp.party.name,
        client_id=tpp.party.client_id,
        organisation_id=tpp.party.organisation_id,
        roles=list(tpp.party.roles),
        redirect_uris=uris,
        transport_cert=places.relative(tpp.transport.cert_path),
        transport_key=places.relative(tpp.transport.key_path),
        signing_key=places.relative(tpp.signing.key_path),
        signing_kid=tpp.signing.kid,
        encryption_key=places.relative(tpp.encryption.key_path),
        encryption_kid=tpp.encryption.kid,
        server_cert=places.relative(tpp.page.cert_path),
        server_key=places.relative(tpp.page.key_path),
        webhook_uri=webhook,
    )
