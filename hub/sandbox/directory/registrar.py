"""What an operator may do to the sandbox's Trust Framework: add, revoke, suspend, withdraw; and sign its statements."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.model.clock import Clock, Dice
from hub.sandbox.directory.documents import Bases, assertion_claims, facts_of
from hub.sandbox.directory.register import (
    ACTIVE,
    REVOKED,
    SUSPENDED,
    WITHDRAWN,
    ApiResource,
    Application,
    Key,
    Organisation,
    Register,
    Server,
    keep_register,
    load_register,
)
from hub.sandbox.pki import Issued, Pki

DIRECTORY_ID: Final = "7d1e6a52-0c6e-4b7e-9f0a-2f3d9d1b6c10"
"""The organisation under which the directory itself signs."""
_DIRECTORY_NAME: Final = "API Hub Sandbox Trust Framework"


class Registrar:
    """Hold the register, change it, and sign statements.

    All methods are synchronous and do a little file work; they are for a sandbox.
    """

    def __init__(
        self, folder: Path, register: Register, *, pki: Pki, clock: Clock, dice: Dice, bases: Bases
    ) -> None:
        """Use ``open``."""
        self.folder = folder
        self._path = folder / "directory.json"
        self._register = register
        self.pki = pki
        self.clock = clock
        self.dice = dice
        self.bases = bases
        signing = pki.issue(
            "Sig2",
            organisation_id=DIRECTORY_ID,
            organisation_name=_DIRECTORY_NAME,
            folder=folder,
            name="directory-signing",
        )
        self.signing = _published(signing, clock.now())
        self._signer = RSAKey.import_key(signing.key_path.read_text())
        self.changed: Callable[[], None] = _nothing

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        pki: Pki,
        clock: Clock,
        dice: Dice,
        public_base: str,
        api_base: str,
        pki_base: str,
    ) -> Self:
        """Open the directory of a folder, or make an empty one there.

        Args:
            folder: Made with mode 0700 when absent; holds ``directory.json`` and the directory's signing key.
            pki: Whose certificates are published and revoked here.
            clock: The sandbox's.
            dice: For ids and tokens.
            public_base: Address of participants and key store, https.
            api_base: Address of the API and its ``/token``, https with client certificates.
            pki_base: Address of CRL and OCSP, plain http.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bases = Bases(
            public=public_base.rstrip("/"), api=api_base.rstrip("/"), pki=pki_base.rstrip("/")
        )
        register = load_register(folder / "directory.json")
        return cls(folder, register, pki=pki, clock=clock, dice=dice, bases=bases)

    @property
    def register(self) -> Register:
        """Return everything, as it is now."""
        return self._register

    def install(self, register: Register) -> None:
        """Put a whole register in the place of this one, unwritten; for worlds too large to be made step by step."""
        self._register = register

    def add_organisation(
        self, *, organisation_id: str, name: str, size: str = "TPP", roles: Sequence[str] = ()
    ) -> Organisation:
        """Add an organisation, or update name, size and roles of the one that has this id.

        Args:
            organisation_id: A version 4 UUID.
            name: Its legal name, as in the subject of its certificates.
            size: ``LFI``, ``TPP`` or ``TSP``.
            roles: ``BDSP``, ``BSIP``, ``ISP``, ``LFI``.
        """
        known = self._register.organisations.get(organisation_id)
        organisation = msgspec.structs.replace(
            known or Organisation(id=organisation_id, name=name, created=self.clock.now()),
            name=name,
            size=size,
            roles=tuple(roles),
        )
        self._keep(self._register.with_organisation(organisation))
        return organisation

    def add_application(
        self,
        *,
        organisation_id: str,
        client_id: str,
        name: str,
        roles: Sequence[str],
        redirect_uris: Sequence[str],
        webhook_uris: Sequence[str] = (),
        software_statement_id: str = "",
        client_uri: str = "",
        logo_uri: str = "",
        dpop_bound: bool = False,
        jwks: Mapping[str, Any] | None = None,
    ) -> Application:
        """Add an application, or update the one that has this client id; its status and keys stay.

        Args:
            organisation_id: Of a known organisation.
            client_id: A version 4 UUID.
            name: At most 40 characters.
            roles: A subset of the organisation's counts.
            redirect_uris: https.
            webhook_uris: https.
            software_statement_id: Equal to ``client_id`` by default.
            client_uri: Its home page.
            logo_uri: Its picture.
            dpop_bound: Registered for DPoP-bound tokens.
            jwks: Keys made elsewhere, published as they are.

        Raises:
            KeyError: The organisation is not known.
        """
        organisation = self._register.organisation(organisation_id)
        known = organisation.applications.get(client_id)
        application = msgspec.structs.replace(
            known
            or Application(
                client_id=client_id,
                software_statement_id=software_statement_id or client_id,
                organisation_id=organisation_id,
                name=name,
                created=self.clock.now(),
            ),
            name=name,
            roles=tuple(roles),
            redirect_uris=tuple(redirect_uris),
            webhook_uris=tuple(webhook_uris),
            client_uri=client_uri,
            logo_uri=logo_uri,
            dpop_bound=dpop_bound,
        )
        register = self._register.with_application(application)
        for jwk in (jwks or {}).get("keys", ()):
            key = _foreign(jwk, self.clock.now())
            register = register.with_key(organisation_id, client_id, key)
        self._keep(register)
        return register.application(client_id)

    def add_key(self, organisation_id: str, issued: Issued, *, client_id: str = "") -> Key:
        """Publish an issued certificate (or bare key) for an application, or for an organisation itself."""
        key = _published(issued, self.clock.now())
        try:
            _, _, known = self._register.key(key.kid)
        except KeyError:
            self._keep(self._register.with_key(organisation_id, client_id, key))
            return key
        return known

    def publish(self, organisation_id: str, client_id: str, key: Key) -> None:
        """Publish a key of an application, or of an organisation itself."""
        self._keep(self._register.with_key(organisation_id, client_id, key))

    def exchange(self, organisation_id: str, client_id: str, kid: str, key: Key) -> None:
        """Publish a key in the place of another one, which leaves the key set without being revoked."""
        register = self._register.with_key(organisation_id, client_id, key)
        self._keep(register.without_key(organisation_id, client_id, kid))

    def add_server(
        self,
        organisation_id: str,
        *,
        server_id: str,
        name: str,
        issuer: str,
        discovery: str,
        resources: Sequence[ApiResource] = (),
        flags: Mapping[str, list[str]] | None = None,
    ) -> Server:
        """Add an authorisation server to a bank, or put it in the place of its former self."""
        organisation = self._register.organisation(organisation_id)
        server = Server(
            id=server_id,
            name=name,
            issuer=issuer,
            discovery=discovery,
            resources=tuple(resources),
            flags=dict(flags or {}),
            created=self.clock.now(),
        )
        servers = {**organisation.servers, server_id: server}
        self._keep(
            self._register.with_organisation(msgspec.structs.replace(organisation, servers=servers))
        )
        return server

    def revoke(self, kid: str, reason: str = "keyCompromise") -> Key:
        """Revoke a key: out of the key set in force, into the revoked one, and its certificate into CRL and OCSP.

        Raises:
            KeyError: No such key.
        """
        organisation, application, key = self._register.key(kid)
        revoked = msgspec.structs.replace(
            key, status=REVOKED, revoked=self.clock.now(), reason=reason
        )
        if key.pem and facts_of(key.pem).serial:
            self.pki.revoke(facts_of(key.pem).serial, reason)
        client_id = application.client_id if application else ""
        self._keep(self._register.with_key(organisation.id, client_id, revoked))
        return revoked

    def restore(self, kid: str) -> Key:
        """Take a revocation back: for what was done in error.

        Raises:
            KeyError: No such key.
        """
        organisation, application, key = self._register.key(kid)
        restored = msgspec.structs.replace(key, status=ACTIVE, revoked=0, reason="")
        if key.pem:
            self.pki.restore(facts_of(key.pem).serial)
        client_id = application.client_id if application else ""
        self._keep(self._register.with_key(organisation.id, client_id, restored))
        return restored

    def suspend(self, client_id: str, status: str = SUSPENDED) -> Application:
        """Suspend an application (or give it another status: ``Inactive``)."""
        changed = msgspec.structs.replace(self._register.application(client_id), status=status)
        self._keep(self._register.with_application(changed))
        return changed

    def resume(self, client_id: str) -> Application:
        """Make a suspended application active again."""
        return self.suspend(client_id, ACTIVE)

    def withdraw(self, organisation_id: str, status: str = WITHDRAWN) -> Organisation:
        """Withdraw an organisation (or give it another status: ``Inactive``)."""
        organisation = self._register.organisation(organisation_id)
        changed = msgspec.structs.replace(organisation, status=status)
        self._keep(self._register.with_organisation(changed))
        return changed

    def reinstate(self, organisation_id: str) -> Organisation:
        """Make a withdrawn organisation active again."""
        return self.withdraw(organisation_id, ACTIVE)

    def drop_role(self, organisation_id: str, role: str) -> Organisation:
        """Take a role from an organisation, and so from its applications."""
        organisation = self._register.organisation(organisation_id)
        roles = tuple(held for held in organisation.roles if held != role)
        changed = msgspec.structs.replace(organisation, roles=roles)
        self._keep(self._register.with_organisation(changed))
        return changed

    def give_role(self, organisation_id: str, role: str) -> Organisation:
        """Give a role to an organisation."""
        organisation = self._register.organisation(organisation_id)
        roles = tuple(dict.fromkeys((*organisation.roles, role)))
        changed = msgspec.structs.replace(organisation, roles=roles)
        self._keep(self._register.with_organisation(changed))
        return changed

    def assertion(self, organisation: Organisation, application: Application) -> str:
        """Sign a software statement assertion with the directory's key, PS256."""
        claims = assertion_claims(
            organisation, application, self.bases, now=self.clock.now(), jti=self.dice.uuid()
        )
        header = {"alg": "PS256", "typ": "JWT", "kid": self.signing.kid}
        return jwt.encode(header, claims, self._signer, algorithms=["PS256"])

    def _keep(self, register: Register) -> None:
        if register == self._register:
            return
        keep_register(register, self._path)
        self._register = register
        self.changed()


def _nothing() -> None:
    """Do nothing when the register changes; a site puts its own in the place."""


def _published(issued: Issued, now: int) -> Key:
    pem = issued.cert_path.read_text()
    leaf = pem[: pem.index("-----END CERTIFICATE-----") + 26] if "CERTIFICATE" in pem else pem
    return Key(kid=issued.kid, key_type=issued.key_type, pem=leaf, created=now)


def _foreign(jwk: Mapping[str, Any], now: int) -> Key:
    """Take over a public JWK that was made elsewhere; private members are left behind."""
    public = {name: value for name, value in jwk.items() if name not in _PRIVATE}
    use = public.get("use", "sig")
    key_type = "OPF UAE CLIENT ENCRYPTION" if use == "enc" else "OPF UAE CLIENT SIGNING"
    return Key(kid=str(public.get("kid", "")), key_type=key_type, jwk=public, created=now)


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
