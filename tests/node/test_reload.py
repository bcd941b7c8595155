"""What a new configuration may change in a running node, what waits, and what is refused."""

import msgspec
import pytest
import trio

from hub.config import ConfigError, Loaded, config_folder, load
from hub.model.clock import FixedClock, SeededDice
from hub.node.build import Given
from hub.node.reload import FIXED, Reloads, differences, judge, read_again
from hub.node.worker import Orders, orders_line
from hub.state.memory import MemoryKeeper
from tests.edge.rig import Notebook


@pytest.fixture
def settings():
    return load(config_folder() / "hub.production.toml", {}).settings


def changed(settings, name, value):
    section, _, field = name.partition(".")
    if not field:
        return msgspec.structs.replace(settings, **{section: value})
    part = msgspec.structs.replace(getattr(settings, section), **{field: value})
    return msgspec.structs.replace(settings, **{section: part})


def test_nothing_changed_changes_nothing(settings):
    assert judge(settings, settings) == (settings, (), ())


def test_what_changed_is_named_without_its_value(settings):
    found = changed(settings, "bank.audience", "another")
    assert judge(found, settings) == (found, ("bank.audience",), ())
    assert differences(found, settings) == ("bank.audience",)


@pytest.mark.parametrize("name", FIXED)
def test_what_cannot_change_live_keeps_its_value_and_is_named(settings, name):
    there = {"workers": 7, "port": 9, "bind": "127.0.0.9"}
    number = 4242 if name.startswith("limits.") else "elsewhere"
    value = there.get(name.rpartition(".")[2], number)
    found = changed(changed(settings, name, value), "bank.audience", "another")
    taken, names, kept = judge(found, settings)
    assert kept == (name,)
    assert names == ("bank.audience",)
    assert taken == changed(settings, "bank.audience", "another")


@pytest.mark.parametrize(
    ("name", "value"), [("tenant.provider_id", "x"), ("tenant.environment", "pre-production")]
)
def test_another_tenants_configuration_is_refused(settings, name, value):
    with pytest.raises(ConfigError, match=name):
        judge(changed(settings, name, value), settings)


async def test_a_file_that_cannot_be_read_is_told_and_changes_nothing(settings):
    clock = FixedClock(1_780_000_000)
    notebook, keeper = Notebook(), MemoryKeeper(clock=clock)
    given = Given(
        settings=settings,
        keeper=keeper,
        clock=clock,
        dice=SeededDice("refusals"),
        observer=notebook,
    )

    def read():
        raise ConfigError("hub.toml: is not valid TOML: line 3")

    assert await read_again(read, given) is None
    assert notebook.notes == [
        ("configuration_kept", {"changed": "", "why": "hub.toml: is not valid TOML: line 3"})
    ]
    (leaf,) = await keeper.events(0, 10)
    assert b'"check":"configuration.invalid"' in leaf
    assert b"TOML" not in leaf

    def absent():
        return Loaded(settings, {})  # its certificate files are nowhere

    assert await read_again(absent, given) is None
    assert notebook.notes[-1][0] == "configuration_kept"


async def test_many_reloads_asked_for_at_once_are_one(autojump_clock):
    reloads = Reloads()
    for _ in range(10):
        reloads.ask()
    await reloads.wait()
    with trio.move_on_after(1) as scope:
        await reloads.wait()
    assert scope.cancelled_caught


def test_orders_are_one_line_that_a_worker_reads_back(settings, monkeypatch):
    import os

    from hub.node import worker

    orders = Orders(settings, {"tpp": 7, "lfi": 8}, 9)
    line = orders_line(orders)
    assert line.count(b"\n") == 1
    pieces = [line[:10], line[10:]]
    monkeypatch.setattr(os, "read", lambda _fd, _most: pieces.pop(0))
    assert worker.read_orders() == orders


def test_a_worker_without_orders_says_who_starts_it(monkeypatch):
    import os

    from hub.node import worker
    from hub.node.errors import StartError

    monkeypatch.setattr(os, "read", lambda _fd, _most: b"")
    with pytest.raises(StartError, match="supervisor"):
        worker.read_orders()
    monkeypatch.setattr(os, "read", lambda _fd, _most: b"{}\n")
    with pytest.raises(StartError, match="no sense"):
        worker.read_orders()
