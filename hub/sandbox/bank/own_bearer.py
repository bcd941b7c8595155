"""The bank's own bearer towards the Hub (JWT Auth, Sig4), for tenants that demand one; others ignore the header.

``iss`` and ``sub`` are subject O and OU of the bank's client certificate (C3), ``aud`` the provider id that both sides agreed
on. Each call gets a token of its own, good for thirty seconds.
"""

from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.model.clock import Clock, Dice
from hub.sandbox.bank.bearer import subject_of

LIFE_S: Final = 30


@final
class OwnBearer:
    """Sign the bank's bearers."""

    __slots__ = ("_audience", "_clock", "_dice", "_key", "_kid", "_subject")

    def __init__(
        self, *, key: Path, kid: str, certificate: Path, audience: str, clock: Clock, dice: Dice
    ) -> None:
        """Take the signing key (Sig4, private, PEM) and its key id, the client certificate, and the agreed ``aud``.

        Raises:
            OSError, ValueError: A file cannot be read or holds something else.
        """
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        self._subject = subject_of(leaf.public_bytes(Encoding.DER))
        self._key = RSAKey.import_key(key.read_bytes())
        self._kid = kid
        self._audience = audience
        self._clock = clock
        self._dice = dice

    def value(self) -> str:
        """Return the value of an ``Authorization`` header; a secret."""
        now = self._clock.now()
        claims = {
            "iss": self._subject.organisation_name,
            "sub": self._subject.organisation_id,
            "aud": self._audience,
            "iat": now,
            "exp": now + LIFE_S,
            "jti": self._dice.uuid(),
        }
        header = {"alg": "PS256", "typ": "JOSE", "cty": "json", "kid": self._kid}
        return f"Bearer {jwt.encode(header, claims, self._key, algorithms=['PS256'])}"
