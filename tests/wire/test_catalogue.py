"""Attacks of the catalogue at its own numbers, from many addresses: slow readers, slow senders, crowds, handshakes.

Each runs shortly in CI, where its mechanism is asserted, and in the nightly lane at the numbers of reliability.md section
2 with its criterion. ``tests/wire/test_attacks.py`` has the floods of frames.
"""

import os
import re
import ssl
import subprocess
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import trio

from bench.evidence import append
from hub.protocol.h2_output import frame
from tests.waiting import pause_of_a_peer, until
from tests.wire.load import PREFACE, Load
from tests.wire.own_hub import OwnHub, copy_state, settings_beside
from tests.wire.test_attacks import (
    ENTRY,
    P99_S,
    READ,
    SETTINGS,
    Attacker,
    Probe,
    hpack_bomb,
    memory_of,
)
from tests.wire.test_lifecycle import ACCOUNTS, consented, load_on, tpp_context

__all__ = ["consented"]

pytestmark = pytest.mark.wire

LANES = [
    pytest.param(False, id="short"),
    pytest.param(True, id="long", marks=pytest.mark.nightly),
]
IDLE_OCTETS, WAITING_OCTETS = 61_440, 65_536
"""Of one connection: what it may take while idle, and what may wait for its reader beside that."""
HEADERS = 1
SERVICE_LEVEL_S = 0.5
"""The regulator's level for an answer: what a crowd of the lawful, of which the probe is one, may wait."""


@pytest.fixture(scope="module")
def target(sandbox, consented, tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue") / "hub"
    copy_state(sandbox, folder)
    hub = OwnHub(folder, settings_beside(sandbox, folder))
    hub.start()
    yield hub
    assert hub.stop() == 0
    assert b"Traceback" not in hub.log.read_bytes(), hub.tail()


class Watch:
    """What a victim sees while something happens: a probe's times, the Hub's memory and processor time."""

    def __init__(self, hub, context):
        self.hub, self.probe = hub, Probe(hub, context)
        self.before, self.most = memory_of(hub.pid), 0
        self.pid, self.worked = hub.pid, self._worked()

    def _worked(self):
        fields = Path(f"/proc/{self.hub.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def look(self):
        while True:
            self.most = max(self.most, memory_of(self.hub.pid))
            await pause_of_a_peer(0.2)

    async def during(self, attack):
        async with trio.open_nursery() as nursery:
            await nursery.start(self.probe.run)
            nursery.start_soon(self.look)
            await attack()
            await until(lambda: len(self.probe.times) >= 20, 120, "twenty answers to the probe")
            nursery.cancel_scope.cancel()

    def check(self, name, counts, nightly, *, octets, p99_s=P99_S, **result):
        """Check that the process lived, and within what; append the evidence."""
        grown = max(self.most, memory_of(self.hub.pid)) - self.before
        result |= {
            "p99 ms": round(self.probe.p99 * 1000, 1),
            "grown": grown,
            "cpu s": round(self._worked() - self.worked, 2),
        }
        assert self.hub.pid == self.pid
        assert self.hub.until(self.hub.ready, 5)
        assert grown <= octets, (counts, result)
        assert self.probe.p99 < (p99_s if nightly else 4 * p99_s), (counts, result)
        if nightly:
            append(f"attack: {name}", counts, (), result)


async def connect(hub, context, address, turns=None):
    """Connect and shake hands; in ``turns``, for a crowd in one process would delay its own handshakes."""
    async with turns or nullcontext():
        return await _connect(hub, context, address)


async def _connect(hub, context, address):
    raw = await trio.open_tcp_stream("127.0.0.1", hub.port, local_address=address)
    stream = trio.SSLStream(raw, context, server_hostname="localhost", https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def closed_after(stream, within):
    """Return after how many seconds the Hub closed a connection."""
    began = trio.current_time()
    with trio.move_on_after(within), suppress(trio.BrokenResourceError, ssl.SSLError, OSError):
        while await stream.receive_some(65536):
            pass
    return trio.current_time() - began


@pytest.mark.parametrize("nightly", LANES)
async def test_a11_slow_readers_are_cut_off_and_held_in_little_memory(target, sandbox, nightly):
    count, patience = (500, 40) if nightly else (30, 1)
    context = tpp_context(sandbox)
    took: list[float] = []
    turns = trio.CapacityLimiter(16)

    async def reader(number):
        with suppress(trio.BrokenResourceError, OSError):
            stream = await connect(target, context, f"127.0.1.{number % 4 + 1}", turns)
            try:
                window = frame(SETTINGS, 0, 0, b"\0\4" + (number % 2).to_bytes(4))
                asks = b"".join(frame(HEADERS, 5, 2 * n + 1, READ) for n in range(20))
                await stream.send_all(PREFACE + window + asks)
                took.append(await closed_after(stream, patience))
            finally:
                await trio.aclose_forcefully(stream)

    async def attack():
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(reader, number)

    watch = Watch(target, context)
    resets = len(target.notes("slow_reader"))
    await watch.during(attack)
    assert len(took) == count
    if nightly:
        assert len(target.notes("slow_reader")) - resets >= count, "each lost its streams"
    watch.check(
        "A11 windows of nothing or one octet", {"connections": count}, nightly,
        octets=count * (IDLE_OCTETS + WAITING_OCTETS) + 8_000_000,
    )  # fmt: skip


SLOW = ("hello", "preface", "head", "body")
BODY = b"POST /par HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
BOUNDS = {"hello": 5, "preface": 10, "head": 10, "body": 11}


@pytest.mark.parametrize("nightly", LANES)
async def test_a12_slow_senders_are_closed_in_time_and_newcomers_connect(target, sandbox, nightly):
    count, lasting = (2000, 25) if nightly else (40, 1)
    alpn = {kind: tpp_context(sandbox, alpn="http/1.1" if kind in {"head", "body"} else "h2") for kind in SLOW}  # fmt: skip
    kept: dict[str, list[float]] = {kind: [] for kind in SLOW}
    newcomers: list[float] = []
    turns = trio.CapacityLimiter(16)
    sent = 0

    async def opened(kind, address):
        if kind == "hello":
            return await trio.open_tcp_stream("127.0.0.1", target.port, local_address=address)
        return await connect(target, alpn[kind], address, turns)

    async def trickle(stream, octets):
        nonlocal sent
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            for octet in octets:
                await stream.send_all(bytes([octet]))
                sent += 1
                await pause_of_a_peer(1.0)

    async def slow(number):
        kind = SLOW[number % 4]
        octets = {
            "hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
            "preface": PREFACE,
            "head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + bytes(500),
            "body": bytes(500),
        }
        with suppress(trio.BrokenResourceError, OSError):
            stream = await opened(kind, f"127.0.1.{number % 8 + 1}")
            try:
                if kind == "body":
                    await stream.send_all(BODY)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trickle, stream, octets[kind])
                    kept[kind].append(await closed_after(stream, lasting + 5))
                    nursery.cancel_scope.cancel()
            finally:
                await trio.aclose_forcefully(stream)

    async def newcome():
        for _ in range(10 if nightly else 3):
            began = time.monotonic()
            with trio.fail_after(5):
                await trio.aclose_forcefully(await connect(target, alpn["preface"], "127.0.0.9"))
            newcomers.append(time.monotonic() - began)
            await pause_of_a_peer(lasting / 12)

    async def attack():
        with trio.move_on_after(lasting + 10):
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(slow, number)
                nursery.start_soon(newcome)
                if not nightly:
                    await until(lambda: sent >= count, 30, "every attacker to be there")
                    await until(lambda: len(newcomers) == 3, 30, "three newcomers")
                    nursery.cancel_scope.cancel()

    watch = Watch(target, alpn["preface"])
    await watch.during(attack)
    longest = {kind: round(max(times, default=0.0), 1) for kind, times in kept.items()}
    assert max(newcomers) < (1.0 if nightly else 4.0), "new clients connect within a second"
    if nightly:
        assert all(len(times) >= count // 8 for times in kept.values()), kept
        assert all(longest[kind] <= BOUNDS[kind] + 2 for kind in SLOW), longest
    watch.check(
        "A12 slow hellos, prefaces, heads, bodies", {"connections": count}, nightly,
        octets=100 * sent + count * IDLE_OCTETS + 8_000_000,
        closed_after_s=longest, newcomer_ms=round(max(newcomers) * 1000),
    )  # fmt: skip


@pytest.mark.parametrize("nightly", LANES)
async def test_a13_a_crowd_of_the_lawful_is_served_shed_and_forgotten(
    target, sandbox, consented, nightly
):
    """More at once than ``requests`` allows: what is too much gets 503, the rest is answered in time."""
    # The catalogue's 50 x 20 in flight are fewer than ``requests`` (1,280) lets in, and nothing would be shed.
    connections, streams, lasting = (50, 30, 60) if nightly else (15, 100, 2)
    crowd: Load = load_on(target, sandbox, consented)
    crowd.asks = [
        crowd.asks[0],
        *crowd.asks[2:],
    ]  # what the Hub answers itself: the bank has a capacity of its own

    async def attack():
        with trio.move_on_after(lasting + 20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crowd.run, connections, streams)
                await pause_of_a_peer(lasting)
                crowd.stopping = True

    watch = Watch(target, tpp_context(sandbox))
    await watch.during(attack)
    after = load_on(target, sandbox, consented)
    after.asks = after.asks[:1]
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(after.run, 1, 1)
        await after.at_least(5)
        after.stopping = True
    recovered = time.monotonic() - began
    accepted = sorted(took for status, took in crowd.each if status != 503)
    p99 = accepted[int(len(accepted) * 0.99)]
    statuses = {str(k): v for k, v in sorted(crowd.statuses.items())}
    assert set(crowd.statuses) == {200, 401, 404, 503}, statuses
    assert crowd.retry_after == crowd.statuses[503], "each says when to come again"
    assert not [*crowd.unanswered, *crowd.broken], "nobody hangs"
    assert set(after.statuses) == {200}
    if nightly:
        assert p99 <= SERVICE_LEVEL_S
        assert recovered < 2.0
    watch.check(
        "A13 a lawful crowd beyond what is answered at once", {"answered": crowd.answered, "statuses": statuses}, nightly,
        octets=60_000_000, p99_s=SERVICE_LEVEL_S, accepted_p99_ms=round(p99 * 1000), recovered_s=round(recovered, 2),
    )  # fmt: skip


CONNECTED = re.compile(rb"(\d+) connections in \d+ real seconds")


@pytest.mark.parametrize("nightly", LANES)
async def test_a14_handshakes_again_and_again_leave_the_others_alone(target, sandbox, nightly):
    """Full mutual handshakes by processes of their own, as fast as they can."""
    processes, seconds = (3, 20) if nightly else (1, 1)
    section = sandbox.manifest.tpps[0]
    command = [
        "openssl", "s_time", "-new", "-connect", f"127.0.0.1:{target.port}", "-time", str(seconds),
        "-cert", str(sandbox.folder / section.transport_cert), "-key", str(sandbox.folder / section.transport_key),
    ]  # fmt: skip
    made: Counter[str] = Counter()

    async def flood():
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
        made["handshakes"] += max((int(n) for n in CONNECTED.findall(done.stdout)), default=0)

    async def attack():
        with trio.fail_after(seconds + 30):
            async with trio.open_nursery() as nursery:
                for _ in range(processes):
                    nursery.start_soon(flood)

    watch = Watch(target, tpp_context(sandbox))
    await watch.during(attack)
    assert made["handshakes"] > 10 * seconds, made
    watch.check(
        "A14 handshakes", dict(made), nightly, octets=100 * 4000 * made["handshakes"] + 8_000_000
    )


def thrash(number):
    """Make a head that resizes the table of names and values again and again, and fills it in between."""
    sizes = b"\x20\x3f\xe1\x1f" * 500
    return frame(HEADERS, 5, 2 * number + 1, sizes + READ + ENTRY)


@pytest.mark.parametrize("nightly", LANES)
@pytest.mark.parametrize("name", ["bomb", "thrash"])
async def test_a8_header_blocks_cost_no_more_than_a_hundredfold(target, sandbox, name, nightly):
    make = hpack_bomb if name == "bomb" else thrash
    context = tpp_context(sandbox)
    attacker = Attacker(target, context, 60 if nightly else 4)
    watch = Watch(target, context)
    spent = time.process_time()

    async def attack():
        await attacker.flood(make, 20_000 if nightly else 300, batch=50)

    await watch.during(attack)
    spent = time.process_time() - spent
    assert watch._worked() - watch.worked <= 100 * spent, "processor time, theirs and ours"
    watch.check(
        f"A8 header blocks: {name}", {"frames": attacker.frames, "octets": attacker.sent, "connections": attacker.connections}, nightly,
        octets=100 * attacker.sent + 8_000_000, attacker_cpu_s=round(spent, 2),
    )  # fmt: skip
    assert name != "bomb" or attacker.connections > 1, "it was cut off, and came again"


async def asked(hub, context, token, session=None):
    """Ask for accounts over a connection of its own; return the status, and the session for the next one."""
    raw = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(*raw, server_hostname="localhost", session=session)
    request = f"GET {ACCOUNTS} HTTP/1.1\r\nHost: localhost:{hub.port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", hub.port) as stream:

        async def until_done(step):
            with trio.fail_after(10):
                while True:
                    try:
                        done = step()
                    except ssl.SSLWantReadError:
                        done = None
                    if raw[1].pending:
                        await stream.send_all(raw[1].read())
                    if done is not None:
                        return done
                    raw[0].write(await stream.receive_some(65536))

        await until_done(lambda: connection.do_handshake() or True)
        connection.write(request.encode())
        head = await until_done(lambda: connection.read(65536))
        assert connection.session_reused is (session is not None)
        return int(head[9:12]), connection.session


async def test_c3_a_resumed_connection_is_still_its_first_callers(target, sandbox, consented):
    """A ticket of one TPP gives another one's token nothing, whatever certificate the new connection would show."""
    one, other = sandbox.manifest.tpps[:2]
    context = tpp_context(sandbox, alpn="http/1.1")
    mine, session = await asked(target, context, consented)
    again, _ = await asked(target, context, consented, session)
    assert (mine, again) == (200, 200)
    foreign = tpp_context(sandbox, alpn="http/1.1")
    foreign.load_cert_chain(
        sandbox.folder / other.transport_cert, sandbox.folder / other.transport_key
    )
    refused, session = await asked(target, foreign, consented)
    foreign.load_cert_chain(sandbox.folder / one.transport_cert, sandbox.folder / one.transport_key)
    still, _ = await asked(target, foreign, consented, session)
    assert (refused, still) == (401, 401)
    assert (await asked(target, foreign, consented))[0] == 200
