"""Keeping up: witnesses and split views, months that close, keys that are renewed, readiness."""

import errno
import os
import threading
from contextlib import suppress

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit import publish, verify
from hub.audit.log import Log
from hub.audit.months import close_month, month_of
from hub.audit.note import COSIGNATURE, Signer, Verifier
from hub.audit.open import ReadLog, open_log
from hub.audit.publish import Publisher, Witness
from hub.audit.receipt import receipts
from hub.audit.tiles import LogError
from hub.audit.witness import decide
from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.protocol.merkle import leaf_hash
from hub.state.backup import FORGOTTEN
from hub.state.entry import unavailable
from hub.state.memory import MemoryKeeper
from hub.state.work import Commit
from tests.audit.conftest import ORIGIN
from tests.waiting import until

NOV = 1_795_000_000
"""In November 2026."""
DAY = 86_400


class Notes:
    def __init__(self):
        self.notes = []

    def note(self, name, **_fields):
        self.notes.append(name)

    def gauge(self, _name, _help, _value):
        pass


class Office:
    """A witness's site in memory: what it remembers, and whether it answers."""

    def __init__(self, signer):
        self.signer = Signer("witness.example/w", Ed25519PrivateKey.generate(), COSIGNATURE)
        self.latest = {}
        self.logs = {ORIGIN: [signer.verifier]}
        self.open = True

    @property
    def verifier(self):
        return Verifier.parse(self.signer.verifier.vkey())

    async def ask(self, body):
        if not self.open:
            return None
        answer = decide(body, logs=self.logs, latest=self.latest, signer=self.signer, now=NOV)
        if answer.latest is not None:
            self.latest[answer.origin] = answer.latest
        return answer.status, answer.body


@pytest.fixture
def office(signer):
    return Office(signer)


async def fill(keeper, count, start=0):
    for at in range(count):
        event = Event(kind=Kind.CALL, time_ms=NOV * 1000, interaction_id=f"i{start + at}")
        await keeper.commit((), (event,))


async def test_each_checkpoint_bears_the_witnesss_signature(tmp_path, signer, keeper, office):
    log, notes = Log(tmp_path / "log", signer), Notes()
    publisher = Publisher(log, keeper, notes, witnesses=[Witness(office.verifier, office.ask)])
    for count in (3, 300, 1):
        await fill(keeper, count)
        await publisher.round()
        keys = [verify.Key.parse(log.vkey)]
        witness = verify.Key.parse(office.verifier.vkey())
        assert verify.verify_log(log.folder, keys, witnesses=[witness]).size == log.size
    assert notes.notes == []


async def test_a_witness_that_is_silent_holds_nothing_up_and_is_told_once(
    tmp_path, signer, keeper, office
):
    log, notes = Log(tmp_path / "log", signer), Notes()
    publisher = Publisher(log, keeper, notes, witnesses=[Witness(office.verifier, office.ask)])
    office.open = False
    for _ in range(3):
        await fill(keeper, 2)
        await publisher.round()
    assert log.size == 6
    office.open = True
    await fill(keeper, 2)
    await publisher.round()
    assert notes.notes == ["witness_silent", "witness_signs"]


async def test_a_witness_that_never_answers_is_left_after_two_seconds(
    tmp_path, signer, keeper, autojump_clock
):
    async def never(_body):
        await trio.sleep_forever()

    verifier = Signer("w.example", Ed25519PrivateKey.generate(), COSIGNATURE).verifier
    log, notes = Log(tmp_path / "log", signer), Notes()
    await fill(keeper, 1)
    began = trio.current_time()
    await Publisher(log, keeper, notes, witnesses=[Witness(verifier, never)]).round()
    assert (log.size, notes.notes) == (1, ["witness_silent"])
    assert trio.current_time() - began == pytest.approx(2.0)


async def test_a_second_history_is_never_witnessed_and_is_told(tmp_path, signer, keeper, office):
    """A split view: the same key signs two histories; the witness has seen the first."""
    first = Log(tmp_path / "one", signer)
    await fill(keeper, 300)
    one = Publisher(first, keeper, Notes(), witnesses=[Witness(office.verifier, office.ask)])
    await one.round()
    other = MemoryKeeper(clock=FixedClock(NOV))
    await fill(other, 400, start=1000)
    notes, second = Notes(), Log(tmp_path / "two", signer)
    await Publisher(second, other, notes, witnesses=[Witness(office.verifier, office.ask)]).round()
    assert notes.notes == ["witness_refuses"]
    keys = [verify.Key.parse(second.vkey)]
    witness = verify.Key.parse(office.verifier.vkey())
    assert verify.verify_log(second.folder, keys).size == 400
    with pytest.raises(verify.RejectedError, match="not signed by witness"):
        verify.verify_log(second.folder, keys, witnesses=[witness])
    with pytest.raises(verify.RejectedError, match="the first 300"):
        verify.verify_log(second.folder, keys, older=[("theirs", first.note.encode())])


async def test_a_log_that_lost_its_newest_entries_is_told_by_the_witness(
    tmp_path, signer, keeper, office
):
    log = Log(tmp_path / "log", signer)
    await fill(keeper, 20)
    await Publisher(log, keeper, Notes(), witnesses=[Witness(office.verifier, office.ask)]).round()
    restored, notes = MemoryKeeper(clock=FixedClock(NOV)), Notes()
    await fill(restored, 10)
    shorter = Log(tmp_path / "restored", signer)
    publisher = Publisher(
        shorter, restored, notes, witnesses=[Witness(office.verifier, office.ask)]
    )
    await publisher.round()
    assert notes.notes == ["witness_has_seen_more"]


async def test_another_log_of_the_same_size_is_told(tmp_path, signer, keeper, office):
    log = Log(tmp_path / "log", signer)
    await fill(keeper, 20)
    await Publisher(log, keeper, Notes(), witnesses=[Witness(office.verifier, office.ask)]).round()
    other, notes = MemoryKeeper(clock=FixedClock(NOV)), Notes()
    await fill(other, 20, start=50)
    second = Log(tmp_path / "other", signer)
    await Publisher(second, other, notes, witnesses=[Witness(office.verifier, office.ask)]).round()
    assert notes.notes == ["witness_has_seen_another_log"]


async def test_witnesses_that_answer_at_once_all_stand_under_the_checkpoint(
    tmp_path, signer, keeper
):
    offices = [Office(signer), Office(signer)]
    log, meeting = Log(tmp_path / "log", signer), threading.Barrier(2)
    replace = log.tiles.replace

    def slow_replace(path, data):
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.1)
        replace(path, data)

    await fill(keeper, 3)
    await log.publish(keeper)
    log.tiles.replace = slow_replace
    witnesses = [Witness(one.verifier, one.ask) for one in offices]
    async with trio.open_nursery() as nursery:
        for witness in witnesses:
            nursery.start_soon(witness.cosign, log, Notes())
    keys = [verify.Key.parse(one.verifier.vkey()) for one in offices]
    report = verify.verify_log(log.folder, [verify.Key.parse(log.vkey)], witnesses=keys)
    assert report.size == 3


async def test_a_disk_that_is_full_at_a_cosignature_is_waited_out(tmp_path, signer, keeper, office):
    log, notes = Log(tmp_path / "log", signer), Notes()
    publisher = Publisher(
        log, keeper, notes, witnesses=[Witness(office.verifier, office.ask)], every_s=0.01
    )
    add_signature, full = log.add_signature, [True]

    def refusing(lines, witness):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        add_signature(lines, witness)

    log.add_signature = refusing
    await fill(keeper, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await until(lambda: "audit_log_waiting" in notes.notes, 5, "the full disk to be noted")
        full.clear()
        await fill(keeper, 3)
        await until(lambda: publisher.witnesses[0].cosigned == 6, 5, "the cosignature")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT])
async def test_what_is_full_is_waited_out(tmp_path, signer, keeper, error):
    """A crowd of connections takes every descriptor: accepting waits, and so does the log."""
    log, notes = Log(tmp_path / "log", signer), Notes()
    publisher, replace, full = (
        Publisher(log, keeper, notes, every_s=0.01),
        log.tiles.replace,
        [True],
    )

    def refusing(path, data):
        if full:
            raise OSError(error, os.strerror(error))
        replace(path, data)

    log.tiles.replace = refusing
    await fill(keeper, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await until(lambda: "audit_log_waiting" in notes.notes, 5, "it to be noted")
        full.clear()
        await until(lambda: log.size == 3, 5, "the publication")
        nursery.cancel_scope.cancel()


async def test_a_damaged_tile_that_a_proof_for_a_witness_needs_stops_the_log(
    tmp_path, signer, keeper, office
):
    log, notes = Log(tmp_path / "log", signer), Notes()
    publisher = Publisher(log, keeper, notes, witnesses=[Witness(office.verifier, office.ask)])

    async def refusing(_log, _observer):
        raise LogError("tile/0/000: is missing")

    publisher.witnesses[0].cosign = refusing
    await fill(keeper, 3)
    await publisher.run()
    assert notes.notes == ["audit_log_refused"]


# Months


async def turning(log, keeper, clock):
    async def commit(event):
        return await keeper.commit((), (event,))

    return Publisher(log, keeper, Notes(), clock=clock, commit=commit)


async def test_a_month_is_closed_with_a_kept_checkpoint_and_an_event_after_it(
    tmp_path, signer, keeper
):
    log, clock = Log(tmp_path / "log", signer), FixedClock(NOV)
    publisher = await turning(log, keeper, clock)
    await fill(keeper, 5)
    await publisher.round()
    assert not (log.folder / "months").exists()
    closing = log.note
    clock.advance(30 * DAY)
    await publisher.round()
    await publisher.round()
    assert (log.folder / "months/2026-11").read_text() == closing
    report = verify.verify_log(log.folder, [verify.Key.parse(log.vkey)])
    assert (report.size, report.remarks) == (6, [])
    assert b"month-closed" in (log.folder / "tile/entries/000.p/6").read_bytes()


async def test_another_checkpoint_in_a_months_place_is_found(tmp_path, signer, keeper):
    log, clock = Log(tmp_path / "log", signer), FixedClock(NOV)
    publisher = await turning(log, keeper, clock)
    await fill(keeper, 3)
    await publisher.round()
    earlier = log.note
    await fill(keeper, 3)
    await publisher.round()
    clock.advance(30 * DAY)
    await publisher.round()
    await publisher.round()
    (log.folder / "months/2026-11").write_text(earlier)
    with pytest.raises(verify.RejectedError, match="months/2026-11: is not what entry 6 names"):
        verify.verify_log(log.folder, [verify.Key.parse(log.vkey)])
    (log.folder / "months/2026-11").unlink()
    with pytest.raises(verify.RejectedError, match="months/2026-11"):
        verify.verify_log(log.folder, [verify.Key.parse(log.vkey)])


async def test_a_month_whose_event_a_crash_prevented_is_chained_after_the_restart(
    tmp_path, signer, keeper
):
    log = Log(tmp_path / "log", signer)
    await fill(keeper, 3)
    await log.publish(keeper)
    lost = close_month(log, month_of(NOV * 1000), NOV * 1000)
    await fill(keeper, 3)
    again = Log(log.folder, signer)
    publisher = await turning(again, keeper, FixedClock(NOV + 30 * DAY))
    await publisher.round()
    await publisher.round()
    assert verify.verify_log(log.folder, [verify.Key.parse(log.vkey)]).size == 7
    assert (await keeper.events(6, 1))[0].count(lost.subject.encode()) == 1


async def test_a_month_is_closed_though_the_first_publication_brings_events_of_the_next(
    tmp_path, signer, keeper
):
    log = Log(tmp_path / "log", signer)
    await fill(keeper, 3)
    await log.publish(keeper)
    started = Event(kind=Kind.NODE, time_ms=(NOV + 30 * DAY) * 1000, change="started")
    await keeper.commit((), (started,))
    publisher = await turning(Log(log.folder, signer), keeper, FixedClock(NOV + 30 * DAY))
    await publisher.round()
    assert (log.folder / "months/2026-11").exists()
    assert b"month-closed" in (await keeper.events(4, 1))[0]


async def test_a_month_is_closed_after_an_event_of_a_newer_hub(tmp_path, signer, keeper):
    """A Hub that was put back to its version before goes on with the log."""
    newer = b'{"v":1,"kind":"of-tomorrow","time_ms":%d}' % (NOV * 1000)
    await keeper.commit_all([Commit((), (("", newer),))])
    publisher = await turning(Log(tmp_path / "log", signer), keeper, FixedClock(NOV + 30 * DAY))
    await publisher.round()
    assert (publisher.log.folder / "months/2026-11").exists()


async def test_an_older_copy_of_the_log_whose_newest_event_was_pruned_since_goes_on(
    tmp_path, signer, keeper
):
    log, events = Log(tmp_path / "log", signer), keeper.events
    await fill(keeper, 3)
    await log.publish(keeper)
    await fill(keeper, 2)

    async def pruned(start, limit):
        leaves = await events(start, limit)
        return tuple(
            FORGOTTEN + leaf_hash(leaf) if at < 3 else leaf for at, leaf in enumerate(leaves, start)
        )

    keeper.events = pruned
    publisher = await turning(Log(log.folder, signer), keeper, FixedClock(NOV + 30 * DAY))
    await publisher.round()
    assert publisher.log.size == 5
    await publisher.round()
    assert (log.folder / "months/2026-11").exists()


async def test_a_month_whose_event_the_keeper_refuses_is_chained_once_it_takes_it(
    tmp_path, signer, keeper
):
    log, clock = Log(tmp_path / "log", signer), FixedClock(NOV)
    publisher = await turning(log, keeper, clock)
    await fill(keeper, 3)
    await publisher.round()
    clock.advance(30 * DAY)
    keeper.refusal = unavailable("keeper.disk", "full")
    await publisher.round()
    assert (await keeper.head()).size == 3
    keeper.refusal = None
    await publisher.round()
    await publisher.round()
    assert b"month-closed" in (await keeper.events(3, 1))[0]
    assert verify.verify_log(log.folder, [verify.Key.parse(log.vkey)]).size == 4


# Keys


def pem_of(seed: int) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def test_a_renewed_key_overlaps_and_everything_older_still_verifies(tmp_path, keeper):
    await fill(keeper, 3)
    first = open_log(tmp_path, origin=ORIGIN, pem=pem_of(1))
    assert first.new_key
    await first.publish(keeper)
    old_note, (old_receipt,) = first.note, await receipts(first, keeper, "i1")
    await fill(keeper, 3, start=3)
    both = open_log(tmp_path, origin=ORIGIN, pem=pem_of(2), retiring=[pem_of(1)])
    assert both.new_key
    await both.publish(keeper)
    only_old = [verify.Key.parse(first.vkey)]
    assert verify.verify_log(both.folder, only_old, older=[("old", old_note.encode())]).size == 6
    await fill(keeper, 3, start=6)
    last = open_log(tmp_path, origin=ORIGIN, pem=pem_of(2))
    assert not last.new_key
    await last.publish(keeper)
    keys = [verify.Key.parse(one) for one in (tmp_path / "audit/key").read_text().split()]
    assert [key.ident for key in keys] == [
        verify.Key.parse(first.vkey).ident,
        verify.Key.parse(last.vkey).ident,
    ]
    report = verify.verify_log(last.folder, keys, older=[("old", old_note.encode())])
    assert report.size == 9
    assert verify.verify_receipt(old_receipt.encode(), keys)[0] == 1
    with pytest.raises(verify.RejectedError, match="not signed by the log's key"):
        verify.verify_log(last.folder, only_old)
    assert ReadLog.read(tmp_path).verify(older=[("old", old_note.encode())]).size == 9


def test_a_log_is_opened_again_though_nothing_can_be_written(tmp_path, monkeypatch):
    """On a full disk the Hub starts; what lies beside the log is written where it is another."""
    open_log(tmp_path, origin=ORIGIN, pem=pem_of(1))
    format_text = (tmp_path / "audit/FORMAT.md").read_bytes()
    (tmp_path / "audit/FORMAT.md").write_bytes(b"of an older Hub")
    open_log(tmp_path, origin=ORIGIN, pem=pem_of(1))
    assert (tmp_path / "audit/FORMAT.md").read_bytes() == format_text

    def full(_opened):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert open_log(tmp_path, origin=ORIGIN, pem=pem_of(1)).size == 0


async def test_a_new_key_without_overlap_is_refused(tmp_path, keeper):
    await fill(keeper, 3)
    await open_log(tmp_path, origin=ORIGIN, pem=pem_of(1)).publish(keeper)
    with pytest.raises(LogError, match="no trusted key"):
        open_log(tmp_path, origin=ORIGIN, pem=pem_of(2))


# Readiness


async def test_a_log_that_cannot_keep_up_is_not_ready(tmp_path, signer, keeper, monkeypatch):
    monkeypatch.setattr(publish, "_LATE_S", 0.2)
    log = Log(tmp_path / "log", signer)
    publisher = Publisher(log, keeper, Notes(), every_s=0.01)
    assert not publisher.ready()
    await fill(keeper, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await until(publisher.ready, 5, "the log to be published")

        async def full(_keeper):
            raise OSError(28, "No space left on device")

        log.publish = full
        await until(lambda: not publisher.ready(), 5, "a log that is late not to be ready")
        nursery.cancel_scope.cancel()


async def test_a_spoilt_checkpoint_of_a_month_is_not_chained(tmp_path, signer, keeper):
    log = Log(tmp_path / "log", signer)
    await fill(keeper, 5)
    await log.publish(keeper)
    close_month(log, "2026-11", NOV * 1000)
    kept = log.folder / "months/2026-11"
    good = kept.read_bytes()
    for at in range(0, len(good), 3):
        kept.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(LogError, match="months/2026-11"):
            close_month(log, "2026-11", NOV * 1000)


def test_a_spoilt_list_of_keys_is_not_passed_on(tmp_path):
    open_log(tmp_path, origin=ORIGIN, pem=pem_of(1))
    keys = tmp_path / "audit/key"
    good = keys.read_bytes()
    assert not open_log(tmp_path, origin=ORIGIN, pem=pem_of(1)).new_key
    for at in range(len(good) - 1):
        keys.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(LogError, match="audit/key"):
            open_log(tmp_path, origin=ORIGIN, pem=pem_of(1))
