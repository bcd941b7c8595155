"""What only the machine can tell about a configuration: files are there, readable, and fit together."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cryptography import x509

from hub.audit.note import NoteError, Signer
from hub.audit.witness import read_witness
from hub.config import ConfigError, Settings, config_folder
from hub.contract.contract import used_specs
from hub.contract.tables import is_beside, read_rows
from hub.node.errors import StartError
from hub.node.keys import load_signing_key
from hub.node.token_key import load_token_key
from hub.protocol.jose import UAE_ALGS, alg_of
from hub.trust.push import read_push_key

SANDBOX_MARK: Final = "API Hub Sandbox Trust Framework"
"""Part of the name of every sandbox's certificate authorities (``hub.sandbox.pki``)."""


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
        ("log.ca", settings.log.ca),
    ):
        if bundle is not None:
            _check_bundle(where, bundle)
    if settings.tenant.environment != "sandbox":
        _refuse_sandbox_certificates(settings)
    _check_keys(settings)
    _check_log(settings)
    _check_secrets(settings)
    _check_beside(settings)
    try:
        ZoneInfo(settings.tenant.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            f"tenant.time_zone: expected an IANA time zone, got {settings.tenant.time_zone!r}"
        ) from None


def _check_signing_key(path: Path, settings: Settings) -> None:
    alg = alg_of(load_signing_key(path, settings.keys.password))
    if settings.tenant.profile == "uae" and alg not in UAE_ALGS:
        raise ConfigError(
            f"keys: {path}: signs with {alg}; the UAE profile needs an RSA key (PS256)"
        )


def _check_keys(settings: Settings) -> None:
    keys = settings.keys
    if not keys.signing and not keys.pkcs11:
        raise ConfigError("keys.signing: expected at least one key, in a file or by keys.pkcs11")
    try:
        for path in (*keys.signing, keys.bearer):
            _check_signing_key(path, settings)
        for uri in keys.pkcs11:
            load_token_key(uri)
    except StartError as error:
        raise ConfigError(f"keys: {error}") from None


def _check_log(settings: Settings) -> None:
    for path in (*((settings.keys.log,) if settings.keys.log else ()), *settings.log.retiring):
        try:
            Signer.load("log", path.read_bytes())
        except (OSError, NoteError) as error:
            raise ConfigError(f"keys.log, log.retiring: {path}: {error}") from None
    for line in settings.log.witnesses:
        try:
            read_witness(line)
        except NoteError as error:
            raise ConfigError(f"log.witnesses: {line[:80]!r}: {error}") from None


def _check_secrets(settings: Settings) -> None:
    push, bank = settings.trust.push_key, settings.bank
    try:
        if push is not None:
            read_push_key(push)
    except (OSError, ValueError) as error:
        raise ConfigError(f"trust.push_key: {push}: {error}") from None
    for name, path in (("api_key", bank.api_key), ("client_secret", bank.client_secret)):
        try:
            empty = path is not None and not path.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"bank.{name}: {path}: cannot be read: {error.strerror}") from None
        if empty:
            raise ConfigError(f"bank.{name}: {path}: expected a file with the secret, it is empty")


def _check_beside(settings: Settings) -> None:
    if not settings.tenant.beside:
        return
    folder = used_specs(settings.state.folder) or config_folder() / "contract"
    try:
        rows = read_rows(folder / "routes")
    except (OSError, ValueError) as error:
        raise ConfigError(f"tenant.beside: {folder} cannot be read: {error}") from None
    known = sorted({row.route.version for row in rows if is_beside(row)})
    if unknown := sorted(set(settings.tenant.beside) - set(known)):
        raise ConfigError(
            f"tenant.beside: {', '.join(unknown)}: expected versions that `hub specs use` laid beside ours: "
            f"{', '.join(known) or 'none is'}"
        )


def _pairs(settings: Settings) -> Iterator[tuple[str, Path, Path]]:
    tpp = settings.tpp
    if tpp.certificate is None or tpp.key is None or tpp.client_ca is None:
        raise ConfigError(
            "tpp.certificate, tpp.key, tpp.client_ca: the TPP edge always speaks mutual TLS; give all three files"
        )
    yield "tpp", tpp.certificate, tpp.key
    yield "lfi", settings.lfi.certificate, settings.lfi.key
    for face, pairs in (("tpp", tpp.certificates), ("lfi", settings.lfi.certificates)):
        for host, pair in pairs.items():
            yield f"{face}.certificates.{host}", pair.certificate, pair.key
    yield "bank", settings.bank.certificate, settings.bank.key
    yield "trust", settings.trust.certificate, settings.trust.key


def _refuse_sandbox_certificates(settings: Settings) -> None:
    """Refuse whatever a sandbox's Trust Framework has issued: its keys lie around on laptops."""
    files = [certificate for _, certificate, _ in _pairs(settings)]
    bundles = (settings.tpp.client_ca, settings.lfi.client_ca, settings.bank.ca, settings.trust.ca)
    files += [bundle for bundle in bundles if bundle is not None]
    for path in files:
        for certificate in _certificates(path):
            if SANDBOX_MARK in certificate.issuer.rfc4514_string():
                raise ConfigError(
                    f"{path}: was issued by a sandbox's Trust Framework; tenant.environment is "
                    f"{settings.tenant.environment!r}, which needs certificates of the real one"
                )


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected PEM certificates: {error}") from None


def _check_pair(where: str, certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # never asked for on a terminal
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
