"""The three levels of activation: their order, blocking, one organisation's clients together, one commit each."""

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.clock import FixedClock, SeededDice
from hub.model.event import Event, Kind
from hub.model.fault import Fault, hub_fault
from hub.model.records import Registration
from hub.model.terms import Face
from hub.state.memory import MemoryKeeper
from hub.trust.mirror import Client
from hub.trust.registration import (
    Act,
    Actor,
    Level,
    act_on,
    activate_all,
    all_active,
    register,
    stepped,
)

NOW = 1_795_000_000
ORG = "1a7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a2"
ACTOR = Actor(face=Face.PORTAL, route="portal.activate", interaction_id="i")


def client(name="a"):
    return Client(client_id=name, software_statement_id=name, organisation_id=ORG, status="Active")


def event():
    return Event(kind=Kind.REGISTRATION, time_ms=NOW * 1000, change="registered")


@pytest.fixture
def clock():
    return FixedClock(NOW)


@pytest.fixture
async def keeper(clock):
    made = MemoryKeeper(clock=clock)
    for name in ("a", "b"):
        await register(made, clock, SeededDice(), client(name), activate=False, events=[event()])
    return made


async def states(keeper, name="a"):
    held, _ = await keeper.lookup(Registration, name)
    return held.tpp_state, held.statement_state, held.client_state


async def test_the_levels_are_activated_in_their_order(keeper, clock):
    for level in Level:
        done = await act_on(keeper, clock, "a", level, Act.ACTIVATE, ACTOR)
        assert isinstance(done, Registration)
    assert await states(keeper) == ("active", "active", "active")


@pytest.mark.parametrize("level", [Level.STATEMENT, Level.CLIENT])
async def test_a_level_is_not_activated_before_the_one_above(keeper, clock, level):
    fault = await act_on(keeper, clock, "a", level, Act.ACTIVATE, ACTOR)
    assert isinstance(fault, Fault)
    assert (fault.status, fault.check) == (409, "registration.order")
    assert await states(keeper) == ("inactive",) * 3


async def test_one_act_activates_all_three(keeper, clock):
    await activate_all(keeper, clock, "a", ACTOR)
    assert await states(keeper) == ("active", "active", "active")
    last = orjson.loads((await keeper.events(0, 100))[-1])
    assert last["change"] == "tpp:inactive>active statement:inactive>active client:inactive>active"
    assert (last["kind"], last["subject"], last["face"]) == ("registration", "a", "portal")


async def test_the_organisations_state_is_that_of_all_its_clients(keeper, clock):
    await act_on(keeper, clock, "a", Level.TPP, Act.ACTIVATE, ACTOR)
    assert await states(keeper, "b") == ("active", "inactive", "inactive")
    await act_on(keeper, clock, "b", Level.TPP, Act.BLOCK, ACTOR)
    assert await states(keeper, "a") == ("blocked", "inactive", "inactive")


async def test_clients_of_one_organisation_share_its_id_here(keeper):
    first, _ = await keeper.lookup(Registration, "a")
    second, _ = await keeper.lookup(Registration, "b")
    assert first.tpp_id == second.tpp_id


@pytest.mark.parametrize("level", list(Level))
async def test_what_is_blocked_must_be_unblocked_and_then_is_active(keeper, clock, level):
    await activate_all(keeper, clock, "a", ACTOR)
    await act_on(keeper, clock, "a", level, Act.BLOCK, ACTOR)
    assert "blocked" in await states(keeper)
    refused = await activate_all(keeper, clock, "a", ACTOR)
    assert refused.check == "registration.state"
    await act_on(keeper, clock, "a", level, Act.UNBLOCK, ACTOR)
    assert await states(keeper) == ("active", "active", "active")


async def test_what_is_not_blocked_cannot_be_unblocked(keeper, clock):
    fault = await act_on(keeper, clock, "a", Level.TPP, Act.UNBLOCK, ACTOR)
    assert fault.check == "registration.state"


async def test_an_unknown_registration_is_said_to_be_one(keeper, clock):
    fault = await act_on(keeper, clock, "x", Level.TPP, Act.BLOCK, ACTOR)
    assert (fault.status, fault.check) == (404, "registration.unknown")


async def test_registering_again_keeps_the_states_and_updates_what_the_framework_says(
    keeper, clock
):
    await activate_all(keeper, clock, "a", ACTOR)
    renamed = msgspec.structs.replace(client(), name="New name")
    await register(keeper, clock, SeededDice(), renamed, activate=False, events=[event()])
    held, _ = await keeper.lookup(Registration, "a")
    assert held.framework["name"] == "New name"
    assert held.client_state == "active"


async def test_automatic_activation_does_not_lift_a_block(keeper, clock):
    await act_on(keeper, clock, "a", Level.CLIENT, Act.BLOCK, ACTOR)
    await register(keeper, clock, SeededDice(), client(), activate=True, events=[event()])
    assert await states(keeper) == ("active", "active", "blocked")


async def test_a_store_that_takes_nothing_is_a_fault_and_no_change(keeper, clock):
    keeper.refusal = hub_fault(503, "x", "full", check="keeper.full")
    fault = await activate_all(keeper, clock, "a", ACTOR)
    assert fault.check == "keeper.full"
    keeper.refusal = None
    assert await states(keeper) == ("inactive",) * 3


ORDER = {"inactive": 0, "active": 1}


@given(st.lists(st.tuples(st.sampled_from(list(Level)), st.sampled_from(list(Act))), max_size=12))
def test_no_sequence_of_acts_activates_a_level_out_of_order(acts):
    held = Registration(client_id="a", organisation_id=ORG, software_statement_id="a", tpp_id="t")
    seen = set()
    for level, act in acts:
        done = stepped(held, level, act)
        held = held if isinstance(done, Fault) else done
        if act is Act.ACTIVATE and not isinstance(done, Fault):
            assert getattr(held, f"{level}_state") == "active"
        levels = (held.tpp_state, held.statement_state, held.client_state)
        ever = [
            state != "inactive" or level in seen for level, state in zip(Level, levels, strict=True)
        ]
        seen |= {lv for lv, state in zip(Level, levels, strict=True) if state == "active"}
        for upper, lower in ((0, 1), (1, 2)):
            assert levels[lower] != "active" or ever[upper]


def test_a_block_of_what_never_was_active_is_lifted_to_inactive():
    held = Registration(client_id="a", organisation_id=ORG, software_statement_id="a", tpp_id="t")
    blocked = stepped(held, Level.TPP, Act.BLOCK)
    assert stepped(blocked, Level.TPP, Act.BLOCK) == blocked
    assert stepped(blocked, Level.TPP, Act.UNBLOCK) == held


def test_activating_everything_leaves_blocks_alone():
    held = Registration(
        client_id="a",
        organisation_id=ORG,
        software_statement_id="a",
        tpp_id="t",
        statement_state="blocked",
    )
    done = all_active(held)
    assert (done.tpp_state, done.statement_state, done.client_state) == (
        "active",
        "blocked",
        "inactive",
    )
