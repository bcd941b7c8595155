"""A Hub with a million consents: its store's lookups and lists stay quick, and it is ready within five seconds."""

import os
import time

import pytest

from bench.evidence import append
from hub.model.clock import FixedClock
from tests.state.keepers import NOW
from tests.state.test_scale import assert_quick, measured
from tests.wire.own_hub import OwnHub, copy_state, settings_beside

pytestmark = [pytest.mark.wire, pytest.mark.nightly]
COUNT = int(os.environ.get("MANY_CONSENTS", "1000000"))
READY_S = 5


def seconds_to_ready(hub: OwnHub) -> float:
    """Start a Hub and stop it again; return the seconds until it was ready."""
    hub.start()
    took = time.monotonic() - hub.began
    assert hub.stop() == 0
    return took


async def test_a_million_consents_slow_neither_the_store_nor_the_start(sandbox, tmp_path):
    state = tmp_path / "state"
    copy_state(sandbox, state)
    found = await measured(state, FixedClock(NOW), COUNT)
    hub = OwnHub(tmp_path / "hub", settings_beside(sandbox, state))
    seconds_to_ready(hub)
    # What the first start compiled is there for the second.
    found["hub_ready"] = 1000 * seconds_to_ready(hub)
    append("a million consents", {"consents": COUNT, "lookups": 2000}, [1], found)
    assert_quick(found)
    assert found["hub_ready"] < 1000 * READY_S, found
