"""Signing keys in a hardware token (PKCS#11): the key never leaves it; here is only what can ask it to sign.

A token's key looks like any other RSA private key to the rest of the Hub and can do one thing, PS256. It is named by a URI
(RFC 7512): ``pkcs11:token=hub;object=sig2?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/hub/pin``. Its ``kid``
is the thumbprint of the certificate stored beside it under the same id, else that of the public key.

The package ``python-pkcs11`` is needed (``pip install api-hub[pkcs11]``). A signature waits for the token: one that answers
over a network slows the process down by as long as it takes.

Source: RFC 7512; PKCS #11 3.0 section 6.1; RFC 7518 section 3.5.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicKey,
    RSAPublicNumbers,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
)
from typing_extensions import override

from hub.node.errors import StartError
from hub.protocol.jose import PrivateKey, public_jwk, thumbprint

SCHEME: Final = "pkcs11:"
_SALT_OCTETS: Final = 32


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Hold where a key is: the module, the token's label, the object's label, and the file with the PIN."""

    module: Path
    token: str
    label: str
    pin: Path


def place_of(uri: str) -> Place:
    """Read a PKCS#11 URI.

    Raises:
        StartError: It lacks ``token``, ``object``, ``module-path`` or ``pin-source``.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    found = dict(part.partition("=")[::2] for part in path.split(";"))
    found |= dict(parse_qsl(query))
    missing = [n for n in ("token", "object", "module-path", "pin-source") if not found.get(n)]
    if not uri.startswith(SCHEME) or missing:
        names = ", ".join(missing) or "the scheme"
        raise StartError(f"keys.pkcs11: expected a pkcs11: URI (RFC 7512), it lacks {names}")
    if "pin-value" in found:
        raise StartError(
            "keys.pkcs11: expected a pkcs11: URI (RFC 7512) with pin-source, not pin-value: no secret stands here"
        )
    return Place(
        module=Path(found["module-path"]),
        token=unquote(found["token"]),
        label=unquote(found["object"]),
        pin=Path(found["pin-source"].removeprefix("file:")),
    )


class TokenKey(RSAPrivateKey):
    """An RSA key in a token: it signs PS256 and tells its public half; it can do nothing else."""

    def __init__(self, key: Any, public: RSAPublicKey) -> None:
        """Take the token's handle and the public half."""
        self._key = key
        self._public = public

    @override
    def sign(self, data: Any, padding: AsymmetricPadding, algorithm: Any) -> bytes:
        """Sign with PSS over SHA-256, salt of 32 octets, whatever the arguments say: there is no other use here."""
        import pkcs11  # noqa: PLC0415 - an optional package

        mechanism = pkcs11.Mechanism.SHA256_RSA_PKCS_PSS
        parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, _SALT_OCTETS)
        return bytes(self._key.sign(bytes(data), mechanism=mechanism, mechanism_param=parameters))

    @override
    def public_key(self) -> RSAPublicKey:
        """Return the public half."""
        return self._public

    @property
    @override
    def key_size(self) -> int:
        """Return the modulus's bits."""
        return self._public.key_size

    @override
    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """Refuse: the key is for signatures."""
        return _cannot()

    @override
    def private_numbers(self) -> RSAPrivateNumbers:
        """Refuse: they never leave the token."""
        return _cannot()

    @override
    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,
        encryption_algorithm: KeySerializationEncryption,
    ) -> bytes:
        """Refuse: they never leave the token."""
        return _cannot()

    @override
    def __copy__(self) -> "TokenKey":
        """Return the same handle."""
        return self

    @override
    def __deepcopy__(self, memo: dict[Any, Any]) -> "TokenKey":
        """Return the same handle."""
        return self


def _cannot() -> NoReturn:
    raise TypeError("a key in a token only signs")


def load_token_key(uri: str) -> PrivateKey:
    """Open the token and find one RSA key to sign with.

    Raises:
        StartError: The package, module, token, PIN or key is not there, or the key is not an RSA key of 2048 bits or more.
    """
    place = place_of(uri)
    try:
        import pkcs11  # noqa: PLC0415 - an optional package
    except ImportError:
        raise StartError(
            "keys.pkcs11: needs the package python-pkcs11 (pip install 'api-hub[pkcs11]')"
        ) from None
    where = f"keys.pkcs11: token {place.token!r}, object {place.label!r}"
    try:
        pin = place.pin.read_text().strip()
        token = pkcs11.lib(str(place.module)).get_token(token_label=place.token)
        try:
            session = token.open(user_pin=pin)
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            session = token.open()  # by this process, for another key of the same token
        key = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label=place.label)
    except (OSError, RuntimeError, pkcs11.PKCS11Error) as error:
        raise StartError(f"{where}: {type(error).__name__} {error}".rstrip()) from None
    if key.key_type is not pkcs11.KeyType.RSA:
        raise StartError(f"{where}: expected an RSA key")
    attribute = pkcs11.Attribute
    numbers = RSAPublicNumbers(
        int.from_bytes(key[attribute.PUBLIC_EXPONENT]), int.from_bytes(key[attribute.MODULUS])
    )
    public = numbers.public_key()
    if public.key_size < 2048:
        raise StartError(f"{where}: an RSA key needs 2048 bits or more")
    found = session.get_objects(
        {attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE, attribute.ID: key.id}
    )
    certificates = [bytes(one[attribute.VALUE]) for one in found]
    kid = _kid_of(certificates[0]) if certificates else thumbprint(_jwk_of(public))
    return PrivateKey(kid=kid, key=TokenKey(key, public))


def _kid_of(certificate: bytes) -> str:
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()


def _jwk_of(public: RSAPublicKey) -> dict[str, Any]:
    return public_jwk(PrivateKey(kid="", key=TokenKey(None, public)))
