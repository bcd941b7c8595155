"""Witnesses sign what grows, and nothing else."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.audit import verify
from hub.audit.log import CHECKPOINT, Log
from hub.audit.note import COSIGNATURE, NoteError, Signer
from hub.audit.witness import Latest, decide, join, request_of
from hub.model.event import Event, Kind
from hub.state.memory import MemoryKeeper

NOW = 1_800_000_000


class Witness:
    def __init__(self, log):
        key = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
        self.signer = Signer("witness.example/w", key, COSIGNATURE)
        self.logs = {log.origin: [log._signer.verifier]}
        self.latest = {}

    def ask(self, body):
        answer = decide(body, logs=self.logs, latest=self.latest, signer=self.signer, now=NOW)
        assert (answer.latest is not None) == (answer.status == 200)
        if answer.latest is not None:
            self.latest[answer.origin] = answer.latest
        return answer


@pytest.fixture
def log(tmp_path, signer):
    return Log(tmp_path / "log", signer)


@pytest.fixture
def witness(log):
    return Witness(log)


async def grow(log, keeper, count, route=""):
    await keeper.commit([], [Event(kind=Kind.CALL, time_ms=1, route=route) for _ in range(count)])
    await log.publish(keeper)


async def test_a_growing_log_is_cosigned_and_the_verifier_sees_it(log, keeper, witness):
    old = 0
    for count in (3, 300, 1, 700):
        await grow(log, keeper, count)
        answer = witness.ask(request_of(log.tiles, log.note, old))
        assert answer.status == 200
        old = log.size
    joined = join(log.note, answer.body.decode(), witness.signer.verifier)
    (log.folder / CHECKPOINT).write_text(joined)
    keys = [verify.Key.parse(vkey) for vkey in (log.vkey, witness.signer.verifier.vkey())]
    assert verify.verify_log(log.folder, keys[:1], witnesses=keys[1:]).size == 1004


async def test_the_same_head_may_be_signed_again(log, keeper, witness):
    await grow(log, keeper, 3)
    assert witness.ask(request_of(log.tiles, log.note, 0)).status == 200
    assert witness.ask(request_of(log.tiles, log.note, 3)).status == 200


async def test_who_does_not_know_the_size_is_told(log, keeper, witness):
    await grow(log, keeper, 3)
    witness.ask(request_of(log.tiles, log.note, 0))
    await grow(log, keeper, 3)
    answer = witness.ask(request_of(log.tiles, log.note, 0))
    assert (answer.status, answer.body) == (409, b"3\n")
    assert answer.content_type == "text/x.tlog.size"


async def test_a_second_history_is_never_cosigned(log, keeper, witness, tmp_path, signer, clock):
    await grow(log, keeper, 5)
    witness.ask(request_of(log.tiles, log.note, 0))
    other, second = MemoryKeeper(clock=clock), Log(tmp_path / "second", signer)
    await grow(second, other, 5, "other")
    assert witness.ask(request_of(second.tiles, second.note, 5)).status == 409
    await grow(second, other, 5, "other")
    assert witness.ask(request_of(second.tiles, second.note, 5)).status == 422
    assert witness.latest[log.origin].size == 5


async def test_an_unknown_log_and_an_unknown_key_are_refused(log, keeper, witness):
    await grow(log, keeper, 5)
    request = request_of(log.tiles, log.note, 0)
    witness.logs = {log.origin: [witness.signer.verifier]}
    assert witness.ask(request).status == 403
    witness.logs = {}
    assert witness.ask(request).status == 404


async def test_malformed_requests_are_refused(log, keeper, witness):
    await grow(log, keeper, 5)
    note = log.note.encode()
    for head in (b"", b"old", b"old -1", b"old 01", b"old x", b"new 0", b"old 0\n!!", b"old 6"):
        assert witness.ask(head + b"\n\n" + note).status == 400, head
    assert witness.ask(b"old 0\n" + b"AAAA\n" * 64 + b"\n" + note).status == 400
    assert witness.ask(b"old 0\n\nnothing").status == 400
    assert witness.ask(b"\xff\n\n").status == 400
    assert witness.ask(b"old 0\n" + b"AAAA\n\n" + note).status == 422


async def test_only_the_witnesses_own_valid_lines_are_joined(log, keeper, witness):
    await grow(log, keeper, 5)
    line = witness.ask(request_of(log.tiles, log.note, 0)).body.decode()
    name, packed = line.rsplit(" ", 1)
    wrong = f"{name} {packed[:12]}{'A' if packed[12] != 'A' else 'B'}{packed[13:]}"
    assert join(log.note, wrong + line + "nonsense\n", witness.signer.verifier) == log.note + line
    with pytest.raises(NoteError):
        join(log.note, wrong, witness.signer.verifier)


def test_a_new_witness_remembers_the_empty_log():
    assert Latest().size == 0
