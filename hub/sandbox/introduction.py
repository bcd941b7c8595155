"""What ``sandbox.json`` says of a world: everything an outside client needs, paths relative to the folder."""

from pathlib import Path

from hub.sandbox.configuration import BankAddress
from hub.sandbox.control import CONTROL_PATH
from hub.sandbox.enrolment import redirect_uris
from hub.sandbox.manifest import (
    MANIFEST_VERSION,
    BankSection,
    CustomerSection,
    DirectorySection,
    HubSection,
    Manifest,
    SandboxOptions,
    TppSection,
)
from hub.sandbox.parties import PROVIDER_ID, BankKeys, Keyring, TppKeys
from hub.sandbox.places import Places


def describe_world(
    options: SandboxOptions,
    places: Places,
    keys: Keyring,
    *,
    ca: Path,
    bank: BankAddress,
    customers: list[CustomerSection],
    hub_pids: list[int],
) -> Manifest:
    """Return the manifest of a world that is up."""
    return Manifest(
        version=MANIFEST_VERSION,
        ca_bundle=places.relative(ca),
        hub=_hub(places, hub_pids),
        directory=DirectorySection(
            base=places.https(10),
            participants=f"{places.https(10)}/participants",
            keystore_base=places.https(10),
            token_endpoint=f"{places.https(11)}/token",
        ),
        control=str(CONTROL_PATH),
        bank=_bank(places, keys.bank, bank),
        tpps=[
            _tpp(places, tpp, redirect_uris(options, places, index))
            for index, tpp in enumerate(keys.tpps)
        ],
        customers=customers,
    )


def _hub(places: Places, pids: list[int]) -> HubSection:
    issuer = places.https(0)
    return HubSection(
        issuer=issuer,
        discovery=f"{issuer}/.well-known/openid-configuration",
        jwks=f"{issuer}/jwks",
        registration=f"{issuer}/tpp-registration",
        par=f"{issuer}/par",
        token=f"{issuer}/token",
        resource_base=issuer,
        heimdall_base=places.https(1),
        consent_manager_base=places.https(1),
        ops_base=places.http(2),
        pids=pids,
    )


def _bank(places: Places, keys: BankKeys, bank: BankAddress) -> BankSection:
    return BankSection(
        provider_id=PROVIDER_ID,
        authorization_endpoint=bank.authorization_endpoint,
        ozone_connect_base=bank.base_url,
        transport_cert=places.relative(keys.transport_client.cert_path),
        transport_key=places.relative(keys.transport_client.key_path),
        signing_key=places.relative(keys.signing.key_path),
        signing_kid=keys.signing.kid,
    )


def _tpp(places: Places, tpp: TppKeys, uris: list[str]) -> TppSection:
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
    )
