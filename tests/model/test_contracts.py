"""The contracts that every package builds on: values are frozen, closed and survive their encodings."""

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import LAWFUL, TERMINAL, ConsentType, Party, Status, may_become
from hub.model.event import Event, Kind, leaf_bytes
from hub.model.failpoint import Point, no_failpoint
from hub.model.fault import caller_fault
from hub.model.records import Seen, digest_of
from hub.state.keeper import Change, Drop, Put


def test_an_event_is_a_closed_json_object_of_strings_integers_and_booleans():
    event = Event(kind=Kind.CALL, time_ms=1, interaction_id="i", status=200, route="par")
    decoded = orjson.loads(leaf_bytes(event))
    assert decoded["v"] == 1
    assert all(isinstance(value, str | int | bool) for value in decoded.values())
    assert set(decoded) <= set(Event.__struct_fields__)


@given(st.integers(0, 2**52), st.text(max_size=40), st.integers(0, 599))
def test_the_leaf_of_an_event_decodes_to_the_same_event(time_ms, route, status):
    event = Event(kind=Kind.OUTCOME, time_ms=time_ms, route=route, status=status)
    assert msgspec.json.decode(leaf_bytes(event), type=Event) == event


def test_an_event_cannot_be_changed():
    event = Event(kind=Kind.CALL, time_ms=1)
    with pytest.raises(AttributeError):
        event.status = 3


@pytest.mark.parametrize(
    "change", [Put(Seen(space="jti", value="x", until=9), 0), Drop("seen", "jti\x00x", None)]
)
def test_changes_survive_the_socket_encoding(change):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=Change) == change


def test_terminal_states_have_no_way_out():
    assert not [pair for pair in LAWFUL if pair[0] in TERMINAL]


def test_only_payment_consents_are_consumed():
    assert not may_become(ConsentType.ACCOUNT_ACCESS, Status.AUTHORIZED, Status.CONSUMED, Party.HUB)
    assert may_become(ConsentType.SERVICE_INITIATION, Status.AUTHORIZED, Status.CONSUMED, Party.HUB)


def test_the_clock_and_the_dice_are_given():
    clock = FixedClock(1000.5)
    clock.advance(60)
    assert (clock.now(), clock.now_ms()) == (1060, 1060500)
    assert SeededDice("a").uuid() == SeededDice("a").uuid() != SeededDice("b").uuid()
    assert SeededDice("a").uuid()[14] == "4"


def test_a_failpoint_without_a_plan_does_nothing():
    assert [no_failpoint(point) for point in Point] == [None] * len(Point)


def test_a_fault_is_a_value_that_names_its_source():
    fault = caller_fault(400, "invalid_request", "scope: expected one value, got two", check="x")
    assert fault.source == "caller"


def test_a_secret_is_stored_under_its_digest_only():
    assert digest_of("abc") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
