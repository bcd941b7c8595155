"""Sixty-four orders at once over two workers, against a limit that lets ten through."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio

from hub.sandbox.tpp import Refused
from hub.sandbox.tpp.schedules import controls, variable_on_demand
from tests.wire.payer import Payer

pytestmark = pytest.mark.wire


def today(tpp) -> str:
    """Return the date in Dubai."""
    moment = datetime.fromtimestamp(tpp.identity.clock.now(), UTC) + timedelta(hours=4)
    return moment.date().isoformat()


def at_the_bank(sandbox, consent_id: str) -> dict[str, str]:
    """Return the payments of a consent in the bank's own book: key to payment id."""
    [book] = sandbox.folder.rglob("bank.jsonl")
    found = {}
    for line in book.read_bytes().splitlines():
        note = msgspec.json.decode(line)
        if note["type"] == "payment" and note["payment"]["consent_id"] == consent_id:
            payment = note["payment"]
            assert found.setdefault(payment["key"], payment["id"]) == payment["id"]
    return found


async def test_of_64_orders_at_once_exactly_ten_reach_the_bank(general_sandbox, general_tpp):
    day = today(general_tpp)
    schedule = variable_on_demand("Day", day, controls(number=10, most="2.00"))
    payer = await (await Payer.at(general_tpp)).consented(schedule)
    statuses, codes = [], set()

    async def order(number: int) -> None:
        answer, message = await payer.order(f"k-{number}", f"1.{number:02d}")
        statuses.append(answer.status)
        if isinstance(message, Refused):
            codes.add(message.code)

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(order, number)
    assert statuses.count(201) == 10, (statuses, codes)
    assert statuses.count(400) == 54
    assert codes == {"Consent.FailsControlParameters"}
    assert len(at_the_bank(general_sandbox, payer.consent_id)) == 10
