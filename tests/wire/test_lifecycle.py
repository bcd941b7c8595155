"""The life of a Hub over the wire: drained, reloaded, its workers and its keeper killed, always under load."""

import os
import shutil
import signal
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import pytest
import trio
from cryptography import x509

from bench.evidence import append
from tests.waiting import ended, until
from tests.wire.load import Ask, Load
from tests.wire.own_hub import OwnHub, copy_state, settings_beside

pytestmark = pytest.mark.wire

NUMBERS = count(1)
DISCOVERY = "/.well-known/openid-configuration"
ACCOUNTS = "/open-finance/account-information/v2.1/accounts"


@pytest.fixture(scope="session")
def consented(sandbox):
    """Take one customer's consent at the sandbox's Hub; Hubs with a copy of its state know the token."""
    from tests.wire.world import actor

    async def take():
        async with actor(sandbox) as acting:
            return (await acting.consented()).access_token

    return trio.run(take)


@pytest.fixture(scope="module")
def standing(sandbox, consented, tmp_path_factory):
    """Return one Hub per number of workers, on a copy of the sandbox's state; started again if it has ended."""
    hubs = {}

    def get(workers):
        if workers not in hubs:
            folder = tmp_path_factory.mktemp("life") / f"hub-{workers}"
            copy_state(sandbox, folder)
            hubs[workers] = OwnHub(folder, settings_beside(sandbox, folder, workers=workers))
        hub = hubs[workers]
        if hub.process is None or hub.process.poll() is not None:
            hub.start()
        return hub

    yield get
    for hub in hubs.values():
        hub.stop()
        assert b"Traceback" not in hub.log.read_bytes(), hub.tail()


def tpp_context(sandbox, *, alpn="h2"):
    section = sandbox.manifest.tpps[0]
    context = ssl.create_default_context(cafile=sandbox.folder / sandbox.manifest.ca_bundle)
    context.load_cert_chain(
        sandbox.folder / section.transport_cert, sandbox.folder / section.transport_key
    )
    context.set_alpn_protocols([alpn])
    return context


def load_on(hub, sandbox, token):
    asks = [
        Ask("GET", DISCOVERY, hub.port),
        Ask("GET", ACCOUNTS, hub.port, authorization=f"Bearer {token}"),
        Ask("GET", ACCOUNTS, hub.port),
        Ask("GET", "/nowhere", hub.port),
    ]
    return Load(hub.port, tpp_context(sandbox), asks)


@asynccontextmanager
async def under_load(load, connections=4, streams=10):
    """Keep a load up for the time of the context; it ends by itself."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, connections, streams)
        try:
            await load.at_least(100)
            yield
        finally:
            load.stopping = True


async def drained(hub, sandbox, token):
    """Drain a Hub under load; return the load after everything has ended."""
    load = load_on(hub, sandbox, token)
    async with under_load(load):
        hub.signal(signal.SIGTERM)
        status = await trio.to_thread.run_sync(hub.wait)
    assert status == 0, hub.tail()
    assert load.gone_away, "every connection was told"
    return load


def check_nothing_lost(load):
    assert not load.unanswered, load.unanswered[:10]
    assert not load.broken, load.broken[:10]
    assert set(load.statuses) <= {200, 401, 404}, load.statuses
    assert all(load.statuses[status] for status in (200, 401, 404)), load.statuses


async def rotated(standing, sandbox, consented, rotations):
    """Rotate the edge's certificate and key under load; return the load."""
    fresh = reissued(sandbox)
    hub = standing(1)
    place = hub.folder / "tpp.pem", hub.folder / "tpp.key"
    for source, target in zip(fresh[0], place, strict=True):
        shutil.copyfile(source, target)
    hub.settings["tpp"] |= {"certificate": str(place[0]), "key": str(place[1])}
    hub.write()
    hub.signal(signal.SIGHUP)
    hub.until(lambda: serial_of(place[0]) and hub.notes("configuration_taken"))
    load = load_on(hub, sandbox, consented)
    seen = set()
    async with under_load(load, connections=4, streams=4):
        for number in range(1, rotations + 1):
            for source, target in zip(fresh[number % 2], place, strict=True):
                part = target.with_suffix(".part")
                shutil.copyfile(source, part)
                part.replace(target)
            hub.signal(signal.SIGHUP)
            wanted = serial_of(fresh[number % 2][0])

            async def served(serial=wanted):
                return await serial_served(hub, load.context) == serial

            await until(served, 5, "the new certificate to be served")
            seen.add(wanted)
    assert len(seen) == 2
    check_nothing_lost(load)
    assert load.connections == 4, "no connection was dropped"
    return load


def serial_of(path):
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def serial_served(hub, context):
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", hub.port),
        context,
        server_hostname="localhost",
        https_compatible=True,
    )
    async with stream:
        await stream.do_handshake()
        return x509.load_der_x509_certificate(stream.getpeercert(binary_form=True)).serial_number


def reissued(sandbox):
    """Return two pairs of certificate and key that the sandbox's CA has issued for ``localhost``."""
    keys = sandbox.folder / "keys"
    found = []
    for path in sorted(keys.rglob("*.pem")):
        key = path.with_suffix(".key")
        if not key.exists():
            continue
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            continue
        if "localhost" in names.value.get_values_for_type(x509.DNSName):
            found.append((path, key))
    assert len(found) >= 2, list(keys.rglob("*"))
    return found[:2]


async def change_under_load(hub, sandbox, consented, change, note):
    before = len(hub.notes(note))
    load = load_on(hub, sandbox, consented)
    async with under_load(load):
        change()
        hub.write()
        hub.signal(signal.SIGHUP)
        await trio.to_thread.run_sync(lambda: hub.until(lambda: len(hub.notes(note)) > before, 20))
        await load.at_least(load.answered + 100)
    return load


async def test_certificates_rotate_under_load_without_an_error(standing, sandbox, consented):
    await rotated(standing, sandbox, consented, 2)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_bad_configuration_changes_nothing_and_is_told(
    standing, sandbox, consented, workers
):
    hub = standing(workers)
    before = hub.workers()

    good = hub.settings["tpp"]["certificate"]

    def change():
        hub.settings["tpp"]["certificate"] = "/nowhere/tpp.pem"

    load = await change_under_load(hub, sandbox, consented, change, "configuration_kept")
    hub.settings["tpp"]["certificate"] = good
    hub.write()
    check_nothing_lost(load)
    assert hub.workers() == before
    assert "/nowhere/tpp.pem" in str(hub.notes("configuration_kept")[-1]["why"])


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_new_configuration_is_taken_over_under_load(standing, sandbox, consented, workers):
    hub = standing(workers)
    before = hub.workers()

    def change():
        hub.settings["limits"] = {"body_octets": 4_000_000 + next(NUMBERS)}
        hub.settings["ops"]["port"] += 1

    load = await change_under_load(hub, sandbox, consented, change, "configuration_taken")
    check_nothing_lost(load)
    if workers == 1:
        assert load.connections == 4, "no connection was dropped"
    else:
        assert not set(before) & set(hub.until(lambda: len(hub.workers()) == 2 and hub.workers()))
    hub.settings["ops"]["port"] -= 1
    hub.write()
    assert hub.notes("configuration_taken")[-1]["changed"] == "limits.body_octets"
    assert hub.notes("configuration_needs_restart")[-1]["settings"] == "ops.port"
    assert hub.ready()


async def test_a_worker_without_a_lease_answers_503_and_serves_again_with_one(
    standing, sandbox, consented
):
    hub = standing(2)
    load = load_on(hub, sandbox, consented)
    load.asks = [load.asks[0]]
    async with under_load(load):
        hub.signal(signal.SIGSTOP)  # the keeper hangs: leases run out after a second
        await until(lambda: load.statuses[503], 5, "an answer of 503")
        hub.signal(signal.SIGCONT)
        good = load.statuses[200]
        await until(lambda: load.statuses[200] > good + 100, 5, "a hundred good answers")
    assert set(load.statuses) == {200, 503}
    assert not load.broken


async def killed(hub, sandbox, consented, which):
    """Kill one of two workers under load; return the load after its successor serves."""
    load = load_on(hub, sandbox, consented)
    # Else all connections would go to the one that serves already; with sixteen, to one of two by chance once in 65,536.
    both = lambda: len(hub.workers()) == hub.listening() == 2  # noqa: E731 - told by what it asks
    await trio.to_thread.run_sync(lambda: hub.until(both))
    before = hub.workers()
    async with under_load(load, connections=16):
        os.kill(before[which], signal.SIGKILL)
        broken_at_once = load.connections
        probe = Load(hub.port, load.context, load.asks[:1])
        with trio.fail_after(
            20
        ):  # whom the kernel gave to the dead one's socket waits for its successor
            async with under_load(probe, connections=2, streams=1):
                pass
        assert not [*probe.broken, *probe.unanswered], "the next request succeeds"
        await trio.to_thread.run_sync(
            lambda: hub.until(lambda: len(hub.workers()) == 2 and hub.ready())
        )
        await load.at_least(load.answered + 200)
    assert len(load.broken) < broken_at_once, "not every connection was the dead worker's"
    assert set(before) & set(hub.workers()) == {before[1 - which]}
    assert hub.notes("worker_died")[-1]["status"] == -9
    return load


async def test_a_worker_killed_under_load_harms_only_its_own_connections_and_its_death_is_loud(
    standing, sandbox, consented
):
    hub = standing(2)
    await killed(hub, sandbox, consented, 0)
    assert 'hub_notes_total{name="worker_died"}' in hub.ops("/metrics")


@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_that_was_started_goes_unanswered_at_sigterm_under_load(
    standing, sandbox, consented, workers
):
    hub = standing(workers)
    check_nothing_lost(await drained(hub, sandbox, consented))
    events = hub.events()
    assert events[-1]["change"] == "stopped"
    told = Counter(
        (e.get("subject", ""), e.get("check", "")) for e in events if e.get("change") == "reload"
    )
    noted = Counter((n["changed"], "") for n in hub.notes("configuration_taken"))
    noted += Counter(
        (n["changed"], "configuration.invalid") for n in hub.notes("configuration_kept")
    )
    assert noted
    assert not noted - told, "each reload is an event; the copied state holds some of its own"
    deaths = [
        (e["subject"], e["change"]) for e in events if str(e.get("change")).startswith("died")
    ]
    assert deaths == [
        (f"worker-{n['worker']}", f"died:{n['status']}") for n in hub.notes("worker_died")
    ]


async def test_workers_end_with_a_killed_keeper_and_nothing_acknowledged_is_lost(
    standing, sandbox, consented
):
    hub = standing(2)
    load = load_on(hub, sandbox, consented)
    refusal = load.asks[3]
    load.asks = [refusal]
    workers = hub.workers()
    async with under_load(load):
        hub.signal(signal.SIGKILL)
        await trio.to_thread.run_sync(hub.wait)
        load.stopping = True
    for worker in workers:  # nobody outlives the keeper
        await ended(worker, 5, "a worker whose keeper was killed")
    kept = sum(
        1 for e in hub.events() if e.get("check") == "path.unknown" or e.get("status") == 404
    )
    assert kept >= load.statuses[404], "each answer that arrived has its event"
    await trio.to_thread.run_sync(hub.start)


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [1, 2])
async def test_twenty_sigterms_under_load(standing, sandbox, consented, workers):
    hub = standing(workers)
    answered = 0
    for _ in range(20):
        load = await drained(hub, sandbox, consented)
        check_nothing_lost(load)
        answered += load.answered
        await trio.to_thread.run_sync(hub.start)
    append(
        f"sigterm-under-load-{workers}",
        {"sigterms": 20, "answered": answered},
        (),
        "none unanswered",
    )


@pytest.mark.nightly
async def test_ten_certificate_rotations_under_load(standing, sandbox, consented):
    load = await rotated(standing, sandbox, consented, 10)
    append("rotations-under-load", {"rotations": 10, "answered": load.answered}, (), "no error")


@pytest.mark.nightly
async def test_ten_replacements_of_the_workers_within_a_minute_under_load(
    standing, sandbox, consented
):
    hub = standing(2)
    load = load_on(hub, sandbox, consented)
    began = trio.current_time()
    async with under_load(load):
        for _ in range(10):
            before = len(hub.notes("configuration_taken"))
            hub.settings["limits"] = {"body_octets": 4_000_000 + next(NUMBERS)}
            hub.write()
            hub.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(
                lambda: hub.until(lambda: len(hub.notes("configuration_taken")) > before, 20)  # noqa: B023
            )
    took = trio.current_time() - began
    check_nothing_lost(load)
    counts = {"replacements": 10, "answered": load.answered, "seconds": round(took)}
    append("worker-replacements", counts, (), "no error")
    assert took < 60


@pytest.mark.nightly
async def test_ten_workers_killed_under_load(standing, sandbox, consented):
    hub = standing(2)
    answered = broken = 0
    for number in range(10):
        load = await killed(hub, sandbox, consented, number % 2)
        answered, broken = answered + load.answered, broken + len(load.broken)
    counts = {"kills": 10, "answered": answered, "connections lost": broken}
    append("worker-kills-under-load", counts, (), "the next request succeeded each time")


async def test_a_worker_that_hangs_is_replaced_and_harms_only_its_own_connections(
    standing, sandbox, consented
):
    hub = standing(2)
    hub.settings["limits"] = {"loop_silent_s": 4}
    hub.write()
    taken = len(hub.notes("configuration_taken"))
    hub.signal(signal.SIGHUP)
    both = lambda: len(hub.workers()) == hub.listening() == 2  # noqa: E731 - told by what it asks
    await trio.to_thread.run_sync(
        lambda: hub.until(lambda: len(hub.notes("configuration_taken")) > taken and both(), 20)
    )
    before = hub.workers()
    load = load_on(hub, sandbox, consented)
    async with under_load(load, connections=16):
        os.kill(before[0], signal.SIGSTOP)
        told = partial(hub.notes, "worker_hangs")
        await until(lambda: [one for one in told() if one["pid"] == before[0]], 20, "its silence")
        replaced = lambda: before[0] not in hub.workers() and both() and hub.ready()  # noqa: E731
        await trio.to_thread.run_sync(lambda: hub.until(replaced, 20))
        probe = Load(hub.port, load.context, load.asks[:1])
        async with under_load(probe, connections=4, streams=1):
            pass
        await load.at_least(load.answered + 200)
    assert not [*probe.broken, *probe.unanswered]
    assert 16 < load.connections < 32, "only those of the one that hung were made anew"
    assert set(before) & set(hub.workers()) == {before[1]}
    assert hub.notes("worker_died")[-1]["status"] == -9, "a stopped process hears of nothing else"
