"""What a long answer of the bank costs a real Hub in memory: passed on nothing that grows with it, mapped a bounded multiple."""

from contextlib import AsyncExitStack
from functools import partial

import msgspec
import pytest
import trio

from bench.evidence import append
from tests.waiting import pause_of_a_peer, until
from tests.wire.load import Ask, Load
from tests.wire.operations import PAYMENTS, Known, prepare
from tests.wire.own_hub import OwnHub, copy_state, free_ports, settings_beside
from tests.wire.test_attacks import GREETING, memory_of
from tests.wire.test_bank_chaos import ScriptedBank, read_head
from tests.wire.test_catalogue import connect
from tests.wire.test_lifecycle import ACCOUNTS, DISCOVERY, reissued, tpp_context

pytestmark = pytest.mark.wire

OCTETS = 10_000_000
MAPPED_MOST = 12
"""Octets of memory for each octet of an answer that is parsed, judged, mapped and written: once, not for each caller."""


@pytest.fixture(scope="module")
def known(sandbox) -> Known:
    """Prepare consents, tokens, payments and files."""
    return trio.run(prepare, sandbox)


@pytest.fixture(scope="module")
def hub_and_bank(sandbox, known, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat") / "hub"
    copy_state(sandbox, folder)
    (port,) = free_ports(1)
    bank = {"base_url": f"https://localhost:{port}", "validate": False, "events": False}
    hub = OwnHub(folder, settings_beside(sandbox, folder, bank=bank))
    hub.start()
    yield hub, ScriptedBank(port, *reissued(sandbox)[0])
    assert hub.stop() == 0
    assert b"Traceback" not in hub.log.read_bytes(), hub.tail()


def saying(body: bytes, kind: bytes):
    """Answer every request by one body."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))

    async def script(stream):
        while True:
            await read_head(stream)
            await stream.send_all(head)
            for at in range(0, len(body), 65_536):
                await stream.send_all(body[at : at + 65_536])

    return script


async def peak(hub, sandbox, ask, count):
    """Ask so often, one after the other; return by how much the Hub's memory grew at most, and the statuses."""
    before = most = memory_of(hub.pid)
    load = Load(hub.port, tpp_context(sandbox), [ask])
    async with trio.open_nursery() as nursery:

        async def look():
            nonlocal most
            while True:
                most = max(most, memory_of(hub.pid))
                await pause_of_a_peer(0.005)

        nursery.start_soon(look)
        nursery.start_soon(load.run, 1, 1)
        await until(lambda: load.answered >= count, 60, f"{count} answers")
        load.stopping = True
        await until(lambda: len(load.times) >= count, 60, f"{count} whole answers")
        nursery.cancel_scope.cancel()
    return most - before, set(load.statuses)


async def measured(hub_and_bank, sandbox, script, ask, count):
    hub, bank = hub_and_bank
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(bank.serve, script))
        found = await peak(hub, sandbox, ask, count)
        nursery.cancel_scope.cancel()
    return found


def accounts(octets):
    """Return the bank's list of as many accounts as make so many octets."""
    one = {"accountId": "100100000001", "status": "Active", "currency": "AED", "accountType": "Retail", "accountSubType": "CurrentAccount"}  # fmt: skip
    count = octets // len(msgspec.json.encode(one))
    return msgspec.json.encode({"data": [one] * count, "meta": {"paginated": False}})


@pytest.mark.parametrize("count", [200, pytest.param(1000, id="many", marks=pytest.mark.nightly)])
async def test_an_idle_connection_takes_less_than_sixty_kilobytes(hub_and_bank, sandbox, count):
    """First of this module's tests: what others have used and given back would hide what these take."""
    hub, _ = hub_and_bank
    load = Load(hub.port, tpp_context(sandbox), [Ask("GET", DISCOVERY, hub.port)])
    async with await connect(hub, load.context, "127.0.2.1"):
        before = memory_of(hub.pid)
        async with AsyncExitStack() as held:
            for number in range(count):
                stream = await connect(hub, load.context, f"127.0.2.{number % 4 + 1}")
                await held.enter_async_context(stream)
                await stream.send_all(GREETING + load.asks[0].octets(1))
                await stream.receive_some(65536)
            taken = (memory_of(hub.pid) - before) // count
    if count == 1000:
        append("memory of an idle connection", {"connections": count}, (), {"octets": taken})
    assert taken < 60_000, taken


async def test_a_report_of_ten_megabytes_is_passed_on_in_flat_memory(hub_and_bank, sandbox, known):
    path = f"/open-finance/payment/v2.1/file-payments/{known.file_payment_id}/report"
    token = f"Bearer {known.clients[PAYMENTS]}"
    ask = Ask("GET", path, hub_and_bank[0].port, authorization=token)
    small = saying(b"x" * 1000, b"text/csv")
    await measured(hub_and_bank, sandbox, small, ask, 3)
    long = saying(b"x" * OCTETS, b"text/csv")
    grown, statuses = await measured(hub_and_bank, sandbox, long, ask, 3)
    assert statuses == {200}
    assert grown < 2_000_000, grown
    events = [line for line in hub_and_bank[0].log.read_bytes().splitlines() if b"report" in line]
    assert b'"octets_out":10000000' in events[-1]


async def test_a_mapped_answer_of_ten_megabytes_costs_a_bounded_multiple_once(
    hub_and_bank, sandbox, known
):
    ask = Ask("GET", ACCOUNTS, hub_and_bank[0].port, authorization=f"Bearer {known.user}")
    script = saying(accounts(OCTETS), b"application/json")
    before = memory_of(hub_and_bank[0].pid)
    for count in (1, 2):
        grown, statuses = await measured(hub_and_bank, sandbox, script, ask, count)
        assert statuses == {200}
        assert grown < MAPPED_MOST * OCTETS
    assert memory_of(hub_and_bank[0].pid) - before < 3 * OCTETS, "it is given back"
