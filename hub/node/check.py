"""What only the machine can tell about a configuration: files are there, readable, and fit together."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hub.config import ConfigError, Settings
from hub.node.errors import StartError
from hub.node.keys import load_signing_key


def check_files(settings: Settings) -> None:
    """Check every file that the settings name.

    Raises:
        ConfigError: One line that names the setting, the file and what was expected.
    """
    for where, certificate, key in _pairs(settings):
        _check_pair(where, certificate, key)
    for where, bundle in (
        ("tpp.client_ca", settings.tpp.client_ca),
        ("lfi.client_ca", settings.lfi.client_ca),
        ("bank.ca", settings.bank.ca),
        ("trust.ca", settings.trust.ca),
    ):
        if bundle is not None:
            _check_bundle(where, bundle)
    for path in (*settings.keys.signing, settings.keys.bearer):
        try:
            load_signing_key(path)
        except StartError as error:
            raise ConfigError(f"keys: {error}") from None
    try:
        ZoneInfo(settings.tenant.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            f"tenant.time_zone: expected an IANA time zone, got {settings.tenant.time_zone!r}"
        ) from None


def _pairs(settings: Settings) -> Iterator[tuple[str, Path, Path]]:
    if settings.tpp.certificate is None or settings.tpp.key is None:
        raise ConfigError(
            "tpp.certificate, tpp.key: the TPP edge always speaks TLS; give both files"
        )
    yield "tpp", settings.tpp.certificate, settings.tpp.key
    yield "lfi", settings.lfi.certificate, settings.lfi.key
    yield "bank", settings.bank.certificate, settings.bank.key
    yield "trust", settings.trust.certificate, settings.trust.key


def _check_pair(where: str, certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{where}.certificate {certificate}, {where}.key {key}: expected a PEM certificate and its key: {error}"
        ) from None


def _check_bundle(where: str, bundle: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(bundle)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{where} {bundle}: expected PEM certificates: {error}") from None
