"""HTTP/2 towards the bank over its life: rests, renewed credentials, uploads, deadlines of many, bounds."""

import pytest
import trio
import trio.testing

from hub.model.fault import Fault
from tests.protocol.h2_frames import DATA
from tests.upstream.h2_bank import bank2, plainly, serving
from tests.upstream.scripted import get, limits, post
from tests.waiting import until


async def test_a_payment_goes_over_a_new_connection_if_the_old_one_ended_while_it_rested(tmp_path):
    farewells = {1: "goaway", 2: "end", 3: "reset"}
    left = trio.Event()

    async def script(frames):
        nonlocal left
        await frames.begin()
        await frames.answer(await frames.request())
        farewell = farewells.get(frames.number)
        if farewell == "goaway":
            await frames.goaway(1)
        elif farewell == "end":
            await frames.line.stream.aclose()
        elif farewell == "reset":
            frames.line.reset()
        left.set()
        await serving(frames)

    async with bank2(script, tmp_path) as (peer, hub):
        for number in (1, 2, 3, 4):
            assert (await hub.exchange(post())).status == 200
            assert peer.connections == number
            await left.wait()
            await trio.testing.wait_all_tasks_blocked()
            left = trio.Event()


async def test_changed_credentials_are_used_for_new_connections_and_the_old_ones_finish(tmp_path):
    go = trio.Event()

    async def script(frames):
        await frames.begin()
        held = await frames.request()
        if frames.number == 1:
            await go.wait()
        await frames.answer(held, b"%d" % frames.number)
        await serving(frames)

    async with bank2(script, tmp_path) as (peer, hub):
        answers = {}

        async def one(name):
            answers[name] = (await hub.exchange(get())).body

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "before")
            await until(lambda: peer.frames and peer.frames[0].requests, 5, "the first request")
            renewed = peer.identity.ca.issue_cert("hub2.example", organization_name="Bank")
            renewed.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
            renewed.private_key_pem.write_to_path(tmp_path / "k.pem")
            hub.reload()
            await one("after")
            go.set()
        assert answers == {"before": b"1", "after": b"2"}


@pytest.mark.parametrize("http2", [True, False])
async def test_a_connection_that_was_being_opened_while_credentials_changed_is_used_once(
    tmp_path, monkeypatch, http2
):
    def renew(peer, hub):
        if not peer.connections:
            renewed = peer.identity.ca.issue_cert("hub2.example", organization_name="Bank")
            renewed.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
            renewed.private_key_pem.write_to_path(tmp_path / "k.pem")
            hub.reload()

    async with bank2(plainly, tmp_path, accepted=renew) as (peer, hub):
        if not http2:
            monkeypatch.setattr(hub, "_multiplexed", None)
        for _ in range(3):
            assert (await hub.exchange(get())).status == 200
        assert peer.connections == 2


async def test_a_bank_that_answers_an_upload_early_is_heard_and_the_rest_is_not_sent(tmp_path):
    async def script(frames):
        await frames.begin()
        kind = stream = None
        while kind != DATA:
            kind, _, stream, _ = await frames.frame()
        frames.bodies[stream] = b""
        await frames.answer(stream, b"", "413")
        await serving(frames)

    async def endless():
        while True:
            yield b"z" * 1000
            await trio.lowlevel.checkpoint()

    async with bank2(script, tmp_path) as (peer, hub):
        answer = await hub.exchange(post(b"", stream=endless(), headers=(), deadline_ms=5000))
        assert answer.status == 413
        assert (await hub.exchange(get())).status == 200
        assert peer.connections == 1
        assert peer.frames[0].resets == [(1, 0)]


async def test_an_upload_that_is_not_as_long_as_announced_never_becomes_a_request(tmp_path):
    async def pieces(*values):
        for value in values:
            yield value

    headers = ((b"content-length", b"5"),)
    async with bank2(plainly, tmp_path) as (peer, hub):
        for wrong in ((b"abc",), (b"abc", b"defg")):
            fault = await hub.exchange(post(b"", stream=pieces(*wrong), headers=headers))
            assert fault.check == "bank.reset"
        good = await hub.exchange(post(b"", stream=pieces(b"abc", b"de"), headers=headers))
        assert good.status == 200
        assert peer.frames[0].bodies[5] == b"abcde"
        assert [number for number, _ in peer.frames[0].resets] == [1, 3]


async def test_a_deadline_shorter_than_the_readers_is_kept_to_the_millisecond(tmp_path):
    async def script(frames):
        await frames.begin()
        while True:
            await frames.request()

    async with bank2(script, tmp_path) as (_, hub):
        late = {}

        async def one(deadline_ms):
            began = trio.current_time()
            assert (await hub.exchange(get(deadline_ms=deadline_ms))).check == "bank.timeout"
            late[deadline_ms] = trio.current_time() - began - deadline_ms / 1000

        async with trio.open_nursery() as nursery:
            for deadline_ms in (500, 300, 450, 200, 600):
                nursery.start_soon(one, deadline_ms)
                await trio.testing.wait_all_tasks_blocked()
        assert all(0 <= seconds < 0.25 for seconds in late.values()), late


async def test_connections_are_bounded_whatever_the_bank_allows(tmp_path):
    open_at_once = []

    async def script(frames):
        await frames.begin(b"\0\3" + (1).to_bytes(4))
        await frames.answer(await frames.request())
        while True:
            await frames.request()
            open_at_once.append(hub._multiplexed.connections)

    bounds = limits(bank_connections=2, bank_exchanges=10, bank_waiting=3)
    results = []
    async with bank2(script, tmp_path, bounds=bounds) as (_, hub):
        await hub.exchange(get())

        async def one():
            answer = await hub.exchange(get(deadline_ms=2000))
            results.append(answer.check if isinstance(answer, Fault) else "answered")

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
        # One that stayed silent until a deadline may be given up for another one, but never beside two.
        assert max(open_at_once) <= 2
        # Whoever gets a slot in the last moment has no time left to connect.
        assert set(results) <= {"bank.timeout", "bank.busy", "bank.unreachable", "answered"}
        assert results.count("bank.busy") >= 7
