"""The matrix: every check of the authorization server, and where it applies.

Theory. A row is one pure function ``(facts) -> Fault | None`` with the columns it applies to, a phase and its source.
``run`` walks the rows of a phase top down and stops at the first fault. There are two phases: IDENTIFY says who calls
(after it the single-use identifiers are claimed), REQUEST says whether they may have what they ask for. Discovery, the
explanations behind ``error_uri`` and the tests are derived from this table, so that none of them can drift from it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from hub.authz import client_checks as client
from hub.authz import detail_checks as detail
from hub.authz import interaction_checks as interaction
from hub.authz import payment_checks as payment
from hub.authz import request_checks as request
from hub.authz import token_checks as token
from hub.authz.facts import CLIENT, TOKEN, Column, Facts
from hub.model.fault import Fault

Check = Callable[[Facts], Fault | None]


class Phase(StrEnum):
    """Say when a row runs: before or after the single-use identifiers are claimed."""

    IDENTIFY = "identify"
    REQUEST = "request"


class Row(msgspec.Struct, frozen=True):
    """Hold one row: the check's stable name, the function, its phase, its columns and its source."""

    name: str
    check: Check
    phase: Phase
    columns: frozenset[Column]
    source: str


def _row(name: str, check: Check, columns: frozenset[Column], source: str) -> Row:
    return Row(name, check, Phase.REQUEST, columns, source)


def _identify(name: str, check: Check, source: str, columns: frozenset[Column] = CLIENT) -> Row:
    return Row(name, check, Phase.IDENTIFY, columns, source)


_PAR: Final = frozenset({Column.PAR})
_CODE: Final = frozenset({Column.CODE})
_REFRESH: Final = frozenset({Column.REFRESH})
_GRANT: Final = _CODE | _REFRESH
_CREDENTIALS: Final = frozenset({Column.CREDENTIALS})
_AUTHORIZE: Final = frozenset({Column.AUTHORIZE})
_FINISH: Final = frozenset({Column.FINISH})
_TOKENS: Final = frozenset({Column.REVOKE, Column.INTROSPECT})

MATRIX: Final[tuple[Row, ...]] = (
    _identify("form.readable", client.form_readable, "RFC 6749 3.2"),
    _identify("trust", client.trust, "FAPI 2.0 5.2.2; RFC 8705 2; Trust Framework"),
    _identify("client.single_method", client.client_single_method, "RFC 6749 2.3"),
    _identify("client_assertion.present", client.client_assertion_present, "RFC 7521 4.2"),
    _identify("client_assertion.well_formed", client.client_assertion_well_formed, "RFC 7515 5.2"),
    _identify("client_assertion.typ", client.client_assertion_typ, "RFC 8725 3.11"),
    _identify("client_assertion.purpose", client.client_assertion_purpose, "RFC 9101 10.8"),
    _identify("client_assertion.client", client.client_assertion_client, "RFC 7523 3"),
    _identify("client_id.matches", client.client_id_matches, "RFC 7521 4.2"),
    _identify("client_assertion.audience", client.client_assertion_audience, "FAPI 2.0 5.3.2.1-8"),
    _identify("client_assertion.jti", client.client_assertion_jti, "OIDC Core 9"),
    _identify("client_assertion.lifetime", client.client_assertion_lifetime, "RFC 7523 3"),
    _identify("client_assertion.algorithm", client.client_assertion_algorithm, "FAPI 2.0 5.4.1"),
    _identify("client_assertion.key", client.client_assertion_key, "FAPI 2.0 5.4.2"),
    _identify("client_assertion.signature", client.client_assertion_signature, "RFC 7523 3"),
    _identify("dpop.proof", client.dpop_proof, "RFC 9449 4.3", TOKEN | _PAR),
    _identify("dpop.required", client.dpop_required, "RFC 9449 5", _GRANT | _CREDENTIALS),
    _row("client.role", token.role_allows, TOKEN | _PAR, "decisions 1"),
    _row("grant.type", token.grant_type, frozenset({Column.OTHER_GRANT}), "RFC 6749 5.2"),
    _row("grant.no_details", token.no_details, TOKEN, "RFC 9396 6"),
    _row("request.present", request.request_present, _PAR, "RFC 9126 2.1; FAPI MS 5.3.1"),
    _row("request.well_formed", request.request_well_formed, _PAR, "RFC 9101 6"),
    _row("request.typ", request.request_typ, _PAR, "FAPI MS 5.3.1"),
    _row("request.algorithm", request.request_algorithm, _PAR, "FAPI 2.0 5.4.1"),
    _row("request.key", request.request_key, _PAR, "FAPI MS 5.3.1"),
    _row("request.signature", request.request_signature, _PAR, "RFC 9101 6.2"),
    _row("request.client", request.request_client, _PAR, "RFC 9101 5; RFC 9126 3"),
    _row("request.audience", request.request_audience, _PAR, "FAPI MS 5.3.1"),
    _row("request.window", request.request_window, _PAR, "FAPI MS 5.3.1; UAE profile 2.1"),
    _row("request.not_nested", request.request_not_nested, _PAR, "RFC 9101 4"),
    _row("request.jti", request.request_jti, _PAR, "RFC 9101 10.2"),
    _row("request.response_type", request.response_type, _PAR, "FAPI 2.0 5.3.2.2"),
    _row("request.response_mode", request.response_mode, _PAR, "UAE profile 2.1; JARM 2.3"),
    _row("request.redirect_uri", request.redirect_uri, _PAR, "FAPI 2.0 5.3.2.2"),
    _row("request.pkce", request.pkce, _PAR, "RFC 7636 4.3"),
    _row("request.scope", request.request_scope, _PAR, "RFC 6749 3.3"),
    _row("request.state_and_nonce", request.state_and_nonce, _PAR, "FAPI 2.0 5.3.2.2"),
    _row("request.max_age", request.max_age, _PAR, "OIDC Core 3.1.2.1; UAE profile"),
    _row("request.prompt", request.prompt, _PAR, "OIDC Core 3.1.2.1"),
    _row("request.shapes", request.request_shapes, _PAR, "OIDC Core 5.5"),
    _row("request.dpop_jkt", request.dpop_jkt, _PAR, "RFC 9449 10"),
    _row("detail.single", detail.detail_single, _PAR, "RFC 9396 2; UAE profile 2.1"),
    _row("detail.type", detail.detail_type, _PAR, "RFC 9396 5"),
    _row("detail.scope", detail.detail_scope, _PAR, "UAE scopes"),
    _row("detail.schema", detail.detail_schema, _PAR, "RFC 9396 5"),
    _row("detail.expiry", detail.detail_expiry, _PAR, "UAE consent rules"),
    _row(
        "detail.authorization_expiry", detail.detail_authorization_expiry, _PAR, "UAE consent rules"
    ),
    _row("detail.permissions", detail.detail_permissions, _PAR, "UAE consent rules"),
    _row("detail.subscription", detail.detail_subscription, _PAR, "decisions 2"),
    _row("payment.schedule", payment.payment_schedule, _PAR, "UAE payment consent rules"),
    _row("payment.amounts", payment.payment_amounts, _PAR, "UAE payment consent rules"),
    _row("payment.dates", payment.payment_dates, _PAR, "UAE payment consent rules"),
    _row("payment.limits", payment.payment_limits, _PAR, "UAE payment consent rules"),
    _row("payment.purpose", payment.payment_purpose, _PAR, "AANI purpose codes"),
    _row("payment.pii", payment.payment_pii, _PAR, "UAE message encryption"),
    _row("detail.base", detail.detail_base, _PAR, "decisions 2"),
    _row("detail.consent_id", detail.detail_consent_id, _PAR, "UAE consent rules"),
    _row("code.present", token.code_present, _CODE, "RFC 6749 4.1.3"),
    _row("code.known", token.code_known, _CODE, "RFC 6749 5.2"),
    _row("code.unused", token.code_unused, _CODE, "RFC 6749 4.1.2"),
    _row("code.fresh", token.code_fresh, _CODE, "FAPI 2.0 5.3.2.1"),
    _row("code.redirect_uri", token.code_redirect_uri, _CODE, "RFC 6749 4.1.3"),
    _row("code.verifier", token.code_verifier, _CODE, "RFC 7636 4.6"),
    _row("code.key", token.code_key, _CODE, "RFC 9449 10"),
    _row("refresh.present", token.refresh_present, _REFRESH, "RFC 6749 6"),
    _row("refresh.known", token.refresh_known, _REFRESH, "RFC 6749 6"),
    _row("refresh.alive", token.refresh_alive, _REFRESH, "RFC 6749 6"),
    _row("refresh.key", token.refresh_key, _REFRESH, "RFC 9449 5"),
    _row("refresh.scope", token.refresh_scope, _REFRESH, "RFC 6749 6"),
    _row("grant.alive", token.grant_alive, _GRANT, "RFC 6749 4.1.2"),
    _row("grant.consent", token.grant_consent, _GRANT, "decisions 1"),
    _row("credentials.scope", token.credentials_scope, _CREDENTIALS, "RFC 6749 4.4.2; decisions 1"),
    _row("token.present", token.token_present, _TOKENS, "RFC 7009 2.1; RFC 7662 2.1"),
    _row("token.owner", token.token_owner, frozenset({Column.REVOKE}), "RFC 7009 2.1"),
    _row("authorize.readable", interaction.query_readable, _AUTHORIZE, "RFC 6749 3.1"),
    _row("authorize.client", interaction.client_known, _AUTHORIZE, "RFC 9126 4"),
    _row("authorize.pushed", interaction.pushed_known, _AUTHORIZE, "RFC 9126 4"),
    _row("authorize.pushed_client", interaction.pushed_client, _AUTHORIZE, "RFC 9126 4"),
    _row("authorize.usable", interaction.pushed_usable, _AUTHORIZE, "RFC 9126 7.3"),
    _row("authorize.consent", interaction.consent_awaits, _AUTHORIZE, "decisions 1"),
    _row("authorize.prompt", interaction.prompt_possible, _AUTHORIZE, "OIDC Core 3.1.2.1"),
    _row("finish.interaction", interaction.interaction_usable, _FINISH, "decisions 1"),
)


def run(facts: Facts, phase: Phase) -> Fault | None:
    """Walk the rows of a phase for the facts' column; return the first fault."""
    for row in MATRIX:
        if facts.by_certificate and row.name.startswith("client_assertion."):
            continue
        if row.phase is phase and facts.column in row.columns:
            fault = row.check(facts)
            if fault is not None:
                return fault
    return None
