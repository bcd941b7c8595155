"""One tenant of the world: which profile, under which code, on which ports, in which files."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from hub.audit.log import CHECKPOINT
from hub.audit.open import AUDIT, LOG
from hub.node.errors import StartError
from hub.sandbox.manifest import SandboxOptions
from hub.sandbox.parties import (
    BANK,
    BANK_BESIDE,
    OPERATOR,
    OPERATOR_BESIDE,
    Keyring,
    Party,
    TenantKeys,
)
from hub.sandbox.places import Places


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a tenant's names and port offsets: the Hub's three faces, the bank's two sites."""

    profile: Literal["uae", "general"]
    provider_id: str
    suffix: str
    tpp: int
    lfi: int
    ops: int
    connect: int
    pages: int
    bank: Party
    operator: Party

    def keys(self, keyring: Keyring) -> TenantKeys:
        """Return its bank's and its Hub's keys."""
        return keyring.tenants[self.bank.slug]

    def log_key(self, places: Places) -> Path:
        """Return the file of its audit log's private key."""
        return places.keys / f"hub{self.suffix}" / "log.key"

    def hub_toml(self, places: Places) -> Path:
        """Return its Hub's configuration file."""
        return places.folder / f"hub{self.suffix}.toml"

    def hub_log(self, places: Places) -> Path:
        """Return where its Hub's output goes."""
        return places.folder / f"hub{self.suffix}.log"

    def bank_folder(self, places: Places) -> Path:
        """Return where its bank keeps its book."""
        return places.folder / f"bank{self.suffix}"


UAE: Final = Tenant(
    profile="uae",
    provider_id="modelbank",
    suffix="",
    tpp=0,
    lfi=1,
    ops=2,
    connect=20,
    pages=21,
    bank=BANK,
    operator=OPERATOR,
)
GENERAL: Final = msgspec.structs.replace(UAE, profile="general")
BESIDE: Final = Tenant(
    profile="general",
    provider_id="modelgeneral",
    suffix="-general",
    tpp=40,
    lfi=41,
    ops=42,
    connect=44,
    pages=45,
    bank=BANK_BESIDE,
    operator=OPERATOR_BESIDE,
)
_CHOICE: Final = {"uae": (UAE,), "general": (GENERAL,), "both": (UAE, BESIDE)}


def tenants_of(options: SandboxOptions) -> tuple[Tenant, ...]:
    """Return the tenants that the options ask for; the first is the manifest's main one."""
    return _CHOICE[options.profile]


def check_base(places: Places, options: SandboxOptions) -> None:
    """See that a folder that has run before gets the ports it was made for: its certificates, consents and log name them.

    Raises:
        StartError: It was made for others; the line names them.
    """
    for tenant in tenants_of(options):
        file = places.folder / f"state{tenant.suffix}" / AUDIT / LOG / CHECKPOINT
        try:
            origin = file.read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError):
            continue
        port = origin.removesuffix("/log").rpartition(":")[2]
        if port.isdecimal() and int(port) != places.port(tenant.tpp):
            raise StartError(
                f"{places.folder}: was made for other ports; start it with --port-base "
                f"{int(port) - tenant.tpp}, or choose another folder with --dir"
            )
