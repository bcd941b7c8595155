"""What the sandbox's Trust Framework is told at each start: organisations, applications, keys, the bank's server."""

from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from hub.model.clock import SeededDice
from hub.node.errors import StartError
from hub.protocol.jose import JoseFault, load_key_set
from hub.sandbox.directory import ApiResource, Directory
from hub.sandbox.manifest import SandboxOptions
from hub.sandbox.parties import BANK_CLIENT_NAME, TPP_ROLES, Keyring, TppKeys
from hub.sandbox.places import Places
from hub.sandbox.tenant import Tenant, tenants_of
from hub.trust.refresh import is_id

FAMILIES: Final = ("account-information", "payment")
VERSION: Final = "2.1"
PAYMENT_KINDS: Final = (
    "SingleInstantPayment",
    "FixedDefinedSchedule",
    "VariableDefinedSchedule",
    "FixedPeriodicSchedule",
    "VariablePeriodicSchedule",
    "FixedOnDemand",
)


def redirect_uris(options: SandboxOptions, places: Places, index: int) -> list[str]:
    """Return the redirect URIs of the sandbox's TPP of that index, the options' last."""
    return [f"{places.https(30 + index)}/callback", *options.tpp_redirect_uris]


def webhook_uri(places: Places, index: int) -> str:
    """Return the address at which the sandbox's TPP of that index may be told of its consents."""
    return f"{places.https(32 + index)}/webhook"


def enrol(directory: Directory, keys: Keyring, options: SandboxOptions, places: Places) -> None:
    """Tell the directory of everybody; what it knows already is brought up to date.

    Raises:
        StartError: The TPP certificate or key set of the options cannot be used.
    """
    for tenant in tenants_of(options):
        _enrol_bank(directory, keys, places, tenant)
        _enrol_operator(directory, keys, tenant)
    for index, tpp in enumerate(keys.tpps):
        uris = redirect_uris(options, places, index)
        _enrol_tpp(directory, tpp, uris, webhook_uri(places, index))
    if options.tpp_cert is not None:
        _enrol_stranger(directory, options, places)


def _enrol_operator(directory: Directory, keys: Keyring, tenant: Tenant) -> None:
    operator, hub = tenant.operator, tenant.keys(keys).hub
    directory.add_organisation(
        organisation_id=operator.organisation_id, name=operator.name, size="TSP"
    )
    _application(directory, operator.organisation_id, operator.client_id, "API Hub", ())
    for issued in (hub.upstream, hub.bearer_signing):
        directory.add_key(operator.organisation_id, issued, client_id=operator.client_id)


def _enrol_bank(directory: Directory, keys: Keyring, places: Places, tenant: Tenant) -> None:
    party, own = tenant.bank, tenant.keys(keys)
    organisation = party.organisation_id
    directory.add_organisation(
        organisation_id=organisation, name=party.name, size="LFI", roles=party.roles
    )
    _application(directory, organisation, party.client_id, BANK_CLIENT_NAME, party.roles)
    for issued in (own.bank.transport_client, own.bank.signing):
        directory.add_key(organisation, issued, client_id=party.client_id)
    for issued in (
        own.bank.transport_server,
        own.bank.encryption,
        own.hub.tpp_edge,
        own.hub.lfi_edge,
        own.hub.message_signing,
    ):
        directory.add_key(organisation, issued)
    issuer = places.https(tenant.tpp)
    directory.add_server(
        organisation,
        server_id=SeededDice(f"api-hub sandbox server {tenant.provider_id}").uuid(),
        name=f"{party.name} ({tenant.provider_id})",
        issuer=issuer,
        discovery=f"{issuer}/.well-known/openid-configuration",
        resources=[_resource(family, issuer) for family in FAMILIES],
    )


def _resource(family: str, base: str) -> ApiResource:
    metadata: dict[str, Any] = {"AccountSubType": ["CurrentAccount", "Savings", "CreditCard"]}
    if family == "payment":
        metadata = {kind: {"Supported": True} for kind in PAYMENT_KINDS}
    return ApiResource(
        id=SeededDice(f"api-hub sandbox resource {base} {family}").uuid(),
        family=family,
        version=VERSION,
        endpoints=(f"{base}/open-finance/{family}/v{VERSION}",),
        metadata=metadata,
    )


def _enrol_tpp(directory: Directory, tpp: TppKeys, uris: list[str], webhook: str) -> None:
    party = tpp.party
    directory.add_organisation(
        organisation_id=party.organisation_id, name=party.name, roles=party.roles
    )
    directory.add_application(
        organisation_id=party.organisation_id,
        client_id=party.client_id,
        name=party.name,
        roles=party.roles,
        redirect_uris=uris,
        webhook_uris=(webhook,),
    )
    for issued in (tpp.transport, tpp.signing, tpp.encryption):
        directory.add_key(party.organisation_id, issued, client_id=party.client_id)


def _application(
    directory: Directory, organisation: str, client_id: str, name: str, roles: tuple[str, ...]
) -> None:
    directory.add_application(
        organisation_id=organisation,
        client_id=client_id,
        name=name,
        roles=roles,
        redirect_uris=("https://localhost/unused",),
    )


def _enrol_stranger(directory: Directory, options: SandboxOptions, places: Places) -> None:
    """Enrol a TPP whose certificate and key set were made elsewhere."""
    organisation, client, title, jwks = stranger(options)
    directory.add_organisation(organisation_id=organisation, name=title, roles=TPP_ROLES)
    directory.add_application(
        organisation_id=organisation,
        client_id=client,
        name=title[:40],
        roles=TPP_ROLES,
        redirect_uris=options.tpp_redirect_uris or (f"{places.https(30)}/callback",),
        jwks=jwks,
    )


def stranger(options: SandboxOptions) -> tuple[str, str, str, dict[str, Any]]:
    """Return organisation id, client id, name and key set of the options' TPP.

    Raises:
        StartError: The certificate or the key set is not what the framework and the Hub would take.
    """
    path = options.tpp_cert
    if path is None or options.tpp_jwks is None:
        raise StartError("--tpp-cert and --tpp-jwks belong together; give both")
    try:
        subject = x509.load_pem_x509_certificates(path.read_bytes())[0].subject
        document = options.tpp_jwks.read_bytes()
        jwks = msgspec.json.decode(document, type=dict[str, Any])
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise StartError(f"--tpp-cert, --tpp-jwks: cannot be read: {error}") from None
    found = [
        str(attributes[0].value) if (attributes := subject.get_attributes_for_oid(oid)) else ""
        for oid in (
            NameOID.ORGANIZATIONAL_UNIT_NAME,
            NameOID.COMMON_NAME,
            NameOID.ORGANIZATION_NAME,
        )
    ]
    organisation, client, title = found
    if not is_id(organisation) or not is_id(client) or not title:
        raise StartError(
            f"{path}: expected a subject with O, OU (organisation id) and CN (client id), both ids UUIDs"
        )
    _check_key_set(options.tpp_jwks, document, jwks)
    return organisation, client, title, jwks


def _check_key_set(path: Path, document: bytes, jwks: dict[str, Any]) -> None:
    """See that a key set can be published: keys that the Hub can use, none of them private."""
    keys = load_key_set(document)
    if isinstance(keys, JoseFault):
        raise StartError(f"{path}: {keys.why}")
    if any(isinstance(row, dict) and row.keys() & {"d", "k"} for row in jwks["keys"]):
        raise StartError(
            f"{path}: expected public keys only; a private one was given, and is not published"
        )
    if not any(key.use == "sig" for key in keys):
        raise StartError(f'{path}: expected a signing key with kid and "use": "sig"')
