"""Group I of the catalogue over the wire: whatever the bank does, a mapped error in time, and other traffic unharmed."""

import ssl
import time
from functools import partial

import msgspec
import pytest
import trio

from bench.evidence import append
from tests.waiting import pause_of_a_peer, until
from tests.wire.load import Ask, Load
from tests.wire.own_hub import OwnHub, copy_state, free_ports, settings_beside
from tests.wire.test_lifecycle import ACCOUNTS, DISCOVERY, reissued, tpp_context, under_load

pytestmark = pytest.mark.wire

DEADLINE_S = 0.6
SLACK_S, SLACK_LOADED_S = 0.05, 0.4
"""Beyond the deadline: as the issue says in the nightly lane; in CI other work may hold the machine up."""
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def read_head(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(65536)
        if not data:
            raise trio.BrokenResourceError
        head += data


def saying(*pieces, pause=0.0, hang=True):
    async def script(stream):
        while True:
            await read_head(stream)
            for piece in pieces:
                await stream.send_all(piece)
                await pause_of_a_peer(pause)
            if hang:
                await trio.sleep_forever()

    return script


async def hang_up(stream):
    await read_head(stream)
    await stream.aclose()


async def reset(stream):
    await read_head(stream)
    await stream.send_all(OK[:20])
    raw = stream.transport_stream.socket
    raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()


async def headers_without_end(stream):
    await read_head(stream)
    await stream.send_all(OK)
    while True:
        await stream.send_all(b"x-more: " + b"y" * 8000 + b"\r\n")


SCRIPTS = {
    "hangs before its headers": saying(),
    "hangs after its headers": saying(OK + b"content-length: 10\r\n\r\n"),
    "half a body": saying(OK + b"content-length: 10\r\n\r\nhalf"),
    "one octet at a time": saying(*[bytes([c]) for c in OK * 20], pause=0.2),
    "hangs up": hang_up,
    "resets": reset,
    "less than announced": saying(OK + b"content-length: 2\r\n\r\n{", hang=False),
    "more than announced": saying(OK + b"content-length: 1\r\n\r\n{}", hang=False),
    "two lengths": saying(OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", hang=False),
    "two answers": saying(
        OK + b"content-length: 2\r\n\r\n{}" + OK + b"content-length: 2\r\n\r\n[]", hang=False
    ),
    "headers without end": headers_without_end,
    "no HTTP": saying(b"\0\1\2 nonsense\r\n\r\n"),
    "no JSON": saying(OK + b"content-length: 5\r\n\r\n{nono", hang=False),
    "interim answers for ever": saying(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 400, pause=0.01),
    "500": saying(b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}", hang=False),
    "503": saying(b"HTTP/1.1 503 Away\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", hang=False),
    "429": saying(
        b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}", hang=False
    ),
}
OTHER_WAYS = ("no listener", "accepts nothing", "no TLS", "another certificate")


class ScriptedBank:
    """A bank on one port whose behaviour a test exchanges."""

    def __init__(self, port, certificate, key):
        self.port = port
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate, key)

    async def serve(self, script, *, context=None, task_status):
        context = context or self.context

        async def one(stream):
            try:
                await stream.do_handshake()
                await script(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await trio.aclose_forcefully(stream)

        await trio.serve_tcp(
            lambda raw: one(trio.SSLStream(raw, context, server_side=True)),
            self.port,
            host="127.0.0.1",
            task_status=task_status,
        )

    async def misbehave(self, way, *, task_status):
        """Be a bank that cannot be spoken with."""
        if way == "no listener":
            task_status.started()
            return
        if way == "accepts nothing":
            listener = trio.socket.socket()
            listener.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            await listener.bind(("127.0.0.1", self.port))
            listener.listen(1)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                listener.close()
        if way == "another certificate":
            from tests.edge import rig

            other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            other.load_cert_chain(rig.papers().certificate, rig.papers().key)
            await self.serve(saying(), context=other, task_status=task_status)

        async def plain(stream):
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await stream.aclose()

        await trio.serve_tcp(plain, self.port, host="127.0.0.1", task_status=task_status)


@pytest.fixture(scope="module")
def chaotic(sandbox, consented_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos") / "hub"
    copy_state(sandbox, folder)
    (port,) = free_ports(1)
    settings = settings_beside(
        sandbox,
        folder,
        bank={"base_url": f"https://localhost:{port}", "validate": False, "events": False},
    )
    settings["limits"] = {
        "bank_exchange_s": DEADLINE_S,
        "bank_connect_s": DEADLINE_S,
        "bank_failures": 100_000,
        "bank_health_s": 3600.0,
    }
    hub = OwnHub(folder, settings)
    hub.start()
    yield hub, ScriptedBank(port, *reissued(sandbox)[0])
    assert hub.stop() == 0
    assert b"Traceback" not in hub.log.read_bytes(), hub.tail()


@pytest.fixture(scope="module")
def consented_here(sandbox):
    from tests.wire.world import actor

    async def take():
        async with actor(sandbox) as acting:
            return (await acting.consented()).access_token

    return trio.run(take)


async def one_get(hub, context, token):
    """Send one consented GET; return status, headers, body and seconds."""
    load = Load(
        hub.port, context, [Ask("GET", ACCOUNTS, hub.port, authorization=f"Bearer {token}")]
    )
    load.most = 1
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, 1, 1)
        took = (await until(lambda: load.times, 10, "the one answer"))[0][1]
        load.stopping = True
    assert time.monotonic() - began < 10
    return next(iter(load.statuses)), took


async def check(chaotic, sandbox, token, serve, slack):
    hub, _ = chaotic
    context = tpp_context(sandbox)
    others = Load(
        hub.port, context, [Ask("GET", DISCOVERY, hub.port), Ask("GET", ACCOUNTS, hub.port)]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        async with under_load(others, connections=1, streams=1):
            status, took = await one_get(hub, context, token)
        nursery.cancel_scope.cancel()
    assert 400 <= status <= 599, status
    assert took < DEADLINE_S + slack, took
    assert set(others.statuses) == {200, 401}
    assert not [*others.broken, *others.unanswered]
    slowest = max(seconds for _, seconds in others.times)
    assert slowest < DEADLINE_S, "other traffic does not wait for the bank"
    return {"status": status, "ms": round(took * 1000)}


LANES = [
    pytest.param(SLACK_LOADED_S, id="short"),
    pytest.param(SLACK_S, id="strict", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize("slack", LANES)
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_bank_that(chaotic, sandbox, consented_here, name, slack):
    found = await check(
        chaotic, sandbox, consented_here, partial(chaotic[1].serve, SCRIPTS[name]), slack
    )
    if slack == SLACK_S:
        append(f"bank chaos: {name}", {"calls": 1}, (), found)


@pytest.mark.parametrize("slack", LANES)
@pytest.mark.parametrize("way", OTHER_WAYS)
async def test_a_bank_with(chaotic, sandbox, consented_here, way, slack):
    found = await check(chaotic, sandbox, consented_here, partial(chaotic[1].misbehave, way), slack)
    if slack == SLACK_S:
        append(f"bank chaos: {way}", {"calls": 1}, (), found)


async def test_a_good_bank_is_good_again_at_once(chaotic, sandbox, consented_here):
    hub, bank = chaotic
    body = msgspec.json.encode({"data": [], "meta": {"paginated": False}})
    good = saying(OK + b"content-length: %d\r\n\r\n" % len(body) + body, hang=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(bank.serve, good)
        status, _ = await one_get(hub, tpp_context(sandbox), consented_here)
        nursery.cancel_scope.cancel()
    assert status == 200, "an empty list of accounts"
