"""The Hub's configuration in the sandbox: the same kind of file that ``hub serve`` reads, with sandbox switches."""

from pathlib import Path
from typing import Any, Final

import msgspec

from hub.sandbox.manifest import SandboxOptions
from hub.sandbox.parties import Keyring
from hub.sandbox.pki import Issued
from hub.sandbox.places import LOOPBACK, Places
from hub.sandbox.tenant import Tenant
from hub.sandbox.witness import key_file, witness_key

OWN_CODE: Final = "990"
"""The model bank's code in IBANs."""
GONE: Final = {"991": "6f000000-0000-4000-8000-000000000991"}
"""Code and organisation of a bank that has left the framework."""
AUTHORIZATION_PATH: Final = "/open-finance"
SHOWN: Final = ("jarm", "signed_introspection")
HEAD: Final = "# The Hub of this sandbox; written anew at each start of it. Never use it or its keys for anything else.\n"


class BankAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Say which bank the Hub talks to: the model bank, or the one of the options."""

    base_url: str
    authorization_endpoint: str
    ca: Path


def bank_address(options: SandboxOptions, places: Places, tenant: Tenant, ca: Path) -> BankAddress:
    """Return the bank of the options, else the model bank."""
    if options.bank_url:
        return BankAddress(
            base_url=options.bank_url.rstrip("/"),
            authorization_endpoint=options.bank_authorization_endpoint,
            ca=(options.bank_ca or ca).absolute(),
        )
    return BankAddress(
        base_url=places.https(tenant.connect),
        authorization_endpoint=places.https(tenant.pages) + AUTHORIZATION_PATH,
        ca=ca,
    )


def client_bundle(options: SandboxOptions, places: Places, ca: Path) -> Path:
    """Return who may vouch for TPPs: the sandbox's CA, and whoever vouches for the TPP of the options.

    The options' file is taken as it is: a self-signed certificate, or a chain up to its root.
    """
    if options.tpp_cert is None:
        return ca
    path = places.keys / "tpp-ca.pem"
    path.write_bytes(ca.read_bytes() + options.tpp_cert.read_bytes())
    return path


def configuration(
    options: SandboxOptions,
    places: Places,
    tenant: Tenant,
    keys: Keyring,
    *,
    ca: Path,
    bank: BankAddress,
) -> dict[str, Any]:
    """Return the Hub's settings by section; paths relative to the folder."""
    hub = tenant.keys(keys).hub
    bundle = places.relative(ca)

    def pair(issued: Issued) -> dict[str, str]:
        return {
            "certificate": places.relative(issued.cert_path),
            "key": places.relative(issued.key_path),
        }

    tls = {"bind": LOOPBACK, "client_ca": bundle}
    tpp_ca = places.relative(client_bundle(options, places, ca))
    return {
        "workers": options.workers,
        "tenant": {
            "provider_id": tenant.provider_id,
            "organisation_id": tenant.bank.organisation_id,
            "organisation_name": tenant.bank.name,
            "issuer": places.https(tenant.tpp),
            "resource_base": places.https(tenant.tpp),
            "environment": "sandbox",
            "profile": tenant.profile,
            "bank_codes": {OWN_CODE: tenant.bank.organisation_id, **GONE},
        },
        "tpp": {**tls, **pair(hub.tpp_edge), "port": places.port(tenant.tpp), "client_ca": tpp_ca},
        "lfi": {
            **tls,
            **pair(hub.lfi_edge),
            "port": places.port(tenant.lfi),
            "base": places.https(tenant.lfi),
            "organisation_id": tenant.bank.organisation_id,
            "client_ids": [tenant.bank.client_id],
        },
        "ops": {"bind": LOOPBACK, "port": places.port(tenant.ops)},
        "keys": {
            "signing": [places.relative(hub.message_signing.key_path)],
            "bearer": places.relative(hub.bearer_signing.key_path),
            "log": places.relative(key_file(tenant.log_key(places))),
        },
        "bank": {
            **pair(hub.upstream),
            "base_url": bank.base_url,
            "authorization_endpoint": bank.authorization_endpoint,
            "ca": str(bank.ca) if options.bank_ca else bundle,
            "auth": "jwt",
            "audience": tenant.provider_id,
            # What the model bank can do; a bank of your own is asked for the least.
            "validate": not options.bank_url,
            "events": not options.bank_url,
            "dedupes_by_key": not options.bank_url,
        },
        "trust": {
            **pair(hub.upstream),
            "participants": f"{places.https(10)}/participants",
            "keystore": places.https(10),
            "api": places.https(11),
            "token_endpoint": f"{places.https(11)}/token",
            "client_id": tenant.operator.client_id,
            "ca": bundle,
            "crl": f"{places.http(12)}/issuer.crl",
            "ocsp": f"{places.http(12)}/ocsp",
            "auto_activate": True,
        },
        # The general profile shows what the UAE's leaves out; more by HUB__SWITCHES__... in the environment.
        "switches": {**dict.fromkeys(SHOWN, tenant.profile == "general"), "publish_log": True},
        "log": {
            "witnesses": [f"{places.https(13)} {witness_key(places).verifier.vkey()}"],
            "ca": bundle,
        },
        "state": {"folder": f"state{tenant.suffix}"},
    }


def write_configuration(settings: dict[str, Any], path: Path) -> None:
    """Write the settings as TOML, readable by the owner only."""
    lines = [HEAD]
    lines += [f"{name} = {_toml(v)}\n" for name, v in settings.items() if not isinstance(v, dict)]
    for section, table in settings.items():
        if isinstance(table, dict):
            lines.append(f"\n[{section}]\n")
            lines += [f"{name} = {_toml(value)}\n" for name, value in table.items()]
    part = path.with_suffix(".part")
    part.write_text("".join(lines))
    part.chmod(0o600)
    part.replace(path)


def _toml(value: Any) -> str:
    """Return a string, number, boolean or list of these in TOML, which for them is JSON; or a table of them."""
    if isinstance(value, dict):
        rows = [f"{_toml(name)} = {_toml(inner)}" for name, inner in value.items()]
        return "{ " + ", ".join(rows) + " }"
    return msgspec.json.encode(value).decode()
