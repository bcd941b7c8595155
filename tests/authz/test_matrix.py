"""Each cell of the matrix has a refusing example; what accepts is the chain (test_chain) and the edges below."""

import json
from pathlib import Path

import msgspec
import orjson
import pytest

from hub.authz.explanations import explain
from hub.authz.facts import Column
from hub.authz.steps import MATRIX
from hub.model.caller import NOBODY
from hub.model.consent import Consent, Status
from hub.model.event import Event, Kind
from hub.model.fault import caller_fault
from hub.model.records import Grant, RefreshToken, Setting, digest_of
from hub.protocol import jose
from hub.state.group import group_named
from hub.state.keeper import Put, Query
from tests.authz.desk import (
    ALICE,
    BOB,
    CONSENT_ID,
    DPOP_KEY,
    ISSUER,
    KEYS,
    NOW,
    PIS,
    REDIRECT,
    VERIFIER,
    callback,
    caller,
    peer,
    refused,
    rsa_key,
)

CREDENTIALS = {"grant_type": "client_credentials", "scope": "openid accounts"}
OTHER_ID = "0b7f6d0e-6d0b-4a50-9a53-0c8a3c1f7a99"

IDENTIFY_FORMS = {
    "client.single_method": (400, "invalid_request", {"client_secret": "x"}),
    "client_assertion.present": (401, "invalid_client", {"client_assertion": None}),
    "client_assertion.well_formed": (401, "invalid_client", {"client_assertion": "a.b.c"}),
    "client_id.matches": (401, "invalid_client", {"client_id": BOB}),
}
IDENTIFY_CLAIMS = {
    "client_assertion.typ": {"typ": "dpop+jwt"},
    "client_assertion.purpose": {"response_type": "code"},
    "client_assertion.client": {"sub": None},
    "client_assertion.audience": {"aud": ISSUER + "/"},
    "client_assertion.jti": {"jti": None},
    "client_assertion.lifetime": {"exp": NOW - 300},
    "client_assertion.algorithm": {"alg": "ES256"},
    "client_assertion.key": {"header": {"kid": "unknown"}},
    "client_assertion.signature": {"key": "forged"},
}
ENDPOINTS = {
    Column.PAR: "/par",
    Column.CODE: "/token",
    Column.REFRESH: "/token",
    Column.CREDENTIALS: "/token",
    Column.OTHER_GRANT: "/token",
    Column.REVOKE: "/token/revoke",
    Column.INTROSPECT: "/introspection",
}
FORMS = {
    Column.PAR: {},
    Column.CODE: {"grant_type": "authorization_code", "code": "c"},
    Column.REFRESH: {"grant_type": "refresh_token", "refresh_token": "r"},
    Column.CREDENTIALS: CREDENTIALS,
    Column.OTHER_GRANT: {"grant_type": "password"},
    Column.REVOKE: {"token": "t"},
    Column.INTROSPECT: {"token": "t"},
}
IDENTIFY = [row for row in MATRIX if row.phase == "identify"]


def bad_assertion(desk, check):
    changes = dict(IDENTIFY_CLAIMS[check])
    if changes.get("key") == "forged":
        changes["key"] = jose.PrivateKey(kid="alice-1", key=rsa_key("x").key)
    if changes.get("alg") == "ES256":
        changes["key"] = DPOP_KEY
    return desk.assertion(**changes)


@pytest.mark.parametrize(
    ("check", "column"),
    [(row.name, column) for row in IDENTIFY for column in sorted(row.columns)],
)
async def test_who_calls_is_checked_everywhere(desk, check, column):
    path, form = ENDPOINTS[column], FORMS[column]
    who, headers, status, error, expected = ALICE, (), 401, "invalid_client", check
    body = None
    if check == "form.readable":
        body, status, error = b"a=1&a=2", 400, "invalid_request"
    elif check == "trust":
        who, expected = NOBODY, "trust.certificate_missing"
    elif check in IDENTIFY_FORMS:
        status, error, changes = IDENTIFY_FORMS[check]
        form = form | changes
    elif check == "dpop.proof":
        headers, status, error = ((b"dpop", b"nonsense"),), 400, "invalid_dpop_proof"
    elif check == "dpop.required":
        desk.trust.callers[ALICE] = caller(ALICE, "o", dpop_bound=True)
        status, error = 400, "invalid_dpop_proof"
    else:
        form = form | {"client_assertion": bad_assertion(desk, check)}
    full = desk.signed(**form) if body is None else {}
    headers += ((b"content-type", b"application/x-www-form-urlencoded"),)
    response = await desk.post(path, full, who=who, headers=headers, body=body)
    refused(response, error, status, expected)


PAR_CLAIMS = {
    "request.client": [{"client_id": BOB}, {"client_id": None}, {"iss": BOB}],
    "request.audience": [{"aud": "https://other.example"}, {"aud": [ISSUER]}, {"aud": None}],
    "request.window": [
        {"exp": None},
        {"nbf": None},
        {"exp": NOW - 1},
        {"exp": NOW + 601},
        {"nbf": NOW - 601},
        {"nbf": NOW + 31},
    ],
    "request.not_nested": [{"request_uri": "urn:x"}, {"request": "a.b.c"}],
    "request.response_type": [
        {"response_type": "code id_token"},
        {"response_type": "token"},
        {"response_type": None},
        {"response_type": "code code"},
    ],
    "request.response_mode": [{"response_mode": "fragment"}, {"response_mode": "jwt"}],
    "request.redirect_uri": [
        {"redirect_uri": None},
        {"redirect_uri": REDIRECT + "&x=1"},
        {"redirect_uri": REDIRECT.upper()},
        {"redirect_uri": "https://evil@tpp.example/cb"},
        {"redirect_uri": [REDIRECT]},
    ],
    "request.pkce": [
        {"code_challenge": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},
        {"code_challenge": "A" * 42},
        {"code_challenge": "A" * 43 + "="},
    ],
    "request.scope": [
        {"scope": None},
        {"scope": "accounts"},
        {"scope": "openid accounts unknown"},
        {"scope": "openid accounts accounts"},
        {"scope": "openid\taccounts"},
        {"scope": "openid accounts products"},
    ],
    "request.state_and_nonce": [{"state": 5}, {"nonce": "n" * 4097}],
    "request.max_age": [{"max_age": 3601}, {"max_age": -1}, {"max_age": "9"}, {"max_age": True}],
    "request.prompt": [{"prompt": "none login"}, {"prompt": "nonsense"}, {"prompt": 1}],
    "request.shapes": [{"claims": "text"}, {"login_hint": 5}],
    "request.dpop_jkt": [{"dpop_jkt": "short"}],
    "detail.single": [
        {"authorization_details": None},
        {"authorization_details": []},
        {"authorization_details": {}},
        {"authorization_details": [{}, {}]},
        {"authorization_details": ["text"]},
        {"authorization_details": [{"type": 1}]},
    ],
    "detail.type": [
        {"authorization_details": [{"type": "urn:openfinanceuae:account-access-consent:v1.2"}]}
    ],
    "detail.schema": [
        {
            "authorization_details": [
                {"type": "urn:openfinanceuae:account-access-consent:v2.1", "consent": 5}
            ]
        }
    ],
}
PAR_ERRORS = {
    "request.response_type": "unsupported_response_type",
    "request.scope": "invalid_scope",
    "request.dpop_jkt": "invalid_dpop_proof",
}
OBJECT = {"client", "audience", "window", "not_nested"}


def error_of(check):
    if check in PAR_ERRORS:
        return PAR_ERRORS[check]
    if check.startswith(("detail.", "payment.")):
        return "invalid_authorization_details"
    return "invalid_request_object" if check.partition(".")[2] in OBJECT else "invalid_request"


@pytest.mark.parametrize(
    ("check", "claims"),
    [
        pytest.param(check, claims, id=f"{check}-{i}")
        for check, several in PAR_CLAIMS.items()
        for i, claims in enumerate(several)
    ],
)
async def test_a_bad_parameter_is_refused_at_par(desk, check, claims):
    refused(await desk.par(**claims), error_of(check), 400, check)


@pytest.mark.parametrize("uri", ["http://tpp.example/cb", REDIRECT + "#there"])
async def test_a_code_is_never_sent_in_the_open_even_if_that_is_registered(desk, uri):
    desk.trust.callers[ALICE] = caller(ALICE, "o", redirect_uris=(REDIRECT, uri))
    why = refused(await desk.par(redirect_uri=uri), "invalid_request", 400, "request.redirect_uri")
    assert "https" in why
    assert (await desk.par()).status == 201


async def test_a_number_that_nobody_can_store_is_refused_though_its_claim_means_nothing(desk):
    text = json.dumps(desk.claims(anything=1 << 70))
    response = await desk.par(form={"request": jose.sign(text.encode(), KEYS[ALICE])})
    refused(response, "invalid_request_object", 400, "request.well_formed")


PAYMENT = {
    "ControlParameters": {
        "ConsentSchedule": {
            "SinglePayment": {
                "Type": "SingleInstantPayment",
                "Amount": {"Amount": "1.00", "Currency": "AED"},
            }
        }
    },
    "PersonalIdentifiableInformation": jose.b64url(b'{"alg":"RSA-OAEP-256","enc":"A256GCM"}')
    + ".a.b.c.d",
    "PaymentPurposeCode": "ACM",
    "Permissions": None,
    "OpenFinanceBilling": None,
}


def schedule(**kinds):
    return {"ControlParameters": {"ConsentSchedule": kinds}}


def single(**amount):
    amount = {"Amount": "1.00", "Currency": "AED"} | amount
    return schedule(SinglePayment={"Type": "SingleInstantPayment", "Amount": amount})


def defined(*days):
    entries = [
        {"PaymentExecutionDate": day, "Amount": {"Amount": "1.00", "Currency": "AED"}}
        for day in days
    ]
    periodic = {"Type": "FixedDefinedSchedule", "Schedule": entries}
    return schedule(MultiPayment={"PeriodicSchedule": periodic})


def aed(text):
    return {"Amount": text, "Currency": "AED"}


def bounded(one, period="", total=""):
    controls = {"MaximumIndividualAmount": aed(one)}
    if period:
        controls["MaximumCumulativeValueOfPaymentsPerPeriod"] = aed(period)
    plan = {"Type": "VariableOnDemand", "PeriodType": "Month", "PeriodStartDate": "2026-12-31"}
    kind = schedule(MultiPayment={"PeriodicSchedule": {**plan, "Controls": controls}})
    return total_of(kind, total) if total else kind


def total_of(kind, total):
    multi = kind["ControlParameters"]["ConsentSchedule"]["MultiPayment"]
    return schedule(MultiPayment={**multi, "MaximumCumulativeValueOfPayments": aed(total)})


DETAILS = [
    ("detail.expiry", {"ExpirationDateTime": "2026-01-01T00:00:00Z"}),
    ("detail.expiry", {"ExpirationDateTime": "2028-01-01T00:00:00Z"}),
    ("detail.expiry", {"ExpirationDateTime": "2026-12-31T20:00:00"}),
    ("detail.expiry", {"ExpirationDateTime": 5}),
    ("detail.authorization_expiry", {"AuthorizationExpirationDateTime": "2027-01-01T00:00:00Z"}),
    ("detail.permissions", {"Permissions": ["ReadBalances"]}),
    ("detail.consent_id", {"ConsentId": "not-a-uuid"}),
    ("detail.consent_id", {"ConsentId": CONSENT_ID.replace("-4a50", "-1a50")}),
    ("detail.consent_id", {"ConsentId": CONSENT_ID.replace("0b7f", "0B7f")}),
]
PAYMENT_DETAILS = [
    ("payment.schedule", schedule()),
    ("payment.schedule", {"ControlParameters": {}}),
    ("payment.schedule", schedule(SinglePayment={}, FilePayment={})),
    (
        "payment.schedule",
        schedule(MultiPayment={"PeriodicSchedule": {"Type": "FixedPeriodicSchedule"}}),
    ),
    ("payment.amounts", single(Currency="EUR")),
    ("payment.amounts", single(Amount="0.00")),
    ("payment.amounts", schedule(FilePayment={"NumberOfTransactions": 0})),
    ("payment.amounts", schedule(MultiPayment={"MaximumCumulativeNumberOfPayments": 2**31})),
    ("payment.dates", defined("2026-12-01", "2026-12-02")),
    ("payment.dates", defined("2027-01-01", "2027-01-01")),
    ("payment.dates", schedule(FilePayment={"RequestedExecutionDate": "2020-01-01"})),
    ("payment.dates", schedule(FilePayment={"RequestedExecutionDate": "2026-11-18"})),
    (
        "payment.dates",
        schedule(MultiPayment={"PeriodicSchedule": {"PeriodStartDate": "2028-01-01"}}),
    ),
    ("payment.dates", schedule(FilePayment={"RequestedExecutionDate": "2030-01-01"})),
    ("payment.limits", bounded("5.01", period="5.00")),
    ("payment.limits", bounded("5.00", total="4.99")),
    ("payment.limits", bounded("5.00", period="6.00", total="5.99")),
    ("payment.limits", total_of(defined("2026-12-31", "2027-01-01"), "1.99")),
    ("payment.limits", schedule(SinglePayment={"Type": "SingleFutureDatedPayment"})),
    ("payment.purpose", {"PaymentPurposeCode": "XXX"}),
    ("payment.pii", {"PersonalIdentifiableInformation": {}}),
    ("payment.pii", {"PersonalIdentifiableInformation": "a.b.c.d.e"}),
    ("detail.permissions", {"Permissions": ["ReadBalances"]}),
]


@pytest.mark.parametrize(("check", "changes"), DETAILS)
async def test_a_bad_consent_is_refused_at_par(desk, check, changes):
    response = await desk.par(authorization_details=[desk.detail(**changes)])
    refused(response, "invalid_authorization_details", 400, check)


@pytest.mark.parametrize(("check", "changes"), PAYMENT_DETAILS)
async def test_a_bad_payment_consent_is_refused_at_par(desk, check, changes):
    detail = desk.detail(PIS, **(PAYMENT | changes))
    scope = "openid payments accounts"
    response = await desk.par(scope=scope, authorization_details=[detail])
    refused(response, "invalid_authorization_details", 400, check)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        defined("2026-12-01", "2027-01-01"),
        schedule(FilePayment={"ControlSum": "5.00", "RequestedExecutionDate": "2026-11-19"}),
        {"ControlParameters": {"IsDelegatedAuthentication": True, "ConsentSchedule": {}}},
        {"AuthorizationExpirationDateTime": "2026-12-31T20:00:00Z"},
        bounded("5.00", period="5.00", total="5.00"),
        total_of(defined("2026-12-31", "2027-01-01"), "2.00"),
    ],
)
async def test_a_good_payment_consent_is_accepted(desk, changes):
    detail = desk.detail(PIS, **(PAYMENT | changes))
    response = await desk.par(scope="openid payments", authorization_details=[detail])
    assert response.status == 201, response.body


async def test_the_scope_must_fit_the_type(desk):
    response = await desk.par(scope="openid payments")
    refused(response, "invalid_scope", 400, "detail.scope")
    detail = desk.detail(PIS, **(PAYMENT | {"Permissions": ["ReadAccountsBasic"]}))
    response = await desk.par(scope="openid payments", authorization_details=[detail])
    refused(response, "invalid_scope", 400, "detail.scope")


async def test_the_schema_of_the_contract_decides(desk_with):
    fault = caller_fault(400, "x", "consent/Permissions: too few", check="schema", path="/consent")
    desk = desk_with(details_check=lambda _type, _element: fault)
    why = refused(await desk.par(), "invalid_authorization_details", 400, "detail.schema")
    assert "Permissions: too few" in why


async def test_what_stands_before_the_schema_takes_whatever_is_there(desk_with):
    fault = caller_fault(400, "x", "consent/Permissions/0: a text", check="schema")
    desk = desk_with(details_check=lambda _type, _element: fault, switches={"jarm": True})
    for odd in ([["ReadBalances"]], [{}], {"a": 1}):
        detail = desk.detail(PIS, **(PAYMENT | {"Permissions": odd}))
        response = await desk.par(scope="openid payments", authorization_details=[detail])
        refused(response, "invalid_authorization_details", 400, "detail.schema")
    for odd in (["jwt"], {"jwt": 1}):
        response = await desk.par(response_mode=odd)
        refused(response, "invalid_request", 400, "request.response_mode")


async def test_a_type_of_another_role_is_refused(desk):
    desk.trust.callers[ALICE] = caller(ALICE, "o", roles=("BSIP",))
    refused(await desk.par(), "invalid_authorization_details", 400, "detail.type")


async def test_a_client_without_a_role_is_refused(desk):
    desk.trust.callers[ALICE] = caller(ALICE, "o", roles=())
    refused(await desk.par(), "unauthorized_client", 400, "client.role")
    for form in (FORMS[Column.CODE], FORMS[Column.REFRESH], CREDENTIALS):
        response = await desk.token(**form)
        refused(response, "unauthorized_client", 400, "client.role")


@pytest.mark.parametrize("text", ["passport N1234567 of a Mr John Smith", "\n" * 36])
async def test_what_is_no_consent_id_is_not_recorded_as_one(desk, text):
    assert len(text) == 36
    response = await desk.par(authorization_details=[desk.detail(ConsentId=text)])
    refused(response, "invalid_authorization_details", 400, "detail.consent_id")
    assert ["consent_id" in event for event in await desk.events()] == [False]


async def test_a_used_consent_id_is_refused(desk):
    await desk.pushed()
    refused(await desk.par(), "invalid_authorization_details", 400, "detail.consent_id")


@pytest.mark.parametrize("first", [str.lower, str.upper])
async def test_a_consent_id_that_is_used_is_refused_in_either_case(desk, first):
    """A UUID is the same in both (RFC 9562 section 4); a bank that stores it as one would take two consents for one."""
    one = first(CONSENT_ID)
    assert (await desk.par(authorization_details=[desk.detail(ConsentId=one)])).status == 201
    response = await desk.par(authorization_details=[desk.detail(ConsentId=one.swapcase())])
    refused(response, "invalid_authorization_details", 400, "detail.consent_id")


async def test_a_base_consent_is_found_in_either_case_and_its_group_has_one_name(desk):
    await desk.pushed()
    chained = desk.detail(ConsentId=OTHER_ID, BaseConsentId=CONSENT_ID.upper())
    response = await desk.par(BOB, authorization_details=[chained])
    refused(response, "invalid_authorization_details", 400, "detail.base")
    assert (await desk.par(authorization_details=[chained])).status == 201
    consent, _ = await desk.keeper.lookup(Consent, OTHER_ID)
    assert consent.group_id == CONSENT_ID


async def test_an_unknown_base_consent_opens_a_group_and_a_known_one_must_be_ours(desk):
    base = [desk.detail(BaseConsentId=OTHER_ID)]
    assert (await desk.par(authorization_details=base)).status == 201
    inner = desk.detail(ConsentId=OTHER_ID.replace("99", "98"), BaseConsentId=CONSENT_ID)
    response = await desk.par(authorization_details=[inner])
    refused(response, "invalid_authorization_details", 400, "detail.base")
    root = desk.detail(ConsentId=OTHER_ID)
    assert (await desk.par(authorization_details=[root])).status == 201
    foreign = desk.detail(ConsentId=OTHER_ID.replace("99", "97"), BaseConsentId=OTHER_ID)
    response = await desk.par(BOB, authorization_details=[foreign])
    refused(response, "invalid_authorization_details", 400, "detail.base")
    assert (await desk.par(authorization_details=[foreign])).status == 201


async def test_a_group_that_an_unknown_base_consent_opened_has_one_name(desk):
    """It is a UUID, and the same in either case of its letters (RFC 9562 section 4)."""
    base = OTHER_ID.replace("99", "9a")
    for end, spelt in (("95", base.upper()), ("96", base), ("97", base.upper())):
        detail = desk.detail(ConsentId=OTHER_ID.replace("99", end), BaseConsentId=spelt)
        assert (await desk.par(authorization_details=[detail])).status == 201
    for asked in (base, base.upper()):
        assert await group_named(desk.keeper, asked) == base.upper()
    page = await desk.keeper.search(Query(kind="consent", where=(("group", base.upper()),)))
    assert len(page.items) == 3
    assert {item.record.body["Data"]["BaseConsentId"] for item in page.items} == {
        base,
        base.upper(),
    }


@pytest.mark.parametrize("url", ["http://tpp.example/hook", "https://tpp.example/other"])
async def test_an_active_webhook_must_be_https_and_registered(desk, url):
    subscription = {"Webhook": {"Url": url, "IsActive": True}}
    response = await desk.par(authorization_details=[desk.detail(subscription=subscription)])
    refused(response, "invalid_authorization_details", 400, "detail.subscription")


async def test_a_webhook_needs_an_encryption_key_only_when_active(desk):
    hook = {"Webhook": {"Url": "https://tpp.example/hook", "IsActive": True}}
    response = await desk.par(authorization_details=[desk.detail(subscription=hook)])
    refused(response, "invalid_authorization_details", 400, "detail.subscription")
    desk.trust.encryption = jose.load_key(jose.public_jwk(KEYS[ALICE], use="enc", alg=""))
    assert (await desk.par(authorization_details=[desk.detail(subscription=hook)])).status == 201
    quiet = {"Webhook": {"Url": "http://localhost/x", "IsActive": False}}
    detail = desk.detail(subscription=quiet, ConsentId=OTHER_ID)
    assert (await desk.par(authorization_details=[detail])).status == 201


@pytest.mark.parametrize(
    ("check", "error", "form"),
    [
        ("request.present", "invalid_request", {"request": None, "scope": "openid"}),
        ("request.present", "invalid_request", {"request_uri": "urn:x"}),
        ("request.well_formed", "invalid_request_object", {"request": "a.b.c"}),
    ],
)
async def test_a_request_must_be_a_signed_object(desk, check, error, form):
    refused(await desk.par(form=form), error, 400, check)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("request.typ", {"typ": "dpop+jwt"}),
        ("request.typ", {"typ": "at+jwt"}),
        ("request.typ", {"typ": "client-authentication+jwt"}),
        ("request.key", {"header": {"kid": "none"}}),
        ("request.signature", {"key": jose.PrivateKey(kid="alice-1", key=KEYS[BOB].key)}),
        ("request.algorithm", {"alg": "ES256"}),
    ],
)
async def test_a_badly_signed_object_is_refused(desk, check, changes):
    key = DPOP_KEY if changes.get("alg") else KEYS[ALICE]
    token = jose.sign(desk.claims(), **({"key": key} | changes))
    refused(await desk.par(form={"request": token}), "invalid_request_object", 400, check)


async def test_a_request_objects_jti_is_burnt_by_success_only(desk):
    refused(await desk.par(jti="once", scope="accounts"), "invalid_scope")
    assert (await desk.par(jti="once")).status == 201
    detail = [desk.detail(ConsentId=OTHER_ID)]
    response = await desk.par(jti="once", authorization_details=detail)
    refused(response, "invalid_request_object", 400, "request.jti")
    assert (await desk.par(BOB, jti="once", authorization_details=detail)).status == 201


async def test_a_long_jti_is_refused(desk):
    refused(await desk.par(jti="j" * 257), "invalid_request_object", 400, "request.jti")


async def test_it_is_noted_that_the_file_of_a_consent_is_awaited_and_nothing_of_other_consents(
    desk,
):
    for name, what in ((CONSENT_ID, schedule(FilePayment={"ControlSum": "5.00"})), (OTHER_ID, {})):
        detail = desk.detail(PIS, ConsentId=name, **(PAYMENT | what))
        assert (
            await desk.par(scope="openid payments", authorization_details=[detail])
        ).status == 201
    note, _ = await desk.keeper.lookup(Setting, f"payment.file:{CONSENT_ID}")
    assert note.value == b"awaited"
    assert await desk.keeper.lookup(Setting, f"payment.file:{OTHER_ID}") is None


async def test_a_request_objects_jti_is_remembered_for_as_long_as_the_object_could_live(desk):
    ahead = desk.clock.now() + 30
    object_ = jose.sign(desk.claims(jti="late", nbf=ahead, exp=ahead + 600), KEYS[ALICE])
    assert (await desk.par(form={"request": object_})).status == 201
    desk.clock.advance(629)
    response = await desk.par(form={"request": object_})
    refused(response, "invalid_request_object", 400, "request.jti")
    desk.clock.advance(1)
    response = await desk.par(form={"request": object_})
    refused(response, "invalid_request_object", 400, "request.window")


TOKEN = [
    ("grant.type", "unsupported_grant_type", {"grant_type": "password"}),
    ("grant.type", "unsupported_grant_type", {"grant_type": "implicit"}),
    ("grant.type", "invalid_request", {"grant_type": None}),
    ("code.present", "invalid_request", {"code": None}),
    ("code.known", "invalid_grant", {"code": "unknown"}),
    ("code.redirect_uri", "invalid_grant", {"redirect_uri": "https://tpp.example/cb"}),
    ("code.redirect_uri", "invalid_grant", {"redirect_uri": None}),
    ("code.verifier", "invalid_grant", {"code_verifier": None}),
    ("code.verifier", "invalid_grant", {"code_verifier": "w" * 50}),
    ("code.verifier", "invalid_grant", {"code_verifier": VERIFIER + "\x00"}),
]


@pytest.mark.parametrize(("check", "error", "changes"), TOKEN)
async def test_a_failed_redemption_does_not_burn_the_code(desk, check, error, changes):
    code = await desk.code()
    refused(await desk.redeem(code, **changes), error, 400, check)
    assert (await desk.redeem(code)).status == 200


@pytest.mark.parametrize(
    "column", [Column.CODE, Column.REFRESH, Column.CREDENTIALS, Column.OTHER_GRANT]
)
async def test_a_token_request_cannot_bring_details(desk, column):
    response = await desk.token(**FORMS[column], authorization_details="[]")
    if column is Column.OTHER_GRANT:
        refused(response, "unsupported_grant_type", 400, "grant.type")
    else:
        refused(response, "invalid_authorization_details", 400, "grant.no_details")


REFRESH = [
    ("refresh.present", "invalid_request", {"refresh_token": None}),
    ("refresh.known", "invalid_grant", {"refresh_token": "unknown"}),
    ("refresh.scope", "invalid_scope", {"scope": "openid accounts payments"}),
]


@pytest.mark.parametrize(("check", "error", "changes"), REFRESH)
async def test_a_failed_refresh_leaves_the_refresh_token_alive(desk, check, error, changes):
    token = (await desk.tokens())["refresh_token"]
    refused(await desk.refresh(token, **changes), error, 400, check)
    assert (await desk.refresh(token, scope="accounts")).status == 200


async def test_a_suspended_consent_keeps_its_refresh_token_until_it_is_lifted(desk):
    token = (await desk.tokens())["refresh_token"]
    await desk.patch(status=Status.SUSPENDED)
    refused(await desk.refresh(token), "invalid_grant", 400, "grant.consent")
    await desk.patch(status=Status.AUTHORIZED)
    assert (await desk.refresh(token)).status == 200
    await desk.patch(status=Status.REVOKED)
    refused(await desk.refresh(token), "invalid_grant", 400, "grant.consent")


async def test_a_refresh_token_ends_with_its_consent(desk):
    token = (await desk.tokens())["refresh_token"]
    desk.clock.advance(44 * 86400)
    refused(await desk.refresh(token), "invalid_grant", 400, "refresh.alive")


async def test_a_replayed_code_ends_everything_it_gave(desk):
    code = await desk.code()
    response = await desk.redeem(code)
    tokens = orjson.loads(response.body)
    refused(await desk.redeem(code), "invalid_grant", 400, "code.unused")
    assert await desk.introspect(tokens["access_token"]) == {"active": False}
    refused(await desk.refresh(tokens["refresh_token"]), "invalid_grant", 400, "refresh.alive")
    refused(await desk.redeem(code), "invalid_grant", 400, "code.unused")


async def test_another_client_neither_redeems_nor_burns_a_code(desk):
    code = await desk.code()
    refused(await desk.redeem(code, BOB), "invalid_grant", 400, "code.known")
    response = await desk.redeem(code)
    assert response.status == 200
    refused(await desk.redeem(code, BOB), "invalid_grant", 400, "code.known")
    assert (await desk.introspect(orjson.loads(response.body)["access_token"]))["active"]


@pytest.mark.parametrize("scope", [None, "openid", "openid unknown", "accounts accounts", ""])
async def test_client_credentials_need_scopes_of_the_role(desk, scope):
    response = await desk.token(grant_type="client_credentials", scope=scope)
    refused(response, "invalid_scope", 400, "credentials.scope")


@pytest.mark.parametrize("path", ["/token/revoke", "/introspection"])
async def test_a_token_must_be_named(desk, path):
    refused(await desk.post(path, desk.signed()), "invalid_request", 400, "token.present")


async def test_a_foreign_token_is_neither_shown_nor_revoked(desk):
    body = await desk.tokens()
    for name in ("access_token", "refresh_token"):
        assert await desk.introspect(body[name], BOB) == {"active": False}
        form = desk.signed(BOB, token=body[name])
        response = await desk.post("/token/revoke", form, who=BOB)
        refused(response, "invalid_grant", 400, "token.owner")
    assert (await desk.introspect(body["access_token"]))["active"]


def covered():
    """Return each row that the examples of this file refuse by name."""
    text = Path(__file__).read_text()
    return {row.name for row in MATRIX if f'"{row.name}"' in text}


def test_every_check_has_a_refusing_example():
    assert {row.name for row in MATRIX} - covered() - ELSEWHERE == set()


ELSEWHERE = {
    # test_dpop
    "code.key",
    "refresh.key",
    # test_heimdall
    "authorize.readable",
    "authorize.client",
    "authorize.pushed",
    "authorize.pushed_client",
    "authorize.usable",
    "authorize.consent",
    "authorize.prompt",
    "finish.interaction",
    # test_conformance (the time limits)
    "code.fresh",
    # a revoked grant's tokens are revoked with it: test_a_revoked_grant_gives_nothing
    "grant.alive",
}


def test_every_check_explains_itself():
    names = [row.name for row in MATRIX]
    assert len(set(names)) == len(names)
    for row in MATRIX:
        assert explain(row.name).startswith("Expect ")
        assert row.source
    assert explain("unknown") is None


async def test_a_revoked_grant_gives_nothing(desk):
    token = (await desk.tokens())["refresh_token"]
    record, _ = await desk.keeper.lookup(RefreshToken, digest_of(token))
    grant, version = await desk.keeper.lookup(Grant, record.grant_id)
    ended = Put(msgspec.structs.replace(grant, revoked=NOW), expect=version)
    await desk.keeper.commit([ended], [Event(kind=Kind.TOKEN, time_ms=0)])
    refused(await desk.refresh(token), "invalid_grant", 400, "grant.alive")


async def test_a_renewed_certificate_of_the_same_client_may_refresh(desk):
    token = (await desk.tokens())["refresh_token"]
    response = await desk.refresh(token, who=peer(ALICE, "renewed"))
    assert response.status == 200


async def test_the_callback_keeps_the_registered_query(desk):
    response = await desk.confirm(await desk.interaction(await desk.pushed()))
    assert callback(response)["iss"] == ISSUER
