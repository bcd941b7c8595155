"""The id_token, and the pairwise subject in it.

``sub`` is a keyed digest of the bank's user id and the client's organisation: two TPPs cannot compare notes, nobody can
guess it from a user id, and it stays the same over every consent of the customer with one TPP.

Source: OpenID Connect Core 2, 3.1.3.6 and 8.1; FAPI 2.0 Message Signing 5.6.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

from hub.authz.facts import Facts
from hub.authz.sealed_claims import unseal
from hub.authz.shell import Shell
from hub.model.consent import Consent
from hub.model.records import Code
from hub.protocol.jose import alg_of, b64url, encrypt, sign
from hub.protocol.oauth import half_hash

_SALT: Final = "authz.subject_salt"
_RESERVED: Final = frozenset(
    {
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "nbf",
        "jti",
        "nonce",
        "auth_time",
        "acr",
        "amr",
        "azp",
        "cnf",
    }
    | {"at_hash", "c_hash", "s_hash"}
)
_CONTROL: Final = "heimdall."


def claims_of(form: Mapping[str, str]) -> dict[str, str]:
    """Return what a bank's ``doConfirm`` adds to the id_token: no control parameter, no reserved claim."""
    return {
        name: value
        for name, value in form.items()
        if not name.startswith(_CONTROL) and name not in _RESERVED
    }


async def id_token(shell: Shell, facts: Facts, code: Code, access_token: str) -> str:
    """Make the id_token of a code that is being redeemed."""
    key = shell.signing_keys[0]
    alg = alg_of(key)
    claims: dict[str, Any] = {
        **unseal(code.sealed, facts.form["code"]),
        "iss": shell.rules.issuer,
        "sub": await subject(shell, facts.consent) if facts.consent is not None else "",
        "aud": code.client_id,
        "iat": facts.now,
        "exp": facts.now + shell.settings.limits.access_token_s,
        "auth_time": code.auth_time,
        "at_hash": half_hash(access_token, alg),
    }
    if code.nonce:
        claims["nonce"] = code.nonce
    token = sign(claims, key, alg=alg)
    recipient = shell.trust.encryption_key(code.client_id)
    if not shell.settings.switches.encrypted_id_tokens or recipient is None:
        return token
    return encrypt(token.encode(), recipient, cty="JWT")


async def subject(shell: Shell, consent: Consent) -> str:
    """Return the customer's pairwise subject; before the bank has named the customer, the consent's own."""
    user = (consent.psu_identifiers or {}).get("userId")
    named = f"user\x00{user}" if user else f"consent\x00{consent.id}"
    message = f"{consent.organisation_id}\x00{named}".encode()
    return b64url(hmac.digest(await shell.secrets.get(_SALT), message, hashlib.sha256))
