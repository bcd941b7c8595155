"""The expiry radar: every certificate and key the tenant depends on, and how near its end is.

Marks are 60, 30 and 7 days before the end, and the end itself. The radar is data: node turns it into gauges and log
lines, the portal into a page.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from hub.trust.mirror import Client

DAY: Final = 86_400
SOON: Final = 60 * DAY


class Mark(StrEnum):
    """Say how near an end is."""

    FINE = "fine"
    SIXTY = "60 days"
    THIRTY = "30 days"
    SEVEN = "7 days"
    OVER = "over"


_MARKS: Final = ((0, Mark.OVER), (7, Mark.SEVEN), (30, Mark.THIRTY), (60, Mark.SIXTY))


class Blip(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one thing that ends: whose, what, its key id or serial, when (seconds), and how near that is."""

    owner: str
    what: str
    id: str
    ends: int
    mark: Mark


def mark_of(ends: int, now: int) -> Mark:
    """Return how near an end is."""
    left = ends - now
    return next((mark for days, mark in _MARKS if left <= days * DAY), Mark.FINE)


def blip(owner: str, what: str, certificate: x509.Certificate, now: int) -> Blip:
    """Return the blip of a certificate."""
    ends = int(certificate.not_valid_after_utc.timestamp())
    serial = f"{certificate.serial_number:x}"
    return Blip(owner=owner, what=what, id=serial, ends=ends, mark=mark_of(ends, now))


def scan_files(files: Mapping[str, Path], now: int) -> tuple[Blip, ...]:
    """Return the blips of certificates in PEM files by name; files that cannot be read count as over."""
    found: list[Blip] = []
    for name, path in files.items():
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            found.append(Blip(owner="tenant", what=name, id="unreadable", ends=0, mark=Mark.OVER))
            continue
        found += [blip("tenant", name, certificate, now) for certificate in certificates]
    return tuple(found)


def scan_seen(certificates: Iterable[bytes], now: int) -> tuple[Blip, ...]:
    """Return the blips of callers' certificates (DER)."""
    found: list[Blip] = []
    for der in certificates:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            continue
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        owner = str(names[0].value) if names else ""
        found.append(blip(owner, "client transport", certificate, now))
    return tuple(found)


def scan_ends(clients: Iterable[Client], now: int) -> tuple[Blip, ...]:
    """Return the blips of those keys published in the framework that end within sixty days or have ended."""
    soon = now + SOON
    return tuple(
        Blip(
            owner=client.client_id,
            what="published transport" if kid in client.transport else "published key",
            id=kid,
            ends=ends,
            mark=mark_of(ends, now),
        )
        for client in clients
        for kid, ends in client.ends.items()
        if 0 < ends <= soon
    )


def nearest(blips: Iterable[Blip]) -> tuple[Blip, ...]:
    """Return the blips that are not fine, the nearest end first."""
    return tuple(sorted((b for b in blips if b.mark is not Mark.FINE), key=lambda b: b.ends))
