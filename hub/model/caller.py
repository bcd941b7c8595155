"""Who is at the other end: the Peer that TLS proved, and the Caller that the Trust Framework knows."""

from typing import Final

import msgspec


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the connection proves, parsed once per connection.

    Attributes:
        address: Remote address without port.
        x5t_s256: base64url SHA-256 of the client certificate (RFC 8705 section 3.1); empty without one.
        organisation_id: Subject OU (a UUID in this ecosystem); empty without one.
        organisation_name: Subject O.
        client_id: Subject CN.
        serial: Certificate serial number, lower case hex.
        issuer: Issuer, RFC 4514 text.
        not_after: End of validity, seconds since 1970.
        tls_version: ``TLSv1.3`` or ``TLSv1.2``; empty on plain loopback listeners.
        certificate: The leaf in DER; empty without one.
    """

    address: str = ""
    x5t_s256: str = ""
    organisation_id: str = ""
    organisation_name: str = ""
    client_id: str = ""
    serial: str = ""
    issuer: str = ""
    not_after: int = 0
    tls_version: str = ""
    certificate: bytes = b""

    @property
    def present(self) -> bool:
        """Tell whether a client certificate was presented and verified."""
        return bool(self.x5t_s256)


NOBODY: Final = Peer()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a TPP client that passed every check of the Trust Framework and of this tenant.

    Attributes:
        client_id: The application's UUID.
        organisation_id: The organisation's UUID.
        software_statement_id: Equal to ``client_id`` in this ecosystem by default; kept apart.
        tpp_id: The Hub's id of the TPP (its organisation).
        tpp_name: The organisation's name in the framework.
        roles: ``BDSP``, ``BSIP``, ``ISP`` ... in force now.
        redirect_uris: Registered, compared as exact strings.
        webhook_uris: ``ApiWebhookUri``.
        dpop_bound: The client is registered for DPoP-bound access tokens.
        decoded_ssa: What the bank sees as ``decodedSsa`` (hub-apis 2.3).
        x5t_s256: Thumbprint of the certificate in use.
    """

    client_id: str
    organisation_id: str
    software_statement_id: str
    tpp_id: str
    tpp_name: str
    roles: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    webhook_uris: tuple[str, ...] = ()
    dpop_bound: bool = False
    decoded_ssa: dict[str, object] = {}
    x5t_s256: str = ""

    def tpp_block(self) -> dict[str, object]:
        """Return the ``tpp`` record of Heimdall, Consent Manager and payment envelopes (hub-apis 2.3)."""
        return {
            "clientId": self.client_id,
            "tppId": self.tpp_id,
            "tppName": self.tpp_name,
            "softwareStatementId": self.software_statement_id,
            "orgId": self.organisation_id,
            "decodedSsa": dict(self.decoded_ssa),
        }
