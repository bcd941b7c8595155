"""The authorization server's entry: which handler answers which method and path, at both faces.

Path templates hold ``{name}`` segments; handlers take them from ``request.path`` themselves. The caller of
``tpp_routes`` and ``lfi_routes`` answers 404 and 405 for everything that is not in the tables.
"""

from collections.abc import Sequence
from typing import Final

from hub.authz.existing_token import ExistingTokens
from hub.authz.facts import AuthorizationDetailsCheck, Column, rules_of
from hub.authz.heimdall import Heimdall
from hub.authz.metadata import AUTHORIZE, JWKS, PATHS, USERINFO, Metadata
from hub.authz.par import ConsentValidation, PushedRequests
from hub.authz.shell import Shell
from hub.authz.token import Tokens
from hub.config import Settings
from hub.model.clock import Clock, Dice
from hub.model.http import Admission, Handler
from hub.observe import Observer
from hub.protocol.jose import PrivateKey, PublicKey
from hub.state.keeper import Keeper
from hub.trust.view import TrustView

Routes = dict[tuple[str, str], Handler]

PUBLIC: Final = frozenset(
    {
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        JWKS,
        "/jwks.json",
        "/.well-known/jwks.json",
        "/errors/{check}",
        AUTHORIZE,
    }
)
"""Paths of the TPP face that need no client certificate."""


class Authz:
    """Compose the endpoints."""

    def __init__(
        self,
        *,
        settings: Settings,
        keeper: Keeper,
        trust: TrustView,
        signing_keys: Sequence[PrivateKey],
        details_check: AuthorizationDetailsCheck,
        clock: Clock,
        dice: Dice,
        observer: Observer,
        validate: ConsentValidation | None = None,
        retired_keys: Sequence[PublicKey] = (),
    ) -> None:
        """Take what the authorization server needs.

        Args:
            settings: Of the tenant.
            keeper: Its state.
            trust: The Trust Framework's view.
            signing_keys: Sig2 keys; the first signs, all are published. At least one.
            details_check: The schemas of ``authorization_details``.
            clock: Wall time.
            dice: Randomness.
            observer: Metrics and log.
            validate: Asks the bank before a consent is stored; None: it is not asked.
            retired_keys: Public keys that signed before, published still.
        """
        if not signing_keys:
            raise ValueError("the authorization server needs a signing key")
        rules = rules_of(settings)
        shell = Shell(
            settings=settings,
            rules=rules,
            keeper=keeper,
            trust=trust,
            signing_keys=signing_keys,
            details_check=details_check,
            clock=clock,
            dice=dice,
            observer=observer,
        )
        self._form = Admission(limit=settings.limits.form_octets)
        self._own_endpoint = settings.switches.own_authorization_endpoint
        self._metadata = Metadata(settings, rules, signing_keys, retired_keys)
        self._par = PushedRequests(shell, validate)
        self._tokens = Tokens(shell)
        self._existing = ExistingTokens(shell)
        self._heimdall = Heimdall(shell)

    def tpp_routes(self) -> Routes:
        """Return the handlers of the TPP face."""
        metadata, existing = self._metadata, self._existing
        routes: Routes = {
            ("GET", "/.well-known/openid-configuration"): metadata.discovery,
            ("GET", "/.well-known/oauth-authorization-server"): metadata.discovery,
            ("GET", "/errors/{check}"): metadata.explanation,
            ("POST", PATHS[Column.PAR]): self._par.push,
            ("POST", PATHS[Column.CODE]): self._tokens.exchange,
            ("GET", USERINFO): existing.userinfo,
            ("POST", USERINFO): existing.userinfo,
        }
        for path in (JWKS, "/jwks.json", "/.well-known/jwks.json"):
            routes["GET", path] = metadata.keys
        for path in (PATHS[Column.REVOKE], "/revoke", "/revocation"):
            routes["POST", path] = existing.revoke
        for path in (PATHS[Column.INTROSPECT], "/introspect", "/token/introspection"):
            routes["POST", path] = existing.introspect
        if self._own_endpoint:
            routes["GET", AUTHORIZE] = metadata.authorize
        return routes

    def tpp_admissions(self) -> dict[tuple[str, str], Admission]:
        """Return how bodies are received at the TPP face: forms of ``form_octets`` at most, larger ones are not read."""
        return {route: self._form for route in self.tpp_routes() if route[0] == "POST"}

    def lfi_routes(self) -> Routes:
        """Return the handlers of the LFI face (Headless Heimdall without ``hello-mtls``)."""
        heimdall = self._heimdall
        return {
            ("GET", "/auth"): heimdall.auth,
            ("POST", "/auth/{interactionId}/doConfirm"): heimdall.confirm,
            ("POST", "/auth/{interactionId}/doFail"): heimdall.fail,
        }
