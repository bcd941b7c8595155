"""Who takes part in a sandbox, under ids that are the same on every machine, and the keys that each one holds.

The bank holds S4, C3, Sig4 and Enc1; the Hub's operator C4 and Sig3, and of the bank's organisation S1, S3 and Sig2;
each TPP C1, Sig1 and Enc2 (hub-behaviour 2.1). Server certificates of the directory and of the TPPs' redirect URIs
have no name in that map and are issued as server transport certificates too.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from hub.model.clock import SeededDice
from hub.sandbox.pki import Issued, Kind, Pki
from hub.sandbox.places import Places

BANK_CLIENT_NAME: Final = "C3-hh-cm-client"
TPP_ROLES: Final = ("BDSP", "BSIP", "IDSP")


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one organisation with its one application."""

    slug: str
    name: str
    organisation_id: str
    client_id: str
    roles: tuple[str, ...]


def party(slug: str, name: str, roles: tuple[str, ...]) -> Party:
    """Return a party whose UUIDs follow from its slug."""
    dice = SeededDice(f"api-hub sandbox party {slug}")
    return Party(
        slug=slug, name=name, organisation_id=dice.uuid(), client_id=dice.uuid(), roles=roles
    )


BANK: Final = party("bank", "Model Bank PJSC", ("LFI",))
OPERATOR: Final = party("operator", "API Hub Operator LLC", ())
BANK_BESIDE: Final = party("bank-general", "Model Mutual PJSC", ("LFI",))
OPERATOR_BESIDE: Final = party("operator-general", "Second Hub Operator LLC", ())
"""Of a second tenant: another bank, another operator, and not one key in common with the first."""
DIRECTORY: Final = party("directory", "Sandbox Trust Framework", ())
TPPS: Final = (
    party("tpp1", "Sample Budget FZ-LLC", TPP_ROLES),
    party("tpp2", "Sample Ledger FZ-LLC", TPP_ROLES),
)


class BankKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the bank has the private keys of, and the two server certificates of its pages."""

    transport_server: Issued
    transport_client: Issued
    signing: Issued
    encryption: Issued


class HubKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the Hub has the private keys of."""

    tpp_edge: Issued
    lfi_edge: Issued
    upstream: Issued
    message_signing: Issued
    bearer_signing: Issued


class TppKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one TPP has the private keys of."""

    party: Party
    transport: Issued
    signing: Issued
    encryption: Issued
    page: Issued


class TenantKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the keys of one tenant: its bank's and its Hub's."""

    bank: BankKeys
    hub: HubKeys


class Keyring(msgspec.Struct, frozen=True, kw_only=True):
    """Hold every key of the world; those of tenants by the slug of their bank."""

    tenants: dict[str, TenantKeys]
    tpps: tuple[TppKeys, ...]
    directory: Issued


def issue_keys(
    pki: Pki, places: Places, owners: Sequence[tuple[Party, Party]] = ((BANK, OPERATOR),)
) -> Keyring:
    """Return everybody's keys: those of earlier runs, and new ones where there are none.

    A new RSA key takes some 50 ms; run it in a thread.

    Args:
        pki: Issues certificates.
        places: Where keys are written.
        owners: Bank and operator of each tenant.
    """

    def issue(owner: Party, kind: Kind, name: str, holder: str = "", client_id: str = "") -> Issued:
        return pki.issue(
            kind,
            organisation_id=owner.organisation_id,
            organisation_name=owner.name,
            client_id=client_id,
            folder=places.keys / (holder or owner.slug),
            name=name,
        )

    def application(owner: Party, kind: Kind, name: str, holder: str = "") -> Issued:
        return issue(owner, kind, name, holder, owner.client_id)

    def tenant(bank: Party, operator: Party) -> TenantKeys:
        hub = bank.slug.replace("bank", "hub")
        return TenantKeys(
            bank=BankKeys(
                transport_server=issue(bank, Kind.S4, "s4"),
                transport_client=application(bank, Kind.C3, "c3"),
                signing=application(bank, Kind.SIG4, "sig4"),
                encryption=issue(bank, Kind.ENC1, "enc1"),
            ),
            hub=HubKeys(
                tpp_edge=issue(bank, Kind.S1, "s1", hub),
                lfi_edge=issue(bank, Kind.S3, "s3", hub),
                upstream=application(operator, Kind.C4, "c4", hub),
                message_signing=issue(bank, Kind.SIG2, "sig2", hub),
                bearer_signing=application(operator, Kind.SIG3, "sig3", hub),
            ),
        )

    return Keyring(
        tenants={bank.slug: tenant(bank, operator) for bank, operator in owners},
        tpps=tuple(
            TppKeys(
                party=tpp,
                transport=application(tpp, Kind.C1, "c1"),
                signing=application(tpp, Kind.SIG1, "sig1"),
                encryption=application(tpp, Kind.ENC2, "enc2"),
                page=issue(tpp, Kind.S1, "page"),
            )
            for tpp in TPPS
        ),
        directory=issue(DIRECTORY, Kind.S1, "server"),
    )
