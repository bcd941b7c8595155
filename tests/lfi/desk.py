"""The Consent Manager over a keeper in memory, with a bank that calls it without any network."""

import msgspec
import orjson

from hub.config import (
    BankSettings,
    Keys,
    Lfi,
    Limits,
    Listen,
    Settings,
    StateSettings,
    Switches,
    Tenant,
    TrustSettings,
    default_limits,
)
from hub.edge.router import Router
from hub.lfi.guard import BankGuard
from hub.lfi.operations import Lfi as ConsentManager
from hub.lfi.prefix import WithoutVersion
from hub.model.caller import NOBODY, Peer
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent, ConsentType, Status
from hub.model.event import Event, Kind
from hub.model.http import Request
from hub.model.terms import Face
from hub.observe import Observer
from hub.state.keeper import Put
from hub.state.memory import MemoryKeeper

NOW = 1_780_300_800  # 2026-06-01T08:00:00Z
LIMITS = Limits(**default_limits())
BANK = Peer(
    address="127.0.0.1",
    x5t_s256="t",
    organisation_id="org-bank",
    organisation_name="Bank",
    client_id="bank-client",
    issuer="CN=CA",
)
OTHER = msgspec.structs.replace(BANK, organisation_id="org-tpp")


def settings(tmp_path, *, switches=None, **bank):
    values = {
        "base_url": "https://b.example",
        "authorization_endpoint": "https://b.example/a",
        "ca": tmp_path,
        "certificate": tmp_path,
        "key": tmp_path,
    }
    nowhere = {"certificate": tmp_path, "key": tmp_path, "client_ca": tmp_path}
    return Settings(
        tenant=Tenant(
            provider_id="LFI1",
            organisation_id="org-bank",
            organisation_name="Bank",
            issuer="https://as.example",
            resource_base="https://rs.example",
        ),
        tpp=Listen(port=1, **nowhere),
        lfi=Lfi(
            port=2,
            base="https://lfi.example",
            organisation_id="org-bank",
            client_ids=("bank-client",),
            **nowhere,
        ),
        ops=Listen(port=3),
        keys=Keys(signing=(tmp_path,), bearer=tmp_path),
        bank=BankSettings(**(values | bank)),
        trust=TrustSettings(
            participants="",
            keystore="",
            api="",
            token_endpoint="",
            client_id="",
            ca=tmp_path,
            certificate=tmp_path,
            key=tmp_path,
        ),
        state=StateSettings(folder=tmp_path),
        limits=LIMITS,
        switches=Switches(**(switches or {})),
    )


def consent(consent_id="c1", kind=ConsentType.ACCOUNT_ACCESS, status=Status.AWAITING, **over):
    names = {
        ConsentType.ACCOUNT_ACCESS: "account-access",
        ConsentType.SERVICE_INITIATION: "service-initiation",
        ConsentType.INSURANCE: "insurance",
    }
    data = {
        "ConsentId": consent_id,
        "Permissions": ["ReadAccountsBasic"],
        "ExpirationDateTime": "2026-06-02T08:00:00Z",
    }
    values = {
        "id": consent_id,
        "consent_type": kind,
        "rar_type": f"urn:openfinanceuae:{names[kind]}-consent:v2.1",
        "standard_version": "v2.1",
        "client_id": "tpp-client",
        "organisation_id": "tpp-org",
        "status": status,
        "group_id": consent_id,
        "par_id": "urn:ietf:params:oauth:request_uri:x",
        "request": {"type": f"urn:openfinanceuae:{names[kind]}-consent:v2.1", "consent": data},
        "request_headers": {"x-fapi-interaction-id": "i1"},
        "body": {
            "Data": {
                **data,
                "Status": str(status),
                "CreationDateTime": "2026-06-01T08:00:00Z",
            }
        },
        "tpp": {"clientId": "tpp-client", "softwareStatementId": "ssa"},
        "request_url": "https://as.example/par",
        "created_ms": NOW * 1000,
        "updated_ms": NOW * 1000,
        "expires": NOW + 86400,
    }
    return Consent(**(values | over))


APPROVAL = {
    ConsentType.ACCOUNT_ACCESS: {"accountIds": ["a1", "a2"]},
    ConsentType.SERVICE_INITIATION: {"accountIds": ["a1"]},
    ConsentType.INSURANCE: {"insurancePolicyIds": ["p1"]},
}


def approval(kind=ConsentType.ACCOUNT_ACCESS, **over):
    return {
        "authorizationChannel": "App",
        "psuIdentifiers": {"userId": "cust-77"},
        "consentBody.Data.Status": "Authorized",
        **APPROVAL[kind],
        **over,
    }


class Desk:
    """A running Consent Manager."""

    def __init__(self, tmp_path, *, trust=None, answers=None, keeper=None, dice=None, **bank):
        self.clock = FixedClock(NOW)
        self.dice = dice or SeededDice()
        self.keeper = keeper or MemoryKeeper(clock=self.clock)
        self.settings = settings(tmp_path, **bank)
        observer = Observer(self.clock, log=False)
        self.observer = observer
        parts = {"settings": self.settings, "keeper": self.keeper, "clock": self.clock}
        parts |= {"dice": self.dice, "observer": observer}
        guard = BankGuard(**parts, trust=trust, answers=answers)
        routes = ConsentManager(**parts).lfi_routes()
        self.routes = routes
        self.app = WithoutVersion(
            Router({key: guard.bank_only(handler) for key, handler in routes.items()})
        )

    async def put(self, *records):
        event = Event(kind=Kind.NODE, time_ms=self.clock.now_ms())
        await self.keeper.commit([Put(record) for record in records], [event])

    async def call(self, method, target, body=None, peer=BANK, headers=()):
        path, _, query = target.partition("?")
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        request = Request(
            face=Face.LFI,
            method=method,
            authority="lfi.example",
            path=path,
            query=query,
            body=raw,
            peer=peer,
            headers=tuple(headers),
        )
        response = await self.app.respond(request)
        decoded = orjson.loads(response.body) if response.body else None
        return response.status, decoded, response

    async def stored(self, consent_id="c1"):
        return (await self.keeper.lookup(Consent, consent_id))[0]

    async def events(self):
        head = await self.keeper.head()
        return [orjson.loads(leaf) for leaf in await self.keeper.events(0, head.size or 1)]


__all__ = ["BANK", "NOBODY", "NOW", "OTHER", "Desk", "approval", "consent"]
