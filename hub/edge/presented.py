"""Which certificate a peer presented, when TLS has refused it: for the log, which must name the one that expired.

Theory. OpenSSL forgets a certificate that it does not accept, and Python's ``ssl`` has no verification callback. It does tell a
context's message callback of each handshake message, decrypted; from the Certificate message the first certificate is kept
until the handshake is over. Then the connection gets a context without a callback, so that not one record of the requests
that follow pays for it. The callback is not documented, so where a Python does not have it the log goes without.

Sources: RFC 8446 section 4.4.2, RFC 5246 section 7.4.2.
"""

import _ssl
import hashlib
import ssl
from base64 import urlsafe_b64encode
from typing import Any, Final

from cryptography import x509

_HANDSHAKE: Final = 22
_CERTIFICATE: Final = 11
_TLS13: Final = 0x0304
_MOST: Final = 32_768
_TEXT: Final = 200
_CALLBACK: Final[Any] = getattr(_ssl._SSLContext, "_msg_callback", None)  # noqa: SLF001 - no public name
_QUIET: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def watch(context: ssl.SSLContext) -> None:
    """Have a server's context remember what its peers present during the handshake."""
    if _CALLBACK is not None:
        _CALLBACK.__set__(context, _heard)


def forget(connection: ssl.SSLObject) -> None:
    """End the watch of a connection whose handshake is over, however it went; nothing is told of its later records."""
    connection.context = _QUIET


def presented(connection: ssl.SSLObject) -> dict[str, str]:
    """Return thumbprint, serial number, subject and end of the certificate that was presented; empty for none.

    The values are the peer's own words, not proven; they are bounded and printable.
    """
    der = getattr(connection, "presented", b"")
    if not der:
        return {}
    thumbprint = urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    try:
        certificate = x509.load_der_x509_certificate(der)
        return {
            "certificate": thumbprint,
            "serial": f"{certificate.serial_number:x}",
            "subject": _printable(certificate.subject.rfc4514_string()),
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
        }
    except (ValueError, TypeError, x509.InvalidVersion):
        return {"certificate": thumbprint}


def _printable(text: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in text[:_TEXT])


def _heard(
    connection: Any, direction: str, version: int, content: int, kind: int, data: bytes
) -> None:
    """Keep the first certificate of a Certificate message; never raise."""
    if direction == "read" and content == _HANDSHAKE and kind == _CERTIFICATE:
        connection.presented = leaf_of(data, tls13=version == _TLS13)


def leaf_of(message: bytes, *, tls13: bool) -> bytes:
    """Return the first certificate (DER) of a Certificate message with its four octets of header; empty for none."""
    at = 4
    if tls13:
        at += 1 + int.from_bytes(message[at : at + 1])
    at += 3
    length = int.from_bytes(message[at : at + 3])
    leaf = message[at + 3 : at + 3 + length]
    return leaf if 0 < length <= _MOST and len(leaf) == length else b""
