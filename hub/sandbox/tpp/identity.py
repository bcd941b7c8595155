"""A TPP's identity: its client id, its keys, and the JWTs it signs with them (PS256 only)."""

import ssl
from pathlib import Path
from typing import Any, Final, Self, final

import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.model.clock import Clock, Dice
from hub.sandbox.manifest import TppSection
from hub.sandbox.tls import client_context

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_S: Final = 120
REQUEST_OBJECT_S: Final = 300


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Name the files that a connection needs."""

    ca: Path
    certificate: Path
    key: Path


@final
class Identity:
    """Sign as one TPP."""

    def __init__(
        self, *, section: TppSection, files: Files, signing_key: RSAKey, clock: Clock, dice: Dice
    ) -> None:
        """Take the TPP's section of the manifest, the files of its connections, and its signing key."""
        self.client_id = section.client_id
        self.name = section.name
        self.organisation_id = section.organisation_id
        self.redirect_uri = section.redirect_uris[0]
        self.files = files
        self.clock = clock
        self.dice = dice
        self._signing_kid = section.signing_kid
        self._signing_key = signing_key

    @classmethod
    def read(cls, section: TppSection, folder: Path, ca: str, clock: Clock, dice: Dice) -> Self:
        """Read the keys that a manifest in ``folder`` names."""
        return cls(
            section=section,
            files=Files(
                ca=folder / ca,
                certificate=folder / section.transport_cert,
                key=folder / section.transport_key,
            ),
            signing_key=RSAKey.import_key((folder / section.signing_key).read_bytes()),
            clock=clock,
            dice=dice,
        )

    def tls(self) -> ssl.SSLContext:
        """Return a context that trusts the sandbox's CA and presents the transport certificate (C1)."""
        return client_context(self.files.ca, self.files.certificate, self.files.key)

    def sign(self, claims: dict[str, Any], *, typ: str = "JWT") -> str:
        """Return a compact JWS over ``claims`` under PS256 with the registered ``kid``."""
        header = {"alg": "PS256", "kid": self._signing_kid, "typ": typ}
        return jwt.encode(header, claims, self._signing_key, algorithms=["PS256"])

    def client_assertion(self, audience: str) -> str:
        """Return a fresh client assertion for one call.

        Source: RFC 7523 section 3; ``aud`` is the issuer as a string (FAPI 2.0 section 5.3.2.1).
        """
        now = self.clock.now()
        return self.sign(
            {
                "iss": self.client_id,
                "sub": self.client_id,
                "aud": audience,
                "iat": now,
                "exp": now + ASSERTION_S,
                "jti": self.dice.uuid(),
            }
        )

    def request_object(self, audience: str, parameters: dict[str, Any]) -> str:
        """Return a signed request object that carries the authorization request's parameters.

        Source: RFC 9101 section 4; FAPI 2.0 Message Signing section 5.3.1.
        """
        now = self.clock.now()
        return self.sign(
            {
                "iss": self.client_id,
                "client_id": self.client_id,
                "aud": audience,
                "iat": now,
                "nbf": now,
                "exp": now + REQUEST_OBJECT_S,
                "jti": self.dice.uuid(),
                **parameters,
            },
            typ="oauth-authz-req+jwt",
        )
