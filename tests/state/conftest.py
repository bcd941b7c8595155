"""The keepers that the one conformance suite runs against."""

from collections.abc import AsyncIterator

import pytest

from hub.model.clock import FixedClock
from tests.state.keepers import KEEPERS


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_800_000_000)


@pytest.fixture(params=sorted(KEEPERS))
async def keeper(request, clock, tmp_path) -> AsyncIterator[object]:
    async with KEEPERS[request.param](clock, tmp_path) as opened:
        yield opened
