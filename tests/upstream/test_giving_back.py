"""Whatever befalls an exchange with the bank, what it took is given back: plans by chance over HTTP/2 and HTTP/1.1."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.upstream.giving_back import BEHAVIOURS, run

PROTOCOLS = ("h2", "http/1.1")
WORDS = (
    *("call",) * 10, *("cancel",) * 3, *("take",) * 4, *("abandon",) * 2, *("pass",) * 4, "cut", "close", "retire",
)  # fmt: skip
STEP = st.tuples(
    st.sampled_from(WORDS),
    st.integers(0, 19),
    st.integers(0, len(BEHAVIOURS) - 1),
    st.booleans(),
)
PLANS = st.lists(STEP, min_size=4, max_size=30)
BUSY = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
HANG, LATE = BEHAVIOURS.index("hang"), BEHAVIOURS.index("late")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=20, derandomize=True, suppress_health_check=BUSY, database=None)
@given(plan=PLANS)
def test_what_an_exchange_took_is_given_back_however_it_ends(protocol, plan):
    run(protocol, plan)


@pytest.mark.nightly
@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=3_000, suppress_health_check=BUSY, database=None)
@given(plan=PLANS)
def test_it_is_given_back_whatever_happens_for_minutes(protocol, plan):
    run(protocol, plan)


@pytest.mark.parametrize("first", [HANG, LATE])
def test_who_waits_has_a_place_once_the_bank_is_known_to_take_more(first):
    burst = [("call", 0, first, True), ("call", 0, HANG, True), ("call", 0, HANG, True)]
    run("h2", [*burst, ("pass", 0, 6, False), ("pass", 0, 14, False)])
