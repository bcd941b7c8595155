"""The operator's socket: for our own user only, every command an event, effects at once."""

import socket
import stat
from contextlib import suppress

import orjson
import pytest
import trio
import trio.testing

from hub.config import config_folder
from hub.model.clock import SeededDice
from hub.model.fault import hub_fault
from hub.node.ask import ask
from hub.node.errors import StartError
from hub.trust import admin
from hub.trust.admin import Office, serve_admin, trust_commands
from tests.trust.framework import APP, NOW, ORG, enrol, open_world, peer_of, running


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def trust(world):
    made = world.trust(auto_activate=False)
    async with running(made):
        await enrol(made)
        yield made


@pytest.fixture
async def path(world, trust, tmp_path):
    place = tmp_path / "admin.sock"
    commands = trust_commands(trust=trust, keeper=world.keeper, clock=world.clock)
    office = Office(commands, keeper=world.keeper, clock=world.clock, dice=SeededDice("admin"))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, place, office)
        yield place
        nursery.cancel_scope.cancel()


async def test_an_operator_reaches_a_hub_whose_folder_lies_deep(world, trust, tmp_path):
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    configuration = tmp_path / "hub.toml"
    text = (config_folder() / "hub.production.toml").read_text()
    configuration.write_text(text.replace("/var/lib/api-hub/examplebank", str(folder)))
    commands = trust_commands(trust=trust, keeper=world.keeper, clock=world.clock)
    office = Office(commands, keeper=world.keeper, clock=world.clock, dice=SeededDice("admin"))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, folder / "admin.sock", office)
        answer = await trio.to_thread.run_sync(ask, configuration, {"do": "trust"})
        nursery.cancel_scope.cancel()
    assert answer["ok"] is True


async def test_an_operator_is_told_of_a_hub_that_does_not_answer(tmp_path, monkeypatch):
    configuration = tmp_path / "hub.toml"
    text = (config_folder() / "hub.production.toml").read_text()
    configuration.write_text(text.replace("/var/lib/api-hub/examplebank", str(tmp_path)))
    monkeypatch.setattr("hub.node.ask._PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "admin.sock"))
        silent.listen()
        with pytest.raises(StartError, match="has not answered within"):
            ask(configuration, {"do": "trust"})
    with pytest.raises(StartError, match="no Hub listens there"):
        ask(configuration, {"do": "trust"})


async def say(path, *lines):
    """Send lines, return the answers."""
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        held = b""
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            while held.count(b"\n") < len(lines):
                piece = await stream.receive_some()
                if not piece:
                    break
                held += piece
    return [orjson.loads(line) for line in held.splitlines()]


def check(trust):
    return getattr(trust.judge(peer_of("c1"), NOW), "check", "")


async def test_the_socket_is_its_owners_only_and_leaves_with_its_server(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_another_user_is_turned_away(path, monkeypatch):
    monkeypatch.setattr(admin, "_user_of", lambda _stream: 4_000_000)
    assert await say(path, {"do": "trust"}) == []


async def test_activation_and_block_take_effect_at_once(path, trust):
    assert check(trust) == "trust.not_activated"
    (done,) = await say(path, {"do": "activate", "client": APP})
    assert done["registration"]["client_state"] == "active"
    await trio.testing.wait_all_tasks_blocked()
    assert check(trust) == ""
    (done,) = await say(path, {"do": "block", "client": APP, "level": "statement"})
    assert done["ok"]
    await trio.testing.wait_all_tasks_blocked()
    assert check(trust) == "trust.blocked"
    await say(path, {"do": "unblock", "client": APP, "level": "statement"})
    await trio.testing.wait_all_tasks_blocked()
    assert check(trust) == ""


async def test_a_block_holds_from_its_acknowledgement_on(path, trust, world):
    await say(path, {"do": "activate", "client": APP})
    await trio.testing.wait_all_tasks_blocked()
    await say(path, {"do": "block", "client": APP, "level": "client"})
    assert check(trust) in {"trust.blocked", "trust.stale"}


async def test_commands_on_one_connection_are_answered_in_order(path, world):
    answers = await say(path, {"do": "registrations"}, {"do": "trust"}, {"do": "resync"})
    assert answers[0]["registrations"][0]["organisation_id"] == ORG
    assert answers[1]["trust"]["ready"] is True
    assert answers[2] == {"ok": True}
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 100)]
    routes = [e["route"] for e in events if e["kind"] == "admin"]
    assert routes == ["admin.registrations", "admin.trust", "admin.resync"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"do": "fly"}, "unknown command"),
        ([], "JSON object"),
        ({"do": ["activate"]}, "unknown command"),
        ({"do": "activate"}, "expected client"),
        ({"do": "activate", "client": APP, "level": "x"}, "expected client"),
        ({"do": "block", "client": APP}, "one level at a time"),
        ({"do": "activate", "client": "x"}, "No such registration"),
        ({"do": "activate", "client": APP, "level": "client"}, "Activate the statement"),
    ],
)
async def test_what_makes_no_sense_is_said_to(path, line, error):
    (answer,) = await say(path, line)
    assert answer["ok"] is False
    assert error in answer["error"]


async def test_noise_ends_with_an_error_not_the_server(path):
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"\xff\n")
        assert b"JSON object" in await stream.receive_some()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.close()
    assert (await say(path, {"do": "trust"}))[0]["ok"]


async def test_every_command_is_an_event_with_what_became_of_it(path, world):
    await say(path, {"do": "block", "client": "x", "level": "client"}, {"do": "fly"}, [1])
    await say(path, {"do": "block", "client": APP, "level": "client"}, {"do": "expiries"})
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 100)]
    told = [
        (e["route"], e.get("verdict", "allowed"), e.get("check", ""), e.get("subject", ""))
        for e in events
        if e["kind"] == "admin"
    ]
    assert told == [
        ("admin.block", "refused", "registration.unknown", "x"),
        ("admin.unknown", "refused", "admin.unknown", ""),
        ("admin.unknown", "refused", "admin.malformed", ""),
        ("admin.block", "allowed", "", APP),
        ("admin.expiries", "allowed", "", ""),
    ]
    (changed,) = [e for e in events if e.get("change") == "client:inactive>blocked"]
    (asked,) = [
        e
        for e in events
        if e.get("route") == "admin.block" and e.get("subject") == APP and e["kind"] == "admin"
    ]
    assert changed["interaction_id"] == asked["interaction_id"]


async def test_a_registration_is_shown_with_the_check_that_keeps_it_out(path):
    (answer,) = await say(path, {"do": "registrations"})
    assert answer["registrations"][0]["check"] == "trust.not_activated"


async def test_a_command_whose_event_cannot_be_kept_says_so(path, world, monkeypatch):
    async def full(_changes, _events):
        return hub_fault(503, "GenericRecoverableError", "The disk is full.", check="keeper.disk")

    monkeypatch.setattr(world.keeper, "commit", full)
    (answer,) = await say(path, {"do": "trust"})
    assert answer["ok"] is False
    assert "disk is full" in answer["error"]


@pytest.mark.parametrize("odd", [[], {}, None, 5, True, "nope", [[]]])
async def test_a_member_of_any_shape_is_refused_and_ends_nobody(path, odd):
    asked = [{"do": do, "client": APP, "level": odd} for do in ("activate", "block", "unblock")]
    asked += [{"do": do, "client": odd, "level": "client"} for do in ("activate", "block")]
    answers = await say(path, *asked, {"do": odd}, {"do": "trust"})
    assert [answer["ok"] for answer in answers] == [False] * 6 + [True]
