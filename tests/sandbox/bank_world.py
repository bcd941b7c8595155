"""A bank without a network: its book in a folder, the Hub's certificate and bearer, a Hub that answers from a script."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import httpx
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.model.clock import FixedClock, SeededDice
from hub.sandbox.bank.bank import Bank
from hub.sandbox.bank.book import Book, Granted, customer_by_username
from hub.sandbox.bank.hub import Hub
from hub.sandbox.site import SiteRequest, SiteResponse

NOW = 1_795_340_000
HUB_ORG = "11111111-1111-4111-8111-111111111111"
TPP_ORG = "22222222-2222-4222-8222-222222222222"
PROVIDER = "model-bank"
CONSENT = "33333333-3333-4333-8333-333333333333"
HEADERS = {
    "o3-provider-id": PROVIDER,
    "o3-aspsp-id": PROVIDER,
    "o3-caller-org-id": TPP_ORG,
    "o3-caller-client-id": "44444444-4444-4444-8444-444444444444",
    "o3-caller-software-statement-id": "44444444-4444-4444-8444-444444444444",
    "o3-api-uri": "/open-finance/account-information/v2.1/accounts",
    "o3-api-operation": "GET",
    "o3-ozone-interaction-id": "55555555-5555-4555-8555-555555555555",
}


def certificate(organisation_id: str, name: str = "Hub Operator") -> bytes:
    """Make a certificate in DER with the subject of this ecosystem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "AE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, organisation_id),
            x509.NameAttribute(NameOID.COMMON_NAME, "66666666-6666-4666-8666-666666666666"),
        ]
    )
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + dt.timedelta(days=800))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.DER)


KEY = RSAKey.generate_key(2048, {"kid": "sig3", "use": "sig"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "sig3", "use": "sig"})
HUB_CERTIFICATE = certificate(HUB_ORG)
TPP_CERTIFICATE = certificate(TPP_ORG, "A TPP")


def bearer(*, key: RSAKey = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign a JWT Auth bearer, right but for what is given; None leaves a claim out."""
    body = {
        "iss": "Hub Operator",
        "sub": HUB_ORG,
        "aud": PROVIDER,
        "iat": NOW,
        "exp": NOW + 30,
        "jti": "77777777-7777-4777-8777-777777777777",
        "scope": "accounts",
        **claims,
    }
    body = {name: value for name, value in body.items() if value is not None}
    top = {"alg": "PS256", "typ": "JOSE", "cty": "json", "kid": "sig3", **(header or {})}
    algorithms = [top["alg"]]
    return "Bearer " + jwt.encode(top, body, key, algorithms=algorithms)


class ScriptedHub:
    """Answer the bank's calls to the Hub, and keep them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.record: dict[str, Any] = account_access()
        self.auth = httpx.Response(
            200,
            json={
                "interaction": {"interactionId": "int-1", "consentIdsList": [CONSENT]},
                "tpp": {"tppName": "Budget Buddy <FZ>"},
            },
        )
        self.down: set[str] = set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path = request.url.path
        body: Any = request.content.decode()
        if request.headers.get("content-type", "").startswith("application/json"):
            body = json.loads(body)
        self.calls.append((request.method, request.url.raw_path.decode(), body))
        action = path.rsplit("/", 1)[-1]
        if action in self.down or request.method in self.down:
            raise httpx.ConnectError("down")
        if path == "/auth":
            return self.auth
        if action in {"doConfirm", "doFail"}:
            return httpx.Response(303, headers={"location": f"https://tpp.example/cb?did={action}"})
        if request.method == "GET" and path.startswith("/psu/"):
            return httpx.Response(200, json={"data": [self.record], "meta": {}})
        if request.method == "GET":
            return httpx.Response(200, json={"data": self.record, "meta": {}})
        return httpx.Response(204)

    def of(self, method: str, end: str = "") -> list[tuple[str, str, Any]]:
        """Return the calls with a method whose path ends so."""
        return [c for c in self.calls if c[0] == method and c[1].split("?")[0].endswith(end)]


def account_access(**consent: Any) -> dict[str, Any]:
    """Make a consent record for account access."""
    return {
        "id": CONSENT,
        "consentType": "cbuae-account-access-consents",
        "status": "AwaitingAuthorization",
        "request": {
            "consent": {
                "ConsentId": CONSENT,
                "Permissions": ["ReadAccountsBasic", "ReadBalances"],
                "ExpirationDateTime": "2027-03-01T08:00:00Z",
                "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
                **consent,
            }
        },
        "tpp": {"tppName": "Budget Buddy <FZ>"},
    }


def payment_consent() -> dict[str, Any]:
    """Make a consent record for one payment."""
    record = account_access(
        ControlParameters={
            "ConsentSchedule": {
                "SinglePayment": {
                    "Type": "SingleInstantPayment",
                    "Amount": {"Amount": "250.00", "Currency": "AED"},
                }
            }
        },
        PaymentPurposeCode="ACM",
    )
    return {**record, "consentType": "cbuae-service-initiation-consents"}


class World:
    """One bank with its clock and its scripted Hub."""

    def __init__(self, folder: Path, now: int = NOW) -> None:
        self.clock = FixedClock(now)
        self.hub = ScriptedHub()
        self.keys = {"keys": [KEY.as_dict(private=False)]}
        self.fetches = 0
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.hub), follow_redirects=False)
        self.book = Book.open(folder, self.clock)
        self.bank = Bank.assemble(
            book=self.book,
            provider_id=PROVIDER,
            hub=Hub(http, "https://hh.example", "https://cm.example"),
            hub_organisation_id=HUB_ORG,
            fetch_keys=self._keys,
            clock=self.clock,
            dice=SeededDice(),
        )

    async def _keys(self) -> dict[str, Any]:
        self.fetches += 1
        return self.keys

    def grant(self, username: str, *accounts: str, kind: str = "account-access") -> None:
        """Let a customer have agreed to share accounts (all of them where none is given)."""
        customer = customer_by_username(username)
        assert customer is not None
        chosen = accounts or customer.accounts
        user = customer.user_id
        granted = Granted(user_id=user, accounts=tuple(chosen), kind=kind, approvals=(user,))
        self.book.grant(CONSENT, granted)

    async def call(
        self,
        path: str,
        *,
        method: str = "GET",
        username: str = "aisha",
        body: bytes = b"",
        certificate: bytes = HUB_CERTIFICATE,
        authorization: str | None = None,
        **headers: str | None,
    ) -> SiteResponse:
        """Call Ozone Connect as the Hub does."""
        customer = customer_by_username(username)
        assert customer is not None
        who = json.dumps({"userId": customer.user_id}).encode()
        sent: dict[str, str | None] = {
            **HEADERS,
            "o3-consent-id": CONSENT,
            "o3-psu-identifier": base64.b64encode(who).decode(),
            "authorization": bearer(iat=self.clock.now(), exp=self.clock.now() + 30)
            if authorization is None
            else authorization,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        target, _, query = path.partition("?")
        return await self.bank.ozone_connect_handler(
            SiteRequest(
                method=method,
                path=target,
                query=query,
                headers=tuple((k, v) for k, v in sent.items() if v is not None),
                body=body,
                certificate=certificate,
            )
        )

    async def data(self, path: str, **options: Any) -> Any:
        """Call and return the body of a 200."""
        answer = await self.call(path, **options)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)


def code_of(answer: SiteResponse) -> tuple[int, str]:
    """Return status and errorCode."""
    body = json.loads(answer.body)
    assert set(body) == {"errorCode", "errorMessage"}
    return answer.status, body["errorCode"]
