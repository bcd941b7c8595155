"""What can be done to a running Trust Framework, as one table: for the command line, the control socket and the page.

Each act has a name, the members it takes (all of them text, so that a form can carry them), and says in its answer what came of
it. New keys are written below the directory's folder, readable by their owner only.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.sandbox.directory.directory import Directory
from hub.sandbox.directory.documents import facts_of, iso
from hub.sandbox.directory.register import Key, Organisation
from hub.sandbox.pki import KEY_TYPES, Kind, x5t_s256
from hub.sandbox.pki_profile import pem_of
from hub.sandbox.site import FaultPlan, Faults

ROLES: Final = ("BDSP", "BSIP", "ISP", "IDSP", "LFI")
KINDS: Final = {"transport": Kind.C1, "signing": Kind.SIG1, "encryption": Kind.ENC2}
SIZES: Final = ("TPP", "LFI", "TSP")
SLOW_S: Final = 5.0
_LONGEST_S: Final = 397 * 86_400
_PAST_S: Final = 300
_NAME: Final = 80
_TEXT: Final = 2000


class ActError(Exception):
    """Say in one line what was refused."""


class Act(msgspec.Struct, frozen=True):
    """Hold one act: what it needs, what it may have, what it does, and its title on the page."""

    title: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    do: Callable[[Mapping[str, str]], Mapping[str, Any]]


@final
class Acts:
    """Carry acts out."""

    def __init__(self, directory: Directory, sites: Mapping[str, Faults]) -> None:
        """Take the directory, and the knobs of its sites by name."""
        self.directory = directory
        self._sites = dict(sites)
        self.table: Mapping[str, Act] = self._table()

    def carry(self, name: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry one act out and return what came of it.

        Raises:
            ActError: No such act, a member is missing or wrong, or the directory does not know what it names.
        """
        act = self.table.get(name)
        if act is None:
            raise ActError(f"act: expected one of {', '.join(sorted(self.table))}")
        given = {key: _text(members, key, needed=True) for key in act.needs}
        given |= {key: value for key in act.may if (value := _text(members, key))}
        try:
            return act.do(given)
        except KeyError as error:
            raise ActError(f"the directory has {error.args[0]}") from None

    def _table(self) -> dict[str, Act]:
        return {
            "new_organisation": Act(
                "New organisation", ("name",), ("roles", "size"), self._organisation
            ),
            "new_application": Act(
                "New application",
                ("organisation_id", "name"),
                ("redirect_uri", "webhook_uri", "roles"),
                self._application,
            ),
            "new_key": Act("New key", ("client_id", "kind"), ("seconds",), self._key),
            "expire": Act("Let a certificate expire", ("kid", "seconds"), (), self._expire),
            "list": Act("List everybody", (), (), self._list),
            **self._simple(),
            **self._site_acts(),
        }

    def _simple(self) -> dict[str, Act]:
        """Return the acts that one method of the directory carries out, with its arguments in order."""

        def act(title: str, method: Callable[..., object], *needs: str) -> Act:
            def do(given: Mapping[str, str]) -> Mapping[str, Any]:
                if "role" in given and given["role"] not in ROLES:
                    raise ActError(f"role: expected one of {', '.join(ROLES)}")
                method(*(given[name] for name in needs))
                return {}

            return Act(title, needs, (), do)

        d = self.directory
        return {
            "revoke": act("Revoke a key", d.revoke, "kid"),
            "restore": act("Take a revocation back", d.restore, "kid"),
            "suspend": act("Suspend an application", d.suspend, "client_id"),
            "resume": act("Resume an application", d.resume, "client_id"),
            "withdraw": act("Withdraw an organisation", d.withdraw, "organisation_id"),
            "reinstate": act("Reinstate an organisation", d.reinstate, "organisation_id"),
            "drop_role": act("Take a role away", d.drop_role, "organisation_id", "role"),
            "give_role": act("Give a role", d.give_role, "organisation_id", "role"),
        }

    def _site_acts(self) -> dict[str, Act]:
        """Return the acts on the directory's sites: down, slow, wrong, and up again; all sites where none is named."""

        def act(title: str, plan: FaultPlan | None) -> Act:
            def do(given: Mapping[str, str]) -> Mapping[str, Any]:
                named = given.get("site")
                if named is not None and named not in self._sites:
                    raise ActError(f"site: expected one of {', '.join(sorted(self._sites))}")
                chosen = [named] if named else sorted(self._sites)
                for name in chosen:
                    if plan is None:
                        self._sites[name].clear()
                    else:
                        self._sites[name].set(plan)
                return {"sites": chosen}

            return Act(title, (), ("site",), do)

        return {
            "down": act("Go down", FaultPlan(close=True)),
            "slow": act(f"Answer after {SLOW_S:.0f} seconds", FaultPlan(latency_s=SLOW_S)),
            "wrong": act("Answer nonsense", FaultPlan(wrong_shape=True)),
            "up": act("Answer as it should", None),
        }

    def _organisation(self, given: Mapping[str, str]) -> Mapping[str, Any]:
        size = given.get("size", "TPP")
        if size not in SIZES:
            raise ActError(f"size: expected one of {', '.join(SIZES)}")
        default = "BDSP BSIP" if size == "TPP" else "LFI" if size == "LFI" else ""
        organisation = self.directory.add_organisation(
            organisation_id=self.directory.dice.uuid(),
            name=_name(given["name"]),
            size=size,
            roles=_roles(given.get("roles", default)),
        )
        return {"organisation_id": organisation.id}

    def _application(self, given: Mapping[str, str]) -> Mapping[str, Any]:
        organisation = self.directory.register.organisation(given["organisation_id"])
        uris = {
            name: given[name].split() for name in ("redirect_uri", "webhook_uri") if name in given
        }
        if any(not uri.startswith("https://") for held in uris.values() for uri in held):
            raise ActError("redirect_uri, webhook_uri: expected https URLs")
        client_id = self.directory.dice.uuid()
        self.directory.add_application(
            organisation_id=organisation.id,
            client_id=client_id,
            name=_name(given["name"])[:40],
            roles=_roles(given["roles"]) if "roles" in given else organisation.roles,
            redirect_uris=uris.get("redirect_uri", []),
            webhook_uris=uris.get("webhook_uri", []),
        )
        return {"client_id": client_id, "software_statement_id": client_id}

    def _key(self, given: Mapping[str, str]) -> Mapping[str, Any]:
        """Make a key with its certificate, publish it, and say where both are."""
        kind = KINDS.get(given["kind"])
        if kind is None:
            raise ActError(f"kind: expected one of {', '.join(KINDS)}")
        directory = self.directory
        application = directory.register.application(given["client_id"])
        organisation = directory.register.organisation(application.organisation_id)
        issued = directory.pki.issue(
            kind,
            organisation_id=organisation.id,
            organisation_name=organisation.name,
            client_id=application.client_id,
            folder=directory.folder / "issued" / application.client_id,
            name=f"{given['kind']}-{len(application.keys) + 1}",
            not_after=directory.clock.now() + _seconds(given) if "seconds" in given else None,
        )
        directory.add_key(organisation.id, issued, client_id=application.client_id)
        paths = {"certificate": str(issued.cert_path), "key": str(issued.key_path)}
        return {"kid": issued.kid, "ca": str(directory.pki.ca_bundle), **paths}

    def _expire(self, given: Mapping[str, str]) -> Mapping[str, Any]:
        """Put a certificate that ends soon in the place of another: same key, same subject."""
        directory = self.directory
        organisation, application, key = directory.register.key(given["kid"])
        if "CERTIFICATE" not in key.pem:
            raise ActError("kid: this key has no certificate of ours")
        old = x509.load_pem_x509_certificate(key.pem.encode())
        public = old.public_key()
        if not isinstance(public, rsa.RSAPublicKey):
            raise ActError("kid: this key is not an RSA key")
        now = directory.clock.now()
        kind = next(kind for kind, name in KEY_TYPES.items() if name == key.key_type)
        fresh = directory.pki.certify(
            kind,
            public,
            subject=old.subject,
            not_before=now - _PAST_S,
            not_after=now + _seconds(given),
        )
        pem = pem_of(fresh)
        changed = Key(kid=x5t_s256(fresh), key_type=key.key_type, pem=pem.decode(), created=now)
        owner = application.client_id if application else ""
        directory.exchange(organisation.id, owner, key.kid, changed)
        folder = directory.folder / "issued" / (owner or organisation.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{changed.kid}.pem"
        path.write_bytes(pem + pem_of(directory.pki.issuing))
        return {"kid": changed.kid, "certificate": str(path)}

    def _list(self, _given: Mapping[str, str]) -> Mapping[str, Any]:
        return {
            "organisations": [summary(o) for o in self.directory.register.organisations.values()]
        }


def summary(organisation: Organisation) -> dict[str, Any]:
    """Return what is shown of an organisation."""
    return {
        "organisation_id": organisation.id,
        "name": organisation.name,
        "size": organisation.size,
        "status": organisation.status,
        "roles": list(organisation.roles),
        "keys": [_shown(key) for key in organisation.keys],
        "applications": [
            {
                "client_id": application.client_id,
                "name": application.name,
                "status": application.status,
                "roles": list(application.roles),
                "keys": [_shown(key) for key in application.keys],
            }
            for application in organisation.applications.values()
        ],
        "servers": [server.issuer for server in organisation.servers.values()],
    }


def _shown(key: Key) -> dict[str, str]:
    ends = facts_of(key.pem).not_after if "CERTIFICATE" in key.pem else 0
    return {
        "kid": key.kid,
        "type": key.key_type,
        "status": key.status,
        "ends": iso(ends) if ends else "",
    }


def _text(members: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    value = members.get(name, "")
    if not isinstance(value, str) or (needed and not value) or len(value) > _TEXT:
        raise ActError(f"{name}: expected a text of 1 to {_TEXT} characters")
    return value


def _name(text: str) -> str:
    if not text.isprintable() or len(text) > _NAME:
        raise ActError(f"name: expected at most {_NAME} printable characters")
    return text


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if not set(roles) <= set(ROLES):
        raise ActError(f"roles: expected some of {', '.join(ROLES)}")
    return roles


def _seconds(given: Mapping[str, str]) -> int:
    text = given["seconds"]
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= _LONGEST_S:
        raise ActError(f"seconds: expected a number from 1 to {_LONGEST_S}")
    return int(text)
