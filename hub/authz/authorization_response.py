"""The authorization response: where the browser is sent, with ``iss`` and ``state``, plain or as a JWT.

Source: RFC 6749 section 4.1.2; RFC 9207; JARM 2.1 and 2.3.
"""

from collections.abc import Sequence
from typing import Final

from hub.authz.shell import Shell
from hub.model.records import Pushed
from hub.protocol.jose import sign
from hub.protocol.oauth import printable, redirect_to

REDIRECT_ERRORS: Final = frozenset(
    {
        "access_denied",
        "invalid_request",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
    }
)
"""What a bank may say in ``doFail``; anything else becomes ``invalid_request``."""

_JARM_S: Final = 600


def location(shell: Shell, pushed: Pushed, parameters: Sequence[tuple[str, str]], now: int) -> str:
    """Return the redirect: the pushed ``redirect_uri`` with parameters, ``state`` unchanged and ``iss``."""
    asked = pushed.parameters
    spoken = [
        (name, printable(value, limit=400) if name == "error_description" else value)
        for name, value in parameters
        if value
    ]
    if isinstance(asked.get("state"), str):
        spoken.append(("state", asked["state"]))
    redirect_uri = str(asked["redirect_uri"])
    if asked.get("response_mode", "query") == "query":
        return redirect_to(redirect_uri, [*spoken, ("iss", shell.rules.issuer)])
    key = shell.signing_keys[0]
    claims = {
        "iss": shell.rules.issuer,
        "aud": pushed.client_id,
        "exp": now + _JARM_S,
        **dict(spoken),
    }
    return redirect_to(redirect_uri, [("response", sign(claims, key, typ="JWT"))])
