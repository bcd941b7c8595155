"""How to open each kind of keeper, and the records and events that the tests put into them."""

from contextlib import asynccontextmanager

import trio

from hub.config import Limits, default_limits
from hub.model.consent import Consent, ConsentType, Status
from hub.model.event import Event, Kind
from hub.state.memory import MemoryKeeper
from hub.state.open import open_keeper
from hub.state.remote import connect_keeper
from hub.state.socket import serve_keeper

NOW = 1_800_000_000


def event(name: str = "") -> Event:
    return Event(kind=Kind.CALL, time_ms=NOW * 1000, interaction_id=name, route="test")


def consent(
    name: str, *, status=Status.AWAITING, user=None, accounts=(), updated=1, client="tpp", **more
) -> Consent:
    fields = {
        "id": name,
        "consent_type": ConsentType.ACCOUNT_ACCESS,
        "rar_type": "urn:openfinanceuae:account-access-consent:v2.1",
        "standard_version": "v2.1",
        "client_id": client,
        "organisation_id": "org",
        "status": status,
        "group_id": name,
        "par_id": "urn:ietf:params:oauth:request_uri:x",
        "request": {"type": "t", "consent": {"a": [1, 2, {"b": None}]}},
        "request_headers": {"x": "y"},
        "body": {"Data": {"ConsentId": name}},
        "tpp": {"clientId": client},
        "request_url": "https://as/par",
        "created_ms": 1,
        "updated_ms": updated,
        "expires": NOW + 1000,
        "psu_identifiers": {"userId": user} if user else None,
        "account_ids": tuple(accounts),
    }
    return Consent(**(fields | more))


@asynccontextmanager
async def open_memory(clock, _folder, **bounds):
    yield MemoryKeeper(clock=clock, **bounds)


def limits(**changed) -> Limits:
    return Limits(**(default_limits() | changed))


@asynccontextmanager
async def open_sqlite(clock, folder, **changed):
    async with open_keeper(folder / "state", clock=clock, limits=limits(**changed)) as keeper:
        yield keeper


@asynccontextmanager
async def open_socket(clock, folder, **changed):
    path = folder / "socket"
    async with open_sqlite(clock, folder, **changed) as keeper, trio.open_nursery() as nursery:
        await nursery.start(serve_keeper, keeper, path)
        async with connect_keeper(path) as remote:
            yield remote
        nursery.cancel_scope.cancel()


KEEPERS = {"memory": open_memory, "sqlite": open_sqlite, "socket": open_socket}
