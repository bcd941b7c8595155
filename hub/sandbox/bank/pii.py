"""The sealed part of a payment: a JWS of the TPP inside a JWE for this bank (RSA-OAEP-256, A256GCM; RFC 7516)."""

from pathlib import Path
from typing import Any, Final, final

import msgspec
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

Json = dict[str, Any]
_LARGEST: Final = 262_144


class Unreadable(Exception):  # noqa: N818 - what it is
    """Say that a sealed part cannot be opened, or holds something else."""


@final
class PiiReader:
    """Open what TPPs sealed for this bank."""

    __slots__ = ("_key",)

    def __init__(self, key: Path | None) -> None:
        """Take the private key (Enc1, PEM); None where the bank has none, and reads nothing."""
        self._key = RSAKey.import_key(key.read_bytes()) if key is not None else None

    def read(self, sealed: object) -> Json:
        """Return what is inside; an object that was not sealed is returned as it is.

        Raises:
            Unreadable: It is neither an object nor sealed for this bank.
        """
        if isinstance(sealed, dict):
            return sealed
        if not isinstance(sealed, str) or len(sealed) > _LARGEST or self._key is None:
            raise Unreadable
        try:
            opened = jwe.decrypt_compact(sealed, self._key, algorithms=["RSA-OAEP-256", "A256GCM"])
            inner = jws.extract_compact(opened.plaintext or b"")
            return msgspec.json.decode(inner.payload, type=dict[str, Any])
        except (JoseError, ValueError, msgspec.DecodeError) as error:
            raise Unreadable from error


def creditors_of(pii: Json) -> tuple[tuple[str, str], ...]:
    """Return IBAN and name of each creditor that a sealed part names: several in a consent, one in a payment."""
    initiation = pii.get("Initiation")
    if not isinstance(initiation, dict):
        return ()
    named = initiation.get("Creditor")
    rows = named if isinstance(named, list) else [initiation]
    return tuple(found for row in rows if isinstance(row, dict) and (found := _creditor(row))[0])


def _creditor(row: Json) -> tuple[str, str]:
    account = row.get("CreditorAccount")
    account = account if isinstance(account, dict) else {}
    name = account.get("Name")
    name = name.get("en") or name.get("ar") if isinstance(name, dict) else ""
    return str(account.get("Identification", "")), str(name or "")


def debtor_of(pii: Json) -> str:
    """Return the IBAN of the debtor account that a consent's sealed part names, or an empty string."""
    initiation = pii.get("Initiation")
    account = initiation.get("DebtorAccount") if isinstance(initiation, dict) else None
    return str(account.get("Identification", "")) if isinstance(account, dict) else ""
