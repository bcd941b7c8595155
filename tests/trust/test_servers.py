"""Where the participants' banks are reached, read from the public list."""

import orjson
import pytest
import trio

from hub.config import config_folder, load
from hub.model.clock import FixedClock
from hub.trust import servers as module
from hub.trust.fetch import Document, Unreachable
from hub.trust.servers import SealingKeys, Server, Servers, read_sealing_kids, read_servers

BANK = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
DISCOVERY = "https://auth.bank.example/.well-known/openid-configuration"


def row(**changes):
    endpoint = {"ApiEndpoint": "https://rs.bank.example/open-finance/payment/v2.1"}
    server = {
        "Status": "Active",
        "OpenIDDiscoveryDocument": DISCOVERY,
        "ApiResources": [{"ApiDiscoveryEndpoints": [endpoint]}],
        **changes,
    }
    return {"OrganisationId": BANK.upper(), "AuthorisationServers": [server]}


def read(*rows):
    return read_servers(orjson.dumps(list(rows)))


def test_a_server_is_told_by_its_organisation():
    assert read(row()) == {BANK: Server(DISCOVERY, "https://rs.bank.example")}


@pytest.mark.parametrize(
    "changes",
    [
        {"Status": "Inactive"},
        {"OpenIDDiscoveryDocument": "http://auth.bank.example/plain"},
        {"OpenIDDiscoveryDocument": "https://" + "a" * 500},
        {"OpenIDDiscoveryDocument": 7},
        {"ApiResources": None},
        {"ApiResources": [{"ApiDiscoveryEndpoints": [{"ApiEndpoint": "https://["}]}]},
    ],
)
def test_what_cannot_be_used_is_left_out(changes):
    assert read(row(**changes)) == {}


@pytest.mark.parametrize("document", [b"", b"{}", b"[1, null, {}]", b'[{"OrganisationId": 1}]'])
def test_a_document_of_another_shape_names_nobody(document):
    assert read_servers(document) == {}


@pytest.fixture
def world(monkeypatch):
    """Return servers whose fetches are counted, and what the next fetch brings."""
    brings = [Document(orjson.dumps([row()]))]
    fetched = []

    class Fetcher:
        async def key_store(self, path):
            assert path == f"/{BANK}/application.jwks"
            return await self.participants()

        async def participants(self):
            fetched.append(1)
            await trio.lowlevel.checkpoint()
            return brings[0]

    class Fetching:
        async def __aenter__(self):
            return Fetcher()

        async def __aexit__(self, *_):
            return None

    monkeypatch.setattr(module, "fetching", lambda *_: Fetching())
    settings = load(config_folder() / "hub.production.toml", {}).settings
    clock = FixedClock(1_780_000_000)
    made = Servers(settings=settings.trust, limits=settings.limits, clock=clock)
    return made, clock, brings, fetched


async def test_one_fetch_serves_all_who_wait_until_it_is_old(world):
    servers, clock, _, fetched = world
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(servers.of, BANK)
    assert await servers.of(BANK) is not None
    assert await servers.of("nobody") is None
    assert len(fetched) == 1
    clock.advance(301)
    await servers.of(BANK)
    assert len(fetched) == 2


async def test_while_the_framework_is_away_the_last_list_is_used_and_asked_for_seldom(world):
    servers, clock, brings, fetched = world
    await servers.of(BANK)
    brings[0] = Unreachable("u", "away")
    clock.advance(301)
    assert await servers.of(BANK) is not None
    assert await servers.of(BANK) is not None
    assert len(fetched) == 2


def key_set(*kids):
    return Document(orjson.dumps({"keys": [{"kid": k, "use": "enc"} for k in kids]}))


def test_only_encryption_keys_are_sealed_for():
    keys = [{"kid": "a", "use": "enc"}, {"kid": "b", "use": "sig"}, {"use": "enc"}, 7]
    assert read_sealing_kids(orjson.dumps({"keys": keys})) == {"a"}
    assert read_sealing_kids(b"nonsense") == read_sealing_kids(b"[]") == frozenset()


async def test_an_unknown_key_is_looked_for_once_in_a_while(world):
    servers, clock, brings, fetched = world
    keys = SealingKeys(
        settings=servers._settings, limits=servers._limits, clock=clock, organisation_id=BANK
    )
    brings[0] = key_set("old")
    assert await keys.current("old")
    assert not await keys.current("new")
    brings[0] = key_set("new")
    assert not await keys.current("new")
    assert len(fetched) == 1
    clock.advance(11)
    assert await keys.current("new")
    assert not await keys.current("old")
    assert len(fetched) == 2


async def test_a_key_store_that_was_never_there_refuses_nobody(world):
    servers, clock, brings, _ = world
    keys = SealingKeys(
        settings=servers._settings, limits=servers._limits, clock=clock, organisation_id=BANK
    )
    brings[0] = Unreachable("u", "away")
    assert await keys.current("any")
