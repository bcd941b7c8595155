"""The access token as a text: opaque, or a JWT where the tenant switches it on.

Theory. Either way the Hub looks a token up by its digest, so a JWT is revoked at once like any other; its claims are for
resource servers that want to read it themselves. It holds nothing of the consent but its id.

Source: decisions 1 (opaque); RFC 9068 section 2; RFC 8705 section 3.1; RFC 9449 section 6.1.
"""

from typing import Any

from hub.authz.id_token import subject
from hub.authz.shell import Shell
from hub.model.consent import Consent
from hub.model.records import AccessToken
from hub.protocol.jose import b64url, sign


async def access_token_of(shell: Shell, access: AccessToken, consent: Consent | None) -> str:
    """Return a new token text for a record that has no digest yet: 256 random bits, or a signed JWT with as many in its jti."""
    drawn = b64url(shell.dice.token(32))
    if not shell.settings.switches.jwt_access_tokens:
        return drawn
    confirmation = {"x5t#S256": access.x5t_s256}
    if access.jkt:
        confirmation["jkt"] = access.jkt
    claims: dict[str, Any] = {
        "iss": shell.rules.issuer,
        "aud": shell.settings.tenant.resource_base,
        "sub": access.client_id if consent is None else await subject(shell, consent),
        "client_id": access.client_id,
        "iat": access.issued,
        "exp": access.expires,
        "jti": drawn,
        "scope": access.scope,
        "cnf": confirmation,
    }
    if access.consent_id:
        claims["consent_id"] = access.consent_id
    key = shell.signing_keys[0]
    return sign(claims, key, typ="at+jwt")
