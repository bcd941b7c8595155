"""Throttling on the wire: two workers count together, and what is too much is told when to come back."""

from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio

from hub.sandbox.tpp import Ask, Wire
from tests.wire.own_hub import OwnHub, copy_state, settings_beside
from tests.wire.world import actor

pytestmark = pytest.mark.wire
ACCOUNTS = "/open-finance/account-information/v2.1/accounts"
CONNECTIONS = 16
RATE = 0.2
"""Calls per second of one client: a bucket of one call, filled again after five seconds."""


@pytest.fixture(scope="module")
def throttled(sandbox, tmp_path_factory):
    """Start a Hub of two workers that allows a client little; return it with an access token."""

    async def take():
        async with actor(sandbox) as acting:
            return (await acting.consented()).access_token

    token = trio.run(take)
    folder = tmp_path_factory.mktemp("throttled") / "hub"
    copy_state(sandbox, folder)
    settings = settings_beside(sandbox, folder, workers=2)
    settings["limits"] = {"calls_client_per_s": RATE}
    hub = OwnHub(folder, settings).start()
    yield hub, token
    assert hub.stop() == 0


def held_connections(pid: int, port: int) -> int:
    """Return how many connections to a port of ours a process holds."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(link.readlink()))
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ours = int(fields[1].rpartition(":")[2], 16) == port
        count += ours and fields[3] == "01" and f"socket:[{fields[9]}]" in found
    return count


async def test_two_workers_allow_a_client_no_more_than_one_would(sandbox, throttled):
    hub, token = throttled
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    ask = Ask(method="GET", url=f"https://localhost:{hub.port}{ACCOUNTS}", headers=headers)
    answers = []
    async with actor(sandbox) as tpp, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire.of(tpp.identity)) for _ in range(CONNECTIONS)]
        nothing = Ask(method="GET", url=f"https://localhost:{hub.port}/no-such-path")

        async def call(wire, one):
            answers.append(await wire.carry(one))

        async with trio.open_nursery() as nursery:
            for wire in wires:
                nursery.start_soon(call, wire, nothing)
        answers.clear()
        holding = [held_connections(pid, hub.port) for pid in hub.workers()]
        assert sum(count > 0 for count in holding) == 2, holding
        with trio.fail_after(1 / RATE):
            async with trio.open_nursery() as nursery:
                for wire in wires:
                    nursery.start_soon(call, wire, ask)
    assert Counter(a.status for a in answers) == {200: 1, 429: CONNECTIONS - 1}
    refused = [a for a in answers if a.status == 429]
    assert all(a.body == b"" and 1 <= int(a.headers["retry-after"]) <= 1 / RATE for a in refused)
