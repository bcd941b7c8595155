"""A notification of the framework is a reason to look, for those who know the key; nothing in it is believed."""

import base64

import orjson
import pytest
import trio

from hub.model.caller import NOBODY, Peer
from hub.model.fault import Fault
from hub.model.http import Request
from hub.model.terms import Face
from hub.trust import push
from hub.trust.push import PATH, read_push_key
from tests.trust.framework import NOW, ORG, enrol, open_world, peer_of, running
from tests.waiting import until

KEY = b"k" * 43


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def trust(world, tmp_path):
    (tmp_path / "push.key").write_bytes(KEY + b"\n")
    made = world.trust(push_key=tmp_path / "push.key")
    async with running(made):
        await enrol(made)
        yield made


def basic(key):
    return b"Basic " + base64.b64encode(b"framework:" + key)


async def send(trust, authorization=b"", body=b"{}", peer=NOBODY):
    headers = ((b"authorization", authorization),) if authorization else ()
    request = Request(
        face=Face.TPP,
        method="POST",
        authority="localhost",
        path=PATH,
        headers=headers,
        body=body,
        peer=peer,
    )
    return await trust.tpp_routes()["POST", PATH](request)


def check(trust):
    outcome = trust.judge(peer_of("c1"), NOW)
    return outcome.check if isinstance(outcome, Fault) else ""


@pytest.mark.parametrize("authorization", [basic(KEY), b"Bearer " + KEY, b"bearer  " + KEY])
async def test_a_notification_makes_the_hub_look_at_once(world, trust, authorization):
    world.directory.withdraw(ORG)
    assert check(trust) == ""
    body = b'{"SubscribeURL":"https://elsewhere.example/x"}\x1b[2J\xff\n'
    answer = await send(trust, authorization, body)
    assert (answer.status, answer.body, answer.event.change) == (204, b"", "trust.pushed")
    await until(lambda: check(trust) == "trust.organisation_inactive", 20, "a look")
    assert trust.status()["notified"] == NOW
    assert "elsewhere" in trust.status()["notification"]
    assert trust.status()["notification"].isprintable()
    assert not any("elsewhere" in path for _, path in world.asked)


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        basic(b"x" * 43),
        basic(b""),
        b"Bearer",
        b"Bearer " + KEY[:-1],
        b"Basic !",
        b"Digest " + KEY,
    ],
)
async def test_without_the_key_nobody_is_heard_and_it_is_written_down(world, trust, authorization):
    world.asked.clear()
    answer = await send(trust, authorization)
    assert (answer.status, answer.body) == (401, b"")
    assert dict(answer.headers)[b"www-authenticate"].startswith(b"Basic ")
    last = orjson.loads((await world.keeper.events(0, 1000))[-1])
    assert (last["verdict"], last["check"]) == ("refused", "trust.push_key")
    assert world.asked == []


async def test_many_notifications_are_few_looks(world, trust):
    world.asked.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(send, trust, basic(KEY))
    await trust.refresh()
    assert world.asked.count(("api", "/organisations")) <= 4


async def test_a_sender_of_too_many_is_slowed_down(world, trust, monkeypatch):
    monkeypatch.setattr(push, "_BURST", 3)
    statuses = [(await send(trust, basic(KEY))).status for _ in range(5)]
    assert statuses == [204, 204, 204, 429, 429]
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 1000)]
    assert not [e for e in events if e.get("check") == "trust.push_rate"]


async def test_strangers_cannot_fill_the_log_by_changing_their_address(world, trust):
    for at in range(40):
        peer = Peer(address=f"2001:db8::{at:x}")
        assert (await send(trust, b"Bearer " + KEY[:-1], peer=peer)).status == 401
    assert (await send(trust, basic(KEY), peer=peer)).status == 204
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 1000)]
    assert len([e for e in events if e.get("check") == "trust.push_key"]) == 10


async def test_without_a_configured_key_there_is_no_such_route(world):
    assert ("POST", PATH) not in world.trust().tpp_routes()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"k" * 31, b"k" * 20 + b" " + b"k" * 20, b"\xff" * 40]
)
def test_a_key_that_could_be_guessed_or_sent_wrong_is_refused(tmp_path, content):
    path = tmp_path / "push.key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="at least 32"):
        read_push_key(path)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("", ""),
    ],
)
def test_a_sender_is_counted_by_what_one_host_has(address, network):
    assert push._network_of(address) == network
