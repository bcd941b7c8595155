"""Housekeeping: health is polled, certificates are taken up, resting connections end, nothing stays open."""

import trio
import trio.testing

from tests.upstream.scripted import OK, Identity, answering, bank, get, limits
from tests.waiting import until


async def test_health_operations_are_polled_and_counted(tmp_path):
    asked = []
    three = trio.Event()

    async def script(line):
        while head := await line.request():
            asked.append(head.split()[1].decode())
            await line.say(OK)
            if len(asked) == 3:
                three.set()

    async with bank(script, tmp_path) as (_, hub):
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            with trio.fail_after(5):
                await three.wait()
            await until(lambda: (hub.busy, hub.idle) == (0, 1), 5, "the last answer to be taken")
            nursery.cancel_scope.cancel()
        assert asked == ["/hello", "/hello-mtls", "/echo-cert"]
        assert hub.idle == 0, "the end of the house closes everything"


async def test_a_changed_certificate_is_used_for_new_connections(tmp_path):
    identity = Identity(tmp_path)
    async with bank(answering(OK), tmp_path, identity=identity) as (peer, hub):
        await hub.exchange(get())
        renewed = identity.ca.issue_cert("hub2.example", organization_name="Bank")
        renewed.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
        renewed.private_key_pem.write_to_path(tmp_path / "k.pem")
        hub.reload()
        await hub.exchange(get())
        assert peer.connections == 2


async def test_a_certificate_that_is_no_good_leaves_the_old_one_in_use(tmp_path):
    async with bank(answering(OK), tmp_path) as (peer, hub):
        await hub.exchange(get())
        (tmp_path / "c.pem").write_text("nonsense")
        hub.reload()
        assert (await hub.exchange(get())).status == 200
        assert peer.connections == 1


async def test_a_connection_that_is_too_old_or_rested_too_long_is_replaced(tmp_path, mock_clock):
    for bounds in (limits(bank_age_s=0.05), limits(bank_idle_s=0.05)):
        async with bank(answering(OK), tmp_path, bounds=bounds) as (peer, hub):
            await hub.exchange(get())
            mock_clock.jump(0.06)
            await hub.exchange(get())
            assert peer.connections == 2
