"""The Hub's own Unix sockets while the machine has run out of descriptors."""

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio

from hub.model.clock import FixedClock, SeededDice
from hub.node.worker import _offer_metrics
from hub.observe import Observer
from hub.state.socket import serve_keeper
from hub.trust.admin import Office, serve_admin
from tests.waiting import until

CLOCK = FixedClock(1_780_000_000)


@contextmanager
def no_descriptors() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


class Closed:
    """Stand for a keeper that nobody asks."""

    def attend(self, _tell):
        return lambda: None


@pytest.mark.parametrize("which", ["operator", "keeper", "metrics"])
async def test_who_asks_waits_for_a_descriptor_and_ends_nobody(tmp_path, which):
    path = tmp_path / "s"
    observer = Observer(CLOCK, log=False)
    office = Office({}, keeper=Closed(), clock=CLOCK, dice=SeededDice("admin"))
    serve = {
        "operator": partial(serve_admin, path, office),
        "keeper": partial(serve_keeper, Closed(), path),
        "metrics": partial(_offer_metrics, path, observer),
    }[which]
    ended = False

    async def run() -> None:
        nonlocal ended
        try:
            await serve()
        finally:
            ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until(path.exists, 5, "the socket")
        with socket.socket(socket.AF_UNIX) as asking:

            def connected() -> bool:
                try:
                    asking.connect(str(path))
                except ConnectionRefusedError:
                    return False
                return True

            await until(connected, 5, "it to listen")
            with no_descriptors():
                for _ in range(10):
                    await trio.testing.wait_all_tasks_blocked()
            assert not ended
            asking.shutdown(socket.SHUT_WR)
            asking.setblocking(False)
            await trio.lowlevel.wait_readable(asking)
            asking.recv(1)
        assert not ended
        nursery.cancel_scope.cancel()
    observer.close()
