"""TLS contexts of the sandbox's counterparties, with the limits FAPI 2.0 sets (section 5.2.2: BCP 195)."""

import ssl
from pathlib import Path
from typing import Final, Literal

_TLS12_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
_VERIFY: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def server_context(
    cert: Path, key: Path, ca: Path, client_cert: Literal["required", "optional", "none"]
) -> ssl.SSLContext:
    """Make the context of a listener: TLS 1.2 or newer, ``h2`` and ``http/1.1`` by ALPN.

    Args:
        cert: Certificate chain, PEM, leaf first.
        key: Its private key, PEM.
        ca: Who may have issued a client certificate, PEM bundle.
        client_cert: Whether a client must, may or need not present one; one that is presented is always verified.

    Raises:
        OSError, ssl.SSLError: A file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    context.verify_mode = _VERIFY[client_cert]
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_context(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Make the context of a caller: the server's certificate and name are verified against ``ca`` only.

    Args:
        ca: PEM bundle of trust anchors.
        cert: Client certificate chain, PEM; None to present none.
        key: Its private key, PEM.

    Raises:
        OSError, ssl.SSLError: A file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.load_verify_locations(ca)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
