"""What nobody can do without bound: fill the log as a stranger, or flood the endpoints as a client."""

from hub.authz.strangers import Strangers, network_of
from hub.model.caller import NOBODY
from tests.authz.desk import BOB, refused

CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


async def test_strangers_leave_one_event_a_minute_and_none_is_lost(desk):
    for _ in range(5):
        response = await desk.token(**CREDENTIALS, who=NOBODY)
        assert response.status == 401
    assert len(await desk.events()) == 1
    desk.clock.advance(60)
    response = await desk.token(**CREDENTIALS, who=NOBODY)
    refused(response, "invalid_client", 401, "trust.certificate_missing")
    first, second = await desk.events()
    assert (first["kind"], first["count"], second["count"]) == ("refused", 1, 5)


def test_the_memory_of_strangers_is_bounded():
    strangers = Strangers()
    for number in range(5000):
        assert strangers.count(f"10.{number // 250}.{number % 250}.1", "trust", 0) == 1
    assert strangers.count("10.19.249.7", "trust", 0) == 0
    assert strangers.count("10.0.0.1", "trust", 0) == 1


def test_networks_are_counted_together():
    assert network_of("192.0.2.7") == "192.0.2.0/24"
    assert network_of("2001:db8::7") == "2001:db8::/64"
    assert network_of("") == ""


async def test_a_flood_is_slowed_down_per_client(desk_with):
    desk = desk_with(limits={"client_requests": 2, "client_requests_per_s": 1.0})
    for _ in range(2):
        assert (await desk.token(**CREDENTIALS)).status == 200
    response = await desk.token(**CREDENTIALS)
    refused(response, "temporarily_unavailable", 429, "client.rate")
    assert int(dict(response.headers)[b"retry-after"]) >= 1
    assert (await desk.token(BOB, **CREDENTIALS)).status == 200
    desk.clock.advance(2)
    assert (await desk.token(**CREDENTIALS)).status == 200
