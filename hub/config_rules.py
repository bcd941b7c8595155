"""The rules between settings, which no type can express; each that is broken is one sentence that says what was expected."""

import re
from collections.abc import Iterator
from typing import Final

from hub.model.address import is_https, wrong_addresses
from hub.model.event import Kind
from hub.settings import Settings


def wrong_settings(settings: Settings) -> tuple[str, ...]:
    """Return one sentence for each rule that settings of the right types break, naming what was expected."""
    parts = (_addresses, _endpoints, _hosts, _bank, _profile, _rest)
    return tuple(sentence for part in parts for sentence in part(settings))


def _addresses(settings: Settings) -> tuple[str, ...]:
    tenant, bank, trust = settings.tenant, settings.bank, settings.trust
    pages = {"bank.authorization_endpoint": bank.authorization_endpoint}
    pages |= {f"trust.{n}": getattr(trust, n) for n in ("participants", "keystore", "api")}
    pages["trust.token_endpoint"] = trust.token_endpoint
    return wrong_addresses(
        origins={
            "tenant.issuer": tenant.issuer,
            "tenant.resource_base": tenant.resource_base,
            "lfi.base": settings.lfi.base,
            "bank.base_url": bank.base_url,
        },
        pages=pages,
        lists={"trust.crl": trust.crl, "trust.ocsp": trust.ocsp},
    )


def _endpoints(settings: Settings) -> Iterator[str]:
    """Judge the addresses that may be left out."""
    for name, url in (
        ("trust.statement_keys", settings.trust.statement_keys),
        ("bank.token_endpoint", settings.bank.token_endpoint),
    ):
        if url and not is_https(url):
            yield f"{name}: expected an https URL without query or fragment, got {url!r}"


def _hosts(settings: Settings) -> Iterator[str]:
    """See that each face answers to the address that is published for it; without this, every request is 421."""
    tenant = settings.tenant
    for face, hosts, name, url in (
        ("tpp", settings.tpp.hosts, "tenant.issuer", tenant.issuer),
        ("tpp", settings.tpp.hosts, "tenant.resource_base", tenant.resource_base),
        ("lfi", settings.lfi.hosts, "lfi.base", settings.lfi.base),
    ):
        authority = url.removeprefix("https://").lower()
        host = re.sub(r":[0-9]+\Z", "", authority)
        if hosts and not {authority, host} & {one.lower() for one in hosts}:
            yield f"{face}.hosts: expected {host}, the host of {name}, among {', '.join(hosts)}"


_NEEDED: Final = {
    "jwt": ("audience",),
    "api_key": ("api_key",),
    "oauth": ("token_endpoint", "client_id", "client_secret"),
    "mtls": (),
}
"""What each way of authenticating at the bank needs in ``[bank]``."""


def _bank(settings: Settings) -> Iterator[str]:
    bank = settings.bank
    for name in _NEEDED[bank.auth]:
        if not getattr(bank, name):
            yield f"bank.{name}: expected with bank.auth = {bank.auth!r}"
    for family, path in bank.base_paths.items():
        if not path.startswith("/") or path.endswith("/") or not path.isprintable():
            yield (
                f"bank.base_paths.{family}: expected a path that begins with a slash and does not end "
                f"with one, got {path!r}"
            )


_UAE_MOST: Final = {"access_token_s": 600, "assertion_s": 300, "request_object_s": 600}
"""What the UAE security profile allows, section 2.1 points 2, 9, 10 and 11; the general profile has no such bounds, or wider ones."""

_UAE_NEVER: Final = ("jarm", "tls_client_auth")
"""What it does not know: section 2.1 points 3 and 7."""


def _profile(settings: Settings) -> Iterator[str]:
    if settings.tenant.profile != "uae":
        return
    for name, most in _UAE_MOST.items():
        given = getattr(settings.limits, name)
        if given > most:
            yield f"limits.{name}: expected at most {most} seconds in the UAE profile, got {given}"
    for name in _UAE_NEVER:
        if getattr(settings.switches, name):
            yield f"switches.{name}: expected false in the UAE profile, which does not have it"


def _rest(settings: Settings) -> Iterator[str]:
    tenant, trust, ops = settings.tenant, settings.trust, settings.ops
    if trust.auto_activate and tenant.environment != "sandbox":
        yield "trust.auto_activate: is for tenant.environment = 'sandbox' only"
    if trust.outage_pay > trust.outage_read:
        yield (
            "trust.outage_pay: expected no more than trust.outage_read "
            f"({trust.outage_read} seconds), got {trust.outage_pay}"
        )
    switches = settings.switches
    if switches.payee_partial > switches.payee_yes:
        yield (
            f"switches.payee_partial: expected no more than switches.payee_yes ({switches.payee_yes}), "
            f"got {switches.payee_partial}"
        )
    ports = [settings.tpp.port, settings.lfi.port, ops.port]
    if len(set(ports)) != 3:
        yield f"tpp.port, lfi.port, ops.port: expected three different ports, got {ports}"
    for name in ("certificate", "key", "client_ca", "certificates"):
        if getattr(ops, name):
            yield f"ops.{name}: expected none; the ops listener speaks plain HTTP, keep it on loopback"
    if unknown := sorted(set(settings.log.retain) - set(Kind)):
        yield f"log.retain: expected kinds of event ({', '.join(Kind)}), got {', '.join(unknown)}"
