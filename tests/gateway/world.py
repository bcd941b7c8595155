"""A gateway with everything around it faked but the keeper and the contract: what each test starts from."""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from io import StringIO
from typing import Any

import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.config import config_folder, load
from hub.contract import Contract, load_contract
from hub.gateway.pipeline import Gateway
from hub.model.caller import Caller, Peer
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent, ConsentType, Status
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault
from hub.model.http import Request, Response
from hub.model.records import AccessToken, Grant, digest_of
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol.jose import PrivateKey, PublicKey
from hub.state.keeper import Put
from hub.state.memory import MemoryKeeper
from hub.upstream.bank import BankAnswer, BankCall

NOW = 1_780_000_000
CLIENT = "11111111-1111-4111-8111-111111111111"
ORGANISATION = "22222222-2222-4222-8222-222222222222"
CONSENT = "33333333-3333-4333-8333-333333333333"
INTERACTION = "44444444-4444-4444-8444-444444444444"
THUMBPRINT = urlsafe_b64encode(b"t" * 32).rstrip(b"=").decode()
PEER = Peer(x5t_s256=THUMBPRINT, organisation_id=ORGANISATION, client_id=CLIENT, serial="01")
BASE = "https://hub.example"
AIS = "/open-finance/account-information/v2.1"
KEY = PrivateKey(kid="sig-1", key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
PERMISSIONS = [
    "ReadAccountsBasic", "ReadAccountsDetail", "ReadBalances", "ReadTransactionsDetail", "ReadStatements",
    "ReadParty", "ReadProduct", "ReadBeneficiariesDetail", "ReadDirectDebits", "ReadStandingOrdersDetail",
    "ReadScheduledPaymentsDetail",
]  # fmt: skip


class FakeTrust:
    """Know one client; ``fault`` makes it refuse."""

    def __init__(self) -> None:
        """Know the client and no keys."""
        self.fault: Fault | None = None
        self.roles: tuple[str, ...] = ("BDSP",)
        self.client_id = CLIENT
        self.keys: dict[str, PublicKey] = {}
        self.hooks: tuple[str, ...] = ()
        self.encrypts: PrivateKey | None = None
        self.refreshed = 0

    def judge(self, peer: Peer, now: int, risk: object = None) -> Caller | Fault:
        """Answer for the one peer."""
        return self.fault or self._caller()

    def _caller(self) -> Caller:
        return Caller(
            client_id=self.client_id, organisation_id=ORGANISATION, software_statement_id=CLIENT,
            tpp_id=ORGANISATION, tpp_name="A TPP", roles=self.roles, redirect_uris=(), x5t_s256=THUMBPRINT,
            webhook_uris=self.hooks,
        )  # fmt: skip

    def caller(self, client_id: str) -> Caller | None:
        """Return the client."""
        return self._caller() if client_id == self.client_id else None

    def key(self, client_id: str, kid: str, use: str) -> PublicKey | None:
        """Return a key that the test put here."""
        return self.keys.get(kid)

    def encryption_key(self, client_id: str) -> PublicKey | None:
        """Have none, or the one that the test put here."""
        own = self.encrypts
        return None if own is None else PublicKey(kid="e", use="enc", key=own.key.public_key())

    async def refresh_keys(self, client_id: str) -> None:
        """Count."""
        self.refreshed += 1


class FakeBank:
    """Give one answer and remember the calls."""

    def __init__(self) -> None:
        """Answer an empty list."""
        self.answer: BankAnswer | Fault = answer_of({"data": []})
        self.calls: list[BankCall] = []

    async def exchange(self, call: BankCall) -> BankAnswer | Fault:
        """Remember and answer."""
        self.calls.append(call)
        return self.answer


def answer_of(value: Any, status: int = 200) -> BankAnswer:
    """Make a bank's JSON answer."""
    return BankAnswer(
        status=status, headers=((b"content-type", b"application/json"),), body=orjson.dumps(value)
    )


_CONTRACT: list[Contract] = []


def contract() -> Contract:
    """Return the shipped contract, compiled once."""
    if not _CONTRACT:
        _CONTRACT.append(load_contract(config_folder() / "contract", None))
    return _CONTRACT[0]


class World:
    """Hold a gateway and what surrounds it."""

    def __init__(
        self, limits: Mapping[str, float] | None = None, keeper: Any = None, **switches: Any
    ) -> None:
        """Build everything, over a keeper in memory or another; ``start`` fills the store."""
        settings = load(config_folder() / "hub.production.toml", {}).settings
        tenant = msgspec.structs.replace(
            settings.tenant, resource_base=BASE, issuer=BASE, provider_id="BANK1"
        )
        self.settings = msgspec.structs.replace(
            settings,
            tenant=tenant,
            switches=msgspec.structs.replace(settings.switches, **switches),
            limits=msgspec.structs.replace(settings.limits, **(limits or {})),
        )
        self.clock = FixedClock(NOW)
        self.trust = FakeTrust()
        self.bank = FakeBank()
        self.log = StringIO()
        self.observer = Observer(self.clock, self.log)
        self.keeper = keeper or MemoryKeeper(clock=self.clock)
        self.gateway = Gateway(
            settings=self.settings, keeper=self.keeper, cache=self.keeper, trust=self.trust, bank=self.bank,
            contract=contract(), signing_keys=(KEY,), clock=self.clock, dice=SeededDice(), observer=self.observer,
        )  # fmt: skip

    async def keep(self, *records: Any) -> None:
        """Write records."""
        event = Event(kind=Kind.NODE, time_ms=NOW * 1000)
        assert not isinstance(await self.keeper.commit([Put(r) for r in records], [event]), Fault)

    async def start(self, consent: Consent | None = None, **token: Any) -> "World":
        """Keep a consent, its grant and its token (``secret``)."""
        await self.keep(consent or consent_of(), grant_of(), token_of(**token))
        return self

    async def get(self, path: str, query: str = "", headers: Any = (), **changes: Any) -> Response:
        """Send a GET below the account-information family as the TPP would."""
        return await self.send("GET", AIS + path, query, headers, **changes)

    async def send(
        self, method: str, path: str, query: str = "", headers: Any = (), **changes: Any
    ) -> Response:
        """Send a request."""
        given = {b"authorization": b"Bearer secret", b"x-fapi-interaction-id": INTERACTION.encode()}
        given.update(dict(headers))
        request = Request(
            face=Face.TPP, method=method, authority="hub.example", path=path, query=query, peer=PEER,
            headers=tuple((k, v) for k, v in given.items() if v is not None),
        )  # fmt: skip
        request = msgspec.structs.replace(request, **changes)
        self.gateway.admit(request)
        return await self.gateway.respond(request)

    async def events(self) -> list[dict[str, Any]]:
        """Return all events of calls and consents."""
        leaves = await self.keeper.events(0, 1000)
        return [e for e in map(orjson.loads, leaves) if e["kind"] != "node"]


def consent_of(**changes: Any) -> Consent:
    """Make an Authorized account-access consent."""
    data = {
        "ConsentId": CONSENT,
        "Permissions": PERMISSIONS,
        "ExpirationDateTime": "2027-01-01T00:00:00Z",
        "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        "Status": "Authorized",
        "CreationDateTime": "2026-01-01T00:00:00Z",
        "StatusUpdateDateTime": "2026-01-01T00:00:00Z",
        **changes.pop("data", {}),
    }
    fields: dict[str, Any] = {
        "id": CONSENT, "consent_type": ConsentType.ACCOUNT_ACCESS,
        "rar_type": "urn:openfinanceuae:account-access-consent:v2.1", "standard_version": "v2.1",
        "client_id": CLIENT, "organisation_id": ORGANISATION, "status": Status.AUTHORIZED, "group_id": CONSENT,
        "par_id": "p", "request": {}, "request_headers": {}, "body": {"Data": data}, "tpp": {}, "request_url": "u",
        "created_ms": NOW * 1000 - 1, "updated_ms": NOW * 1000 - 1, "expires": NOW + 86400,
        "psu_identifiers": {"userId": "u-1"}, "account_ids": ("acc-1", "acc-2"), "interaction_id": "i",
    }  # fmt: skip
    return Consent(**{**fields, **changes})


def token_of(**changes: Any) -> AccessToken:
    """Make the record of the token ``secret``."""
    fields: dict[str, Any] = {
        "digest": digest_of("secret"), "client_id": CLIENT, "scope": "openid accounts", "x5t_s256": THUMBPRINT,
        "issued": NOW, "expires": NOW + 600, "consent_id": CONSENT, "grant_id": "g1",
    }  # fmt: skip
    return AccessToken(**{**fields, **changes})


def grant_of(**changes: Any) -> Grant:
    """Make the token's grant."""
    return Grant(
        **{"id": "g1", "client_id": CLIENT, "consent_id": CONSENT, "created": NOW, **changes}
    )


def client_token() -> dict[str, Any]:
    """Return the changes that make a client-credentials token."""
    return {"consent_id": "", "grant_id": ""}


def refusal(check: str) -> Fault:
    """Make a Fault as the Trust Framework's view does."""
    return caller_fault(401, "invalid_client", "no", check=check)
