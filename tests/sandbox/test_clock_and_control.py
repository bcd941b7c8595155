"""The shared clock and the control socket."""

import stat
from pathlib import Path

import msgspec
import pytest
import trio

from hub.node.errors import StartError
from hub.sandbox.clock import SharedClock
from hub.sandbox.control import CONTROL_PATH, LINE_OCTETS, ask, serve_control, world_actions


@pytest.fixture
def clock(tmp_path: Path):
    (tmp_path / "run").mkdir()
    shared = SharedClock.create(tmp_path / "run" / "clock")
    yield shared
    shared.close()


def test_moving_the_clock_is_seen_by_every_process_that_opened_it(clock, tmp_path):
    other = SharedClock.open(tmp_path / "run" / "clock")
    before = other.now()
    clock.move(3600)
    assert 3600 <= other.now() - before <= 3605
    clock.move(-7200)
    assert other.offset_ms == -3_600_000
    other.close()


def test_offset_survives_a_restart_of_the_world(clock, tmp_path):
    clock.move(60)
    again = SharedClock.create(tmp_path / "run" / "clock")
    assert again.offset_ms == 60_000
    again.close()


def test_clock_is_readable_by_the_owner_only(clock, tmp_path):
    assert stat.S_IMODE((tmp_path / "run" / "clock").stat().st_mode) == 0o600


def test_a_reader_cannot_move_the_clock(clock, tmp_path):
    reader = SharedClock.open(tmp_path / "run" / "clock")
    with pytest.raises(TypeError):
        reader.move(1)
    reader.close()


def test_a_damaged_clock_is_refused_by_readers_and_made_anew_by_the_world(tmp_path):
    path = tmp_path / "clock"
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="8 octets"):
        SharedClock.open(path)
    made = SharedClock.create(path)
    assert made.offset_ms == 0
    made.close()


async def test_control_socket_moves_time_and_ends_the_world(clock, tmp_path, nursery):
    ended = trio.Event()
    await nursery.start(serve_control, tmp_path / CONTROL_PATH, world_actions(clock, ended.set))
    answer = await ask(tmp_path, {"do": "time", "add": 600})
    assert answer["ok"] is True
    assert answer["offset"] == 600
    assert abs(answer["now"] - clock.now()) <= 2
    assert await ask(tmp_path, {"do": "stop"}) == {"ok": True}
    assert ended.is_set()


@pytest.mark.parametrize(
    "request_", [{"do": "fly"}, {}, {"do": "time", "add": "soon"}, {"do": "time", "add": 1e12}]
)
async def test_control_socket_refuses_what_it_does_not_know(clock, tmp_path, nursery, request_):
    await nursery.start(serve_control, tmp_path / CONTROL_PATH, world_actions(clock, print))
    answer = await ask(tmp_path, request_)
    assert answer["ok"] is False
    assert answer["error"]
    assert clock.offset_ms == 0


async def test_control_socket_answers_nonsense_and_ends_a_line_without_end(
    clock, tmp_path, nursery
):
    await nursery.start(serve_control, tmp_path / CONTROL_PATH, world_actions(clock, print))
    async with await trio.open_unix_socket(tmp_path / CONTROL_PATH) as stream:
        await stream.send_all(b"[1]\n")
        assert msgspec.json.decode(await stream.receive_some())["ok"] is False
        await stream.send_all(b"x" * (LINE_OCTETS + 1))
        assert b"at most" in await stream.receive_some()
        assert await stream.receive_some() == b""


async def test_control_socket_is_private_and_gone_afterwards(clock, tmp_path):
    path = tmp_path / CONTROL_PATH
    async with trio.open_nursery() as world:
        await world.start(serve_control, path, world_actions(clock, print))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        world.cancel_scope.cancel()
    assert not path.exists()
    with pytest.raises(StartError, match="no sandbox runs"):
        await ask(tmp_path, {"do": "time"})


async def test_control_socket_works_however_deep_the_folder_lies(tmp_path, nursery):
    deep = tmp_path.joinpath(*["a-rather-long-name"] * 8)
    (deep / "run").mkdir(parents=True)
    shared = SharedClock.create(deep / "run" / "clock")
    await nursery.start(serve_control, deep / CONTROL_PATH, world_actions(shared, print))
    assert (await ask(deep, {"do": "time"}))["offset"] == 0
    shared.close()
