"""A disk that takes nothing: payments are refused within a second, none is half done, and all goes on when there is space."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from hub.sandbox.control import ask as tell_world
from hub.sandbox.tpp.schedules import controls, variable_on_demand
from tests.waiting import until
from tests.wire.crashes import book_of
from tests.wire.newcomer import log_of
from tests.wire.payer import Payer
from tests.wire.test_payment_crowd import today
from tests.wire.world import moved

pytestmark = pytest.mark.wire


@contextmanager
def full_disk(sandbox) -> Iterator[None]:
    """Let no file of the Hub grow, as a full disk does."""
    [pid] = sandbox.manifest.hub.pids
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def payer_of(tpp) -> Payer:
    schedule = variable_on_demand("Day", today(tpp), controls(number=5, most="9.00"))
    return await (await Payer.at(tpp)).consented(schedule)


async def test_a_full_disk_refuses_payments_within_a_second_and_goes_on_without_a_restart(
    sandbox, tpp
):
    payer = await payer_of(tpp)
    first, _ = await payer.order("d-1", "1.01")
    assert first.status == 201
    with full_disk(sandbox):
        for _ in range(3):
            began = trio.current_time()
            answer, _ = await payer.order("d-2", "1.02")
            assert answer.status == 503
            assert answer.headers["retry-after"]
            assert trio.current_time() - began < 1
        began = trio.current_time()
        again, _ = await payer.order("d-1", "1.01")
        assert again.status == 503, "no answer without its event"
        assert trio.current_time() - began < 1
    assert set(book_of(sandbox, payer.consent_id)[0]) == {"d-1"}
    later, message = await payer.order("d-2", "1.02")
    assert later.status == 201, message
    again, _ = await payer.order("d-1", "1.01")
    assert (again.status, again.body) == (201, first.body)


async def test_a_payment_that_is_under_way_when_the_disk_fills_up_is_neither_lost_nor_made_twice(
    sandbox, tpp
):
    payer = await payer_of(tpp)
    plan = {"path": "/payments", "latency_s": 0.6, "times": 1}
    assert (await tell_world(sandbox.folder, {"do": "fault", "at": "bank", "plan": plan}))["ok"]
    answers = []

    answered = trio.Event()

    async def order() -> None:
        answers.append((await payer.order("d-9", "1.09"))[0])
        answered.set()

    def under_way() -> bool:
        mine = (
            e for e in log_of(sandbox.folder / "state") if e.get("consent_id") == payer.consent_id
        )
        return any(e["kind"] == "intent" for e in mine)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await until(under_way, 5, "the payment's intent to be written")
        with full_disk(sandbox):
            began = trio.current_time()
            await answered.wait()
            assert trio.current_time() - began < 0.6 + 1
    assert answers[0].status == 503
    async with moved(sandbox, 61):
        answer, message = await payer.order("d-9", "1.09")
    assert answer.status == 201, message
    made, _ = book_of(sandbox, payer.consent_id)
    assert list(made) == ["d-9"]
