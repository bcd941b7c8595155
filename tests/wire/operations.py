"""What every operation of the gateway needs to be called: tokens of all kinds, ids, bodies; made once for a session.

``Known`` is made by one customer's consents. ``CASES`` says of each route how its lawful call looks; what is unlawful is
derived from the contract's row, so that a new row without a case is noticed.
"""

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jws
from joserfc.jwk import KeySet

from hub.sandbox.tpp import Answer, Ask, Callback, Pushed, Tokens, data_sharing_consent
from hub.sandbox.tpp.payment import PAYMENT_SCOPE, creditor, payment_consent, seal
from tests.wire.world import Actor, Sandbox, actor

EVERY_PERMISSION = (
    "ReadAccountsBasic", "ReadAccountsDetail", "ReadBalances", "ReadBeneficiariesBasic", "ReadBeneficiariesDetail",
    "ReadTransactionsBasic", "ReadTransactionsDetail", "ReadProduct", "ReadProductFinanceRates",
    "ReadScheduledPaymentsBasic", "ReadScheduledPaymentsDetail", "ReadDirectDebits", "ReadStandingOrdersBasic",
    "ReadStandingOrdersDetail", "ReadParty", "ReadPartyUser", "ReadPartyUserIdentity", "ReadStatements",
)  # fmt: skip
LIFE = 20 * 86_400
AMOUNT = "12.50"
SHOP = creditor("AE460261001234567891234", "Shop LLC")
INTERACTION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


CLIENT_SCOPES = (
    "openid accounts",
    "openid payments",
    "products",
    "atm",
    "confirmation-of-payee",
)
FILE = "amount,iban\n10.00,AE460261001234567891234\n20.00,AE460261001234567891234\n"
ACCOUNTS = "openid accounts"
PAYMENTS = "openid payments"
OWN_IBAN = "AE279900000100100000001"


class Known(msgspec.Struct, kw_only=True):
    """Hold what one preparation made; tokens live ten minutes.

    ``user`` is a token of a consent to everything, ``narrow`` and ``party`` of consents to little. ``payable`` and ``paid`` are a payment consent's id with its access token; ``poor`` is a consent without permissions.
    """

    user: str
    narrow: str
    party: str
    user_consent: str
    account: str
    revocable: str
    clients: dict[str, str]
    foreign: dict[str, str]
    bank_keys: dict[str, Any]
    hub_keys: dict[str, Any]
    payable: tuple[str, str] = ("", "")
    paid: tuple[str, str] = ("", "")
    poor: str = ""
    payment_revocable: str = ""
    payment_id: str = ""
    uploadable: str = ""
    filed: tuple[str, str] = ("", "")
    file_payable: tuple[str, str] = ("", "")
    file_payment_id: str = ""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Say how the lawful call of one operation looks, and what makes it unlawful.

    Attributes:
        token: Whose token; the user's by default.
        path: Parameters of the path.
        query: Parameters of the query.
        headers: Further headers.
        body: The body before it is signed.
        broken: Makes the body unlawful.
        content: Or a body that is sent as it is.
        bad_query: Parameters that are unlawful.
        poor: Token and path of a consent that lacks the permission.
        foreign: Token and path of somebody else's resource.
        refused: How that is answered: status and code.
    """

    token: Callable[[Known], str] = lambda k: k.user
    path: Callable[[Known], dict[str, str]] = lambda _: {}
    query: Callable[[Known], dict[str, str]] = lambda _: {}
    headers: Callable[[Known], dict[str, str]] = lambda _: {}
    body: Callable[[Known, Actor], Any] | None = None
    broken: Callable[[Any], Any] | None = None
    content: str = ""
    bad_query: dict[str, str] = {}
    poor: Callable[[Known], tuple[str, dict[str, str]]] | None = None
    foreign: Callable[[Known], tuple[str, dict[str, str]]] | None = None
    refused: tuple[int, str] = (0, "")


def without(*names: str) -> Callable[[Any], Any]:
    """Return what takes a member away."""

    def changed(body: Any) -> Any:
        copy = msgspec.json.decode(msgspec.json.encode(body))
        at = copy
        for name in names[:-1]:
            at = at[name]
        del at[names[-1]]
        return copy

    return changed


async def prepare(sandbox: Sandbox) -> Known:
    """Give every kind of consent once, and get every kind of token."""
    async with actor(sandbox) as tpp, actor(sandbox, 1) as other:
        clients = {scope: await client_token(tpp, scope) for scope in CLIENT_SCOPES}
        foreign = {s: await client_token(other, s) for s in ("openid accounts", "openid payments")}
        user, consent = await account_consent(tpp, EVERY_PERMISSION)
        narrow, _ = await account_consent(tpp, ("ReadAccountsBasic", "ReadProductFinanceRates"))
        party, _ = await account_consent(tpp, ("ReadParty",))
        known = Known(
            user=user,
            narrow=narrow,
            party=party,
            user_consent=consent,
            account=sandbox.manifest.customers[0].accounts[0],
            revocable=await pushed_account_consent(tpp),
            clients=clients,
            foreign=foreign,
            bank_keys=await bank_keys(tpp),
            hub_keys=await document(tpp, tpp.discovery.jwks_uri),
        )
        known.payable = await payment_consents(tpp, known, authorized=True)
        known.paid = await payment_consents(tpp, known, authorized=True)
        known.poor = (await payment_consents(tpp, known, authorized=False, permissions=()))[0]
        known.payment_revocable = (await payment_consents(tpp, known, authorized=False))[0]
        answer = await call(
            tpp, "POST", "/open-finance/payment/v2.1/payments", known.paid[1],
            headers={"x-idempotency-key": paid_key(known)}, body=payment(known, tpp, known.paid[0]), signed=True,
        )  # fmt: skip
        assert answer.status == 201, message_of(answer, known)
        known.payment_id = message_of(answer, known)["Data"]["PaymentId"]
        await prepare_files(tpp, known)
        return known


def paid_key(known: Known) -> str:
    """Return the key of the payment that was made before: one for each preparation, whatever sandbox they share."""
    return f"paid-{known.paid[0][:8]}"


def filed_key(known: Known) -> str:
    """Return the key of the file payment that was made before."""
    return f"filed-{known.filed[0][:8]}"


async def prepare_files(tpp: Actor, known: Known) -> None:
    """Announce files of payments, upload them, have them approved, and order one of them."""
    control = {"ConsentSchedule": {"FilePayment": file_object()}}
    known.uploadable = (await payment_consents(tpp, known, authorized=False, control=control))[0]
    known.filed = await payment_consents(tpp, known, authorized=True, control=control, upload=FILE)
    known.file_payable = await payment_consents(
        tpp, known, authorized=True, control=control, upload=FILE
    )
    answer = await call(
        tpp, "POST", "/open-finance/payment/v2.1/file-payments", known.filed[1],
        headers={"x-idempotency-key": filed_key(known)}, body=file_order(known.filed[0]), signed=True,
    )  # fmt: skip
    assert answer.status == 201, message_of(answer, known)
    known.file_payment_id = message_of(answer, known)["Data"]["PaymentId"]


def file_object() -> dict[str, Any]:
    """Return what a consent says of the file."""
    return {
        "FileType": "api-hub.test.csv",
        "FileHash": b64encode(sha256(FILE.encode()).digest()).decode(),
        "FileReference": "Salaries",
        "NumberOfTransactions": 2,
        "ControlSum": "30.00",
    }


def file_order(consent_id: str) -> dict[str, Any]:
    """Return the order of a file of payments."""
    return {
        "Data": {
            "ConsentId": consent_id,
            "Instruction": file_object(),
            "PaymentPurposeCode": "ACM",
        }
    }


async def client_token(tpp: Actor, scope: str) -> str:
    """Get a token of the TPP's own."""
    tokens = await tpp.tpp.client_credentials(tpp.discovery, scope)
    assert isinstance(tokens, Tokens), (scope, tokens)
    return tokens.access_token


async def document(tpp: Actor, url: str) -> Any:
    """Read a public document."""
    answer = await tpp.tpp.wire.carry(Ask(method="GET", url=url))
    assert answer.status == 200
    return msgspec.json.decode(answer.body)


async def bank_keys(tpp: Actor) -> dict[str, Any]:
    """Find the bank's key set by way of the participants: whose server is this issuer?"""
    directory = tpp.sandbox.manifest.directory
    for organisation in await document(tpp, directory.participants):
        for server in organisation["AuthorisationServers"]:
            if server.get("OpenIDDiscoveryDocument", "").startswith(tpp.discovery.issuer):
                base = f"{directory.keystore_base}/{organisation['OrganisationId']}"
                return await document(tpp, f"{base}/application.jwks")
    raise AssertionError("no participant has this issuer")


async def account_consent(tpp: Actor, permissions: tuple[str, ...]) -> tuple[str, str]:
    """Take a data-sharing consent all the way; return the access token and the consent's id."""
    consent_id = tpp.identity.dice.uuid()
    detail = data_sharing_consent(
        consent_id=consent_id, expires=tpp.identity.clock.now() + LIFE, permissions=permissions
    )
    pushed = await tpp.tpp.push(tpp.discovery, detail, "accounts openid")
    assert isinstance(pushed, Pushed), pushed
    return await redeemed(tpp, pushed), consent_id


async def pushed_account_consent(tpp: Actor) -> str:
    """Push a consent that nobody decides on; return its id."""
    consent_id = tpp.identity.dice.uuid()
    detail = data_sharing_consent(consent_id=consent_id, expires=tpp.identity.clock.now() + LIFE)
    assert isinstance(await tpp.tpp.push(tpp.discovery, detail, "accounts openid"), Pushed)
    return consent_id


async def redeemed(tpp: Actor, pushed: Pushed, **how: Any) -> str:
    """Be the customer who approves, and redeem the code."""
    came = await tpp.callback(pushed, **how)
    assert isinstance(came, Callback), came
    tokens = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(tokens, Tokens), tokens
    return tokens.access_token


async def payment_consents(
    tpp: Actor,
    known: Known,
    *,
    authorized: bool,
    permissions: tuple[str, ...] = ("ReadRefundAccount",),
    control: dict[str, Any] | None = None,
    upload: str = "",
) -> tuple[str, str]:
    """Push a consent to one payment; return its id, and an access token where it is approved."""
    consent_id = tpp.identity.dice.uuid()
    sealed = seal(tpp.identity, known.bank_keys, {"Creditor": [SHOP]})
    assert isinstance(sealed, str), sealed
    expires = tpp.identity.clock.now() + LIFE
    detail = payment_consent(consent_id=consent_id, expires=expires, amount=AMOUNT, sealed=sealed)
    consent = detail["consent"]
    if permissions:
        consent["Permissions"] = list(permissions)
    if control is not None:
        consent["ControlParameters"] = control
    pushed = await tpp.tpp.push(tpp.discovery, detail, PAYMENT_SCOPE)
    assert isinstance(pushed, Pushed), pushed
    if upload:
        sent = await call(
            tpp, "POST", f"/open-finance/payment/v2.1/payment-consents/{consent_id}/file", known.clients[PAYMENTS],
            headers={"x-idempotency-key": consent_id, "content-type": "text/csv"}, content=upload,
        )  # fmt: skip
        assert (sent.status, sent.body) == (200, b""), message_of(sent, known)
    if not authorized:
        return consent_id, ""
    person = tpp.sandbox.manifest.customers[0]
    return consent_id, await redeemed(tpp, pushed, customer=person, accounts=person.accounts[:1])


def payment(known: Known, tpp: Actor, consent_id: str) -> dict[str, Any]:
    """Return the lawful order of a payment."""
    sealed = seal(tpp.identity, known.bank_keys, SHOP)
    data = {
        "ConsentId": consent_id,
        "Instruction": {"Amount": {"Amount": AMOUNT, "Currency": "AED"}},
        "PaymentPurposeCode": "ACM",
        "PersonalIdentifiableInformation": sealed,
        "OpenFinanceBilling": {"Type": "PushP2P"},
    }
    return {"Data": data}


def signed_message(tpp: Actor, message: Any, **claims: Any) -> str:
    """Return a message as the TPP signs it."""
    now = tpp.identity.clock.now()
    known = {"iss": tpp.identity.client_id, "aud": tpp.discovery.issuer, "iat": now, "nbf": now}
    return tpp.identity.sign({**known, "exp": now + 120, "message": message, **claims})


async def call(
    tpp: Actor,
    method: str,
    path: str,
    token: str,
    *,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    signed: bool = False,
    content: str = "",
) -> Answer:
    """Send one request; ``content`` goes as it is, ``body`` as JSON or signed."""
    sent = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, application/jwt;q=0.5",
        "x-fapi-interaction-id": INTERACTION,
        "x-fapi-customer-ip-address": "192.0.2.17",
    }
    if body is not None:
        sent["content-type"] = "application/jwt" if signed else "application/json"
        content = signed_message(tpp, body) if signed else msgspec.json.encode(body).decode()
    sent |= headers or {}
    base = tpp.sandbox.manifest.hub.resource_base
    url = base + path
    ask = Ask(method=method, url=url, query=query or {}, headers=sent, content=content)
    return await tpp.tpp.wire.carry(ask)


def message_of(answer: Answer, known: Known) -> Any:
    """Return what an answer says: JSON, or the message of a JWS whose signature is the Hub's."""
    if not answer.body:
        return None
    if not answer.headers["content-type"].startswith("application/jwt"):
        return msgspec.json.decode(answer.body)
    keys = KeySet.import_key_set({"keys": known.hub_keys["keys"]})
    token = jws.deserialize_compact(answer.body, keys, algorithms=["PS256"])
    return msgspec.json.decode(token.payload)["message"]


def code_in(answer: Answer, known: Known) -> str:
    """Return the standard's code of a refusal."""
    message = message_of(answer, known) or {}
    return str((message.get("Errors") or [{}])[0].get("Code", ""))


PAYEE = {"SchemeName": "IBAN", "Identification": "", "Name": {"FullName": "Aisha Rahman"}}
LEAD = {
    "Email": "lead@person.example",
    "EmiratesId": "784198012345678",
    "Name": {"GivenName": "Lead", "LastName": "Person"},
    "MarketingOptOut": True,
    "ProductCategories": ["CurrentAccount"],
}


def _account(known: Known) -> dict[str, str]:
    return {"AccountId": known.account}


def _account_case(**more: Any) -> Case:
    return Case(
        path=_account,
        poor=lambda k: (k.narrow, _account(k)),
        foreign=lambda k: (k.user, {"AccountId": "100200000001"}),
        refused=(403, "Consent.PermanentAccountAccessFailure"),
        **more,
    )


NO_SUCH = (400, "Resource.InvalidFormat")
NOT_FOUND = (404, "")
CASES: dict[str, Case] = {
    "account-information.account-access-consents": Case(
        token=lambda k: k.clients[ACCOUNTS],
        query=lambda k: {"baseConsentId": k.user_consent},
        bad_query={"another": "and no baseConsentId"},
        foreign=lambda k: (k.foreign[ACCOUNTS], {}),
        refused=(200, ""),
    ),
    "account-information.account-access-consent": Case(
        token=lambda k: k.clients[ACCOUNTS],
        path=lambda k: {"ConsentId": k.user_consent},
        foreign=lambda k: (k.foreign[ACCOUNTS], {"ConsentId": k.user_consent}),
        refused=NO_SUCH,
    ),
    "account-information.account-access-consent.patch": Case(
        token=lambda k: k.clients[ACCOUNTS],
        path=lambda k: {"ConsentId": k.revocable},
        body=lambda _k, _t: {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}},
        broken=lambda _b: {"Data": {"Status": "Consumed"}},
        foreign=lambda k: (k.foreign[ACCOUNTS], {"ConsentId": k.user_consent}),
        refused=NO_SUCH,
    ),
    "account-information.accounts": Case(poor=lambda k: (k.party, {})),
    "account-information.account": Case(
        path=_account,
        poor=lambda k: (k.party, _account(k)),
        foreign=lambda k: (k.user, {"AccountId": "100200000001"}),
        refused=(403, "Consent.PermanentAccountAccessFailure"),
    ),
    "account-information.balances": _account_case(),
    "account-information.beneficiaries": _account_case(),
    "account-information.direct-debits": _account_case(),
    "account-information.product": _account_case(),
    "account-information.scheduled-payments": _account_case(),
    "account-information.standing-orders": _account_case(),
    "account-information.transactions": _account_case(
        query=lambda _k: {"fromBookingDateTime": "2026-01-01T00:00:00Z"},
        bad_query={"fromBookingDateTime": "yesterday"},
    ),
    "account-information.account-parties": _account_case(),
    "account-information.parties": Case(poor=lambda k: (k.narrow, {})),
    "account-information.statements": _account_case(bad_query={"fromStatementDate": "2026-02-30"}),
    "payment.payment-consents": Case(
        token=lambda k: k.clients[PAYMENTS],
        query=lambda k: {"baseConsentId": k.paid[0]},
        foreign=lambda k: (k.foreign[PAYMENTS], {}),
        refused=(200, ""),
    ),
    "payment.payment-consent": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"ConsentId": k.paid[0]},
        foreign=lambda k: (k.foreign[PAYMENTS], {"ConsentId": k.paid[0]}),
        refused=NOT_FOUND,
    ),
    "payment.payment-consent.patch": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"ConsentId": k.payment_revocable},
        body=lambda _k, _t: {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}},
        broken=without("Data", "Status"),
        foreign=lambda k: (k.foreign[PAYMENTS], {"ConsentId": k.paid[0]}),
        refused=NO_SUCH,
    ),
    "payment.refund": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"ConsentId": k.paid[0]},
        poor=lambda k: (k.clients[PAYMENTS], {"ConsentId": k.poor}),
        foreign=lambda k: (k.foreign[PAYMENTS], {"ConsentId": k.paid[0]}),
        refused=NOT_FOUND,
    ),
    "payment.payments.find": Case(
        token=lambda k: k.clients[PAYMENTS],
        headers=lambda k: {"x-idempotency-key": paid_key(k)},
        foreign=lambda k: (k.foreign[PAYMENTS], {}),
        refused=NOT_FOUND,
    ),
    "payment.payments.make": Case(
        token=lambda k: k.payable[1],
        headers=lambda k: {"x-idempotency-key": "the-happy-path-" + k.user_consent[:8]},
        body=lambda k, tpp: payment(k, tpp, k.payable[0]),
        broken=without("Data", "Instruction", "Amount", "Currency"),
        foreign=lambda k: (k.paid[1], {}),
        refused=(400, "Consent.Invalid"),
    ),
    "payment.payment": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"PaymentId": k.payment_id},
        foreign=lambda k: (k.foreign[PAYMENTS], {"PaymentId": k.payment_id}),
        refused=NOT_FOUND,
    ),
    "payment.file": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"ConsentId": k.uploadable},
        headers=lambda _k: {"x-idempotency-key": "file-1", "content-type": "text/csv"},
        content=FILE,
        foreign=lambda k: (k.foreign[PAYMENTS], {"ConsentId": k.uploadable}),
        refused=NO_SUCH,
    ),
    "payment.file-payments.find": Case(
        token=lambda k: k.clients[PAYMENTS],
        headers=lambda k: {"x-idempotency-key": filed_key(k)},
        foreign=lambda k: (k.foreign[PAYMENTS], {}),
        refused=NOT_FOUND,
    ),
    "payment.file-payments.make": Case(
        token=lambda k: k.file_payable[1],
        headers=lambda k: {"x-idempotency-key": "the-happy-file-" + k.user_consent[:8]},
        body=lambda k, _t: file_order(k.file_payable[0]),
        broken=without("Data", "PaymentPurposeCode"),
        foreign=lambda k: (k.filed[1], {}),
        refused=(400, "Consent.Invalid"),
    ),
    "payment.file-payment": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"PaymentId": k.file_payment_id},
        foreign=lambda k: (k.foreign[PAYMENTS], {"PaymentId": k.file_payment_id}),
        refused=NOT_FOUND,
    ),
    "payment.file-payment.report": Case(
        token=lambda k: k.clients[PAYMENTS],
        path=lambda k: {"PaymentId": k.file_payment_id},
        foreign=lambda k: (k.foreign[PAYMENTS], {"PaymentId": k.file_payment_id}),
        refused=NOT_FOUND,
    ),
    "product.products": Case(
        token=lambda k: k.clients["products"],
        query=lambda _k: {"SortField": "ProductId"},
        bad_query={"SortOrder": "sideways"},
    ),
    "product.leads": Case(
        token=lambda k: k.clients["products"],
        body=lambda _k, _t: {"Data": LEAD},
        broken=without("Data", "Email"),
    ),
    "atm.atms": Case(token=lambda k: k.clients["atm"]),
    "confirmation-of-payee.confirmation": Case(
        token=lambda k: k.clients["confirmation-of-payee"],
        body=lambda _k, _t: {"Data": {**PAYEE, "Identification": OWN_IBAN}},
        broken=without("Data", "Name"),
    ),
    "confirmation-of-payee.discovery": Case(
        token=lambda k: k.clients["confirmation-of-payee"],
        body=lambda _k, _t: {"Data": {"SchemeName": "IBAN", "Identification": OWN_IBAN}},
        broken=without("Data", "SchemeName"),
    ),
}
