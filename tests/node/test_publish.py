"""The log in the node: what stops a start, what ends the process, what the public face serves."""

import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit.source import LogFailedError
from hub.config import Loaded, config_folder, load
from hub.model.clock import FixedClock, SeededDice
from hub.model.http import Request, Response
from hub.model.terms import Face
from hub.node import run as node
from hub.node.build import Given
from hub.node.errors import StartError
from hub.node.log_face import LogFace, with_log
from hub.node.publish import follow_index, publisher_of
from hub.state.entry import unavailable
from hub.state.memory import MemoryKeeper
from hub.state.work import Commit

NOW = 1_800_000_000


class Quiet:
    def note(self, _name, **_fields):
        pass

    def gauge(self, _name, _help, _value):
        pass


def pem_of(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def settings(tmp_path):
    found = load(config_folder() / "hub.production.toml", {}).settings
    (tmp_path / "log.key").write_bytes(pem_of(Ed25519PrivateKey.generate()))
    return msgspec.structs.replace(
        found,
        keys=msgspec.structs.replace(found.keys, log=tmp_path / "log.key"),
        state=msgspec.structs.replace(found.state, folder=tmp_path / "state"),
    )


def given(settings) -> Given:
    clock = FixedClock(NOW)
    return Given(
        settings=settings,
        keeper=MemoryKeeper(clock=clock),
        clock=clock,
        dice=SeededDice(),
        observer=Quiet(),
    )


async def test_without_a_key_nothing_is_published(settings):
    keys = msgspec.structs.replace(settings.keys, log=None)
    assert await publisher_of(given(msgspec.structs.replace(settings, keys=keys))) is None


async def test_events_of_a_newer_hub_leave_the_node_without_an_index_only(settings):
    noted, seen = [], trio.Event()

    class Observer(Quiet):
        def note(self, name, **fields):
            noted.append((name, fields))
            seen.set()

    parts = msgspec.structs.replace(given(settings), observer=Observer())
    newer = b'{"v":1,"kind":"of-tomorrow","time_ms":1}'
    await parts.keeper.commit_all([Commit((), (("", newer),))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_index, parts)
        with trio.fail_after(5):
            await seen.wait()
        nursery.cancel_scope.cancel()
    assert noted == [("audit_index_failed", {"reason": "ValidationError"})]


async def test_a_new_key_is_an_event_once(settings):
    parts = given(settings)
    publisher = await publisher_of(parts)
    await publisher.round()
    await publisher_of(parts)
    leaves = await parts.keeper.events(0, 10)
    assert [b'"log-key"' in leaf for leaf in leaves] == [True]
    assert publisher.log.vkey.encode() in leaves[0]


async def test_a_new_key_whose_event_is_refused_is_an_event_at_the_next_start(settings):
    parts = given(settings)
    parts.keeper.refusal = unavailable("keeper.disk", "database or disk is full")
    with pytest.raises(StartError, match=r"could not be recorded: .*full"):
        await publisher_of(parts)
    parts.keeper.refusal = None
    assert await publisher_of(parts)
    leaves = await parts.keeper.events(0, 10)
    assert [b'"log-key"' in leaf for leaf in leaves] == [True]


@pytest.mark.parametrize("what", ["missing", "rsa", "another"])
async def test_a_key_that_cannot_be_used_stops_the_start(settings, what):
    if what == "missing":
        settings.keys.log.unlink()
    elif what == "rsa":
        settings.keys.log.write_bytes(pem_of(generate_private_key(65537, 2048)))
    else:
        await (await publisher_of(given(settings))).round()
        settings.keys.log.write_bytes(pem_of(Ed25519PrivateKey.generate()))
    with pytest.raises(StartError):
        await publisher_of(given(settings))


@pytest.mark.parametrize(
    "line", ["http://w.example w+00+AA", "https://w.example", "w.example x", ""]
)
async def test_a_witness_that_cannot_be_stops_the_start(settings, line):
    log = msgspec.structs.replace(settings.log, witnesses=(line,))
    with pytest.raises(StartError):
        await publisher_of(given(msgspec.structs.replace(settings, log=log)))


def test_a_disk_that_breaks_its_word_to_the_log_ends_the_process_with_five(settings, monkeypatch):
    async def broken(*_arguments, **_more):
        raise ExceptionGroup("nursery", [LogFailedError("fsync")])

    monkeypatch.setattr(node, "run_node", broken)
    loaded = Loaded(settings, {})
    assert node.serve_node(loaded, FixedClock(NOW), (), lambda: loaded) == node.STORE_FAILED == 5


class Behind:
    def admit(self, _request):
        return Response(status=299)

    async def respond(self, _request):
        return Response(status=299)


def asked(path, method="GET"):
    return Request(face=Face.TPP, method=method, authority="hub", path=path)


async def test_the_log_is_served_only_by_a_tenant_that_publishes_it(settings):
    behind = Behind()
    assert with_log(settings, behind) is behind
    switches = msgspec.structs.replace(settings.switches, publish_log=True)
    published = msgspec.structs.replace(settings, switches=switches)
    await (await publisher_of(given(published))).round()
    face = with_log(published, behind)
    assert isinstance(face, LogFace)
    answer = await face.respond(asked("/log/checkpoint"))
    assert (answer.status, dict(answer.headers)[b"cache-control"]) == (200, b"max-age=1")
    for path in ("/log/", "/log/../key", "/log/key", "/log/tile/0/000.p/300", "/log/lock"):
        assert (await face.respond(asked(path))).status == 404
    assert face.admit(asked("/log/checkpoint", "POST")).status == 405
    assert face.admit(asked("/log/checkpoint")).limit == 0
    assert (await face.respond(asked("/logs"))).status == 299
    assert face.admit(asked("/token")).status == 299
