"""What the sandbox's Trust Framework knows: organisations, applications, keys, servers; one JSON file, whole or not at all.

Theory. ``Register`` is a frozen value; each change makes a new one and the file is replaced by it in one step, so a
reader never sees half a change and a crash leaves the last whole state. Ids are UUIDs that the caller gives. Adding
what is there already updates what was given and keeps its status, so that a world can be described again at each
start without undoing a suspension.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

ACTIVE: Final = "Active"
INACTIVE: Final = "Inactive"
SUSPENDED: Final = "Suspended"
WITHDRAWN: Final = "Withdrawn"
REVOKED: Final = "Revoked"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one published key.

    Attributes:
        kid: ``x5t#S256`` of the certificate; thumbprint of a bare key.
        key_type: Label of the certificate type.
        pem: The certificate, or the public key of a bare one.
        jwk: A key that came as JWK from outside, published as it is; then ``pem`` is empty.
        status: ``Active`` or ``Revoked``.
        created: Seconds.
        revoked: Seconds; 0 for not.
        reason: Of the revocation.
    """

    kid: str
    key_type: str
    pem: str = ""
    jwk: dict[str, Any] = {}
    status: str = ACTIVE
    created: int = 0
    revoked: int = 0
    reason: str = ""


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one application: client and software statement (trust-framework.md 5)."""

    client_id: str
    software_statement_id: str
    organisation_id: str
    name: str
    roles: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    webhook_uris: tuple[str, ...] = ()
    description: str = ""
    client_uri: str = ""
    logo_uri: str = ""
    policy_uri: str = ""
    terms_uri: str = ""
    dpop_bound: bool = False
    status: str = ACTIVE
    keys: tuple[Key, ...] = ()
    created: int = 0


class ApiResource(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one API family that a server offers, with its endpoints."""

    id: str
    family: str
    version: str
    endpoints: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    status: str = ACTIVE


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one authorisation server of a bank."""

    id: str
    name: str
    issuer: str
    discovery: str
    status: str = ACTIVE
    logo_uri: str = ""
    flags: dict[str, list[str]] = {}
    resources: tuple[ApiResource, ...] = ()
    created: int = 0


class Organisation(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one organisation; ``size`` is ``LFI``, ``TPP`` or ``TSP``."""

    id: str
    name: str
    size: str = "TPP"
    roles: tuple[str, ...] = ()
    status: str = ACTIVE
    keys: tuple[Key, ...] = ()
    applications: dict[str, Application] = {}
    servers: dict[str, Server] = {}
    created: int = 0


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """Hold everything; ``version`` is of the file's layout."""

    version: int = 1
    organisations: dict[str, Organisation] = {}

    def organisation(self, organisation_id: str) -> Organisation:
        """Return an organisation.

        Raises:
            KeyError: There is none with that id.
        """
        if organisation_id not in self.organisations:
            raise KeyError(f"no organisation {organisation_id}")
        return self.organisations[organisation_id]

    def application(self, client_id: str) -> Application:
        """Return an application by its client id.

        Raises:
            KeyError: There is none with that id.
        """
        for organisation in self.organisations.values():
            if client_id in organisation.applications:
                return organisation.applications[client_id]
        raise KeyError(f"no application {client_id}")

    def key(self, kid: str) -> tuple[Organisation, Application | None, Key]:
        """Return a key with its organisation and, where it is one's, its application.

        Raises:
            KeyError: There is none with that id.
        """
        for organisation in self.organisations.values():
            for key in organisation.keys:
                if key.kid == kid:
                    return organisation, None, key
            for application in organisation.applications.values():
                for key in application.keys:
                    if key.kid == kid:
                        return organisation, application, key
        raise KeyError(f"no key {kid}")

    def with_organisation(self, organisation: Organisation) -> "Register":
        """Return a register that holds this organisation in the place of its former self."""
        held = {**self.organisations, organisation.id: organisation}
        return msgspec.structs.replace(self, organisations=held)

    def with_application(self, application: Application) -> "Register":
        """Return a register that holds this application in the place of its former self."""
        organisation = self.organisation(application.organisation_id)
        held = {**organisation.applications, application.client_id: application}
        return self.with_organisation(msgspec.structs.replace(organisation, applications=held))

    def with_key(self, organisation_id: str, client_id: str, key: Key) -> "Register":
        """Return a register in which this key belongs to an application, or to an organisation itself."""
        if client_id:
            application = self.application(client_id)
            keys = _replaced(application.keys, key)
            return self.with_application(msgspec.structs.replace(application, keys=keys))
        organisation = self.organisation(organisation_id)
        keys = _replaced(organisation.keys, key)
        return self.with_organisation(msgspec.structs.replace(organisation, keys=keys))

    def without_key(self, organisation_id: str, client_id: str, kid: str) -> "Register":
        """Return a register in which an application, or an organisation itself, does not hold this key any more."""
        if client_id:
            application = self.application(client_id)
            kept = tuple(key for key in application.keys if key.kid != kid)
            return self.with_application(msgspec.structs.replace(application, keys=kept))
        organisation = self.organisation(organisation_id)
        kept = tuple(key for key in organisation.keys if key.kid != kid)
        return self.with_organisation(msgspec.structs.replace(organisation, keys=kept))


def _replaced(keys: tuple[Key, ...], key: Key) -> tuple[Key, ...]:
    return (*(held for held in keys if held.kid != key.kid), key)


def load_register(path: Path) -> Register:
    """Read the file; an absent one is an empty register.

    Raises:
        msgspec.ValidationError: It is not of this layout.
    """
    if not path.exists():
        return Register()
    return msgspec.json.decode(path.read_bytes(), type=Register)


def keep_register(register: Register, path: Path) -> None:
    """Write the file whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(register), indent=1) + b"\n")
    part.chmod(0o600)
    part.replace(path)
