"""Server TLS: contexts built from files, exchanged without a restart, and why a handshake was refused.

TLS 1.2 (the four suites that FAPI allows) and 1.3. A client certificate is asked for and, when given, verified
against the listener's CA bundle; routes decide who needs one. Revocation is never checked here, where a stale list
would refuse everybody. Each ``reload`` makes a new context, so that tickets of an older one resume nothing: a new
CA bundle is obeyed by every handshake after it. Source: FAPI 2.0 Security Profile 5.2.2; RFC 9325; RFC 8446.
"""

import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, final

from hub.edge.presented import watch

FAPI_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""TLS 1.2 suites of FAPI 2.0 Security Profile section 5.2.2 (from BCP 195)."""


@final
class ServerTls:
    """Hold the context of a listener and exchange it when its files change."""

    __slots__ = ("_client_ca", "_pairs", "context")

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        hosts: Mapping[str, tuple[Path, Path]] = MappingProxyType({}),
    ) -> None:
        """Read the files.

        Args:
            certificate: PEM chain, leaf first.
            key: PEM private key.
            client_ca: PEM bundle that client certificates are verified against; None: none is asked for.
            hosts: Certificate and key of single host names, for clients that ask for one (RFC 6066 section 3).

        Raises:
            OSError: a file cannot be read or parsed (``ssl.SSLError`` is one too).
        """
        self._pairs = {"": (certificate, key)}
        self._pairs |= {host.lower(): pair for host, pair in hosts.items()}
        self._client_ca = client_ca
        self.context = self._build()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files whose change calls for ``reload``."""
        paths = [path for pair in self._pairs.values() for path in pair]
        return (*paths, *(() if self._client_ca is None else (self._client_ca,)))

    def take(self, other: "ServerTls") -> None:
        """Use the files and the context of another one from the next handshake on."""
        self._pairs = other._pairs  # noqa: SLF001 - of our own kind
        self._client_ca = other._client_ca  # noqa: SLF001 - of our own kind
        self.context = other.context

    def reload(self) -> str:
        """Read the files again; on any error keep what is in use.

        Returns:
            An empty string, or why the old certificate stays.
        """
        try:
            self.context = self._build()
        except OSError as error:  # ssl.SSLError is an OSError
            name = error.filename or self._pairs[""][0]
            return f"{Path(name).name}: {error.strerror or error}"
        return ""

    def _build(self) -> ssl.SSLContext:
        """Build one context per host name; the one without a name hands over to the others."""
        contexts = {host: self._context(*pair) for host, pair in self._pairs.items()}
        default = contexts.pop("")

        def choose(
            connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
        ) -> None:
            if name and (chosen := contexts.get(name.lower())) is not None:
                connection.context = chosen

        if contexts:
            default.sni_callback = choose  # type: ignore[assignment,unused-ignore]
        return default

    def _context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(FAPI_CIPHERS))
        context.options |= (
            ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.num_tickets = 1
        context.load_cert_chain(certificate, key, password=_no_password)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cafile=self._client_ca)
            watch(context)
        return context


@contextmanager
def nonsense_names() -> Iterator[None]:
    """Keep Python from printing a traceback with the peer's octets where a server name is no ASCII.

    Such a name never reaches ``sni_callback``; the handshake fails all the same, and is noted. Only for a call that does
    not wait: the hook is the whole process's.
    """
    former = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not UnicodeDecodeError:
            former(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former


def _no_password() -> str:
    """Give an encrypted key a wrong password, so that loading fails instead of asking on a terminal."""
    return ""


def refusal_reason(error: Exception) -> str:
    """Name in stable words why a handshake failed; never anything of the peer's own text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.replace(" ", "_")
    if isinstance(error, ssl.SSLEOFError | EOFError | ConnectionError | BrokenPipeError):
        return "closed_by_peer"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls").lower()
    return type(error).__name__
