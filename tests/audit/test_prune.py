"""Retention: what is too old is exported, declared and forgotten; proofs hold as before; tampering is still told."""

import shutil

import pytest

from hub.audit import verify
from hub.audit.log import Log
from hub.audit.prune import forget, plan
from hub.audit.receipt import receipt_of
from hub.audit.tiles import LogError
from hub.model.event import Event, Kind

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


async def filled(keeper, count=700):
    kinds = (Kind.CALL, Kind.TOKEN, Kind.CONSENT)
    for at in range(count):
        old = NOW_MS - 400 * DAY_MS + at
        event = Event(kind=kinds[at % 3], time_ms=old, interaction_id=f"i{at}")
        await keeper.commit((), (event,))


@pytest.fixture
async def pruned(tmp_path, signer, keeper):
    """A log of which the calls were forgotten, and what was known of it before."""
    log = Log(tmp_path / "log", signer)
    await filled(keeper)
    await log.publish(keeper)
    before, receipt = log.note, receipt_of(log.tiles, log.note, 3)
    planned = plan(log.tiles, log.size, {"call": 365}, NOW_MS)
    await keeper.commit((), (planned.event(NOW_MS),))
    await log.publish(keeper)
    forget(log.tiles, sorted(planned.now))
    return log, before, receipt, planned


def key_of(log):
    return [verify.Key.parse(log.vkey)]


async def test_only_what_is_too_old_and_of_a_named_kind_is_planned(tmp_path, signer, keeper):
    log = Log(tmp_path / "log", signer)
    await filled(keeper)
    await log.publish(keeper)
    tiles, size = log.tiles, log.size
    assert len(plan(tiles, size, {"call": 365}, NOW_MS).now) == len(range(0, 512, 3))
    assert not plan(tiles, size, {"call": 500}, NOW_MS).now
    assert not plan(tiles, size, {}, NOW_MS).now


async def test_a_pruned_log_verifies_and_says_how_much_is_gone(pruned):
    log, before, _, planned = pruned
    report = verify.verify_log(log.folder, key_of(log), older=[("before", before.encode())])
    assert report.size == 701
    assert report.remarks == [f"{len(planned.now)} entries were pruned, as declared"]


async def test_receipts_from_before_the_pruning_still_hold(pruned):
    log, _, receipt, _ = pruned
    index, entry, _ = verify.verify_receipt(receipt.encode(), key_of(log))
    assert index == 3
    assert b'"i3"' in entry
    with pytest.raises(LogError, match="was pruned"):
        receipt_of(log.tiles, log.note, 3)
    assert verify.verify_receipt(receipt_of(log.tiles, log.note, 4).encode(), key_of(log))[0] == 4


async def test_the_content_of_what_was_pruned_is_nowhere_in_the_files(pruned):
    log, _, _, _ = pruned
    stored = b"".join(path.read_bytes() for path in log.folder.rglob("*") if path.is_file())
    assert b'"i3"' not in stored
    assert b'"i4"' in stored


async def test_one_more_forgotten_entry_is_found(pruned):
    log, _, _, _ = pruned
    forget(log.tiles, [4])
    with pytest.raises(verify.RejectedError, match="not what the log declares"):
        verify.verify_log(log.folder, key_of(log))


async def test_entries_pruned_without_a_declaration_are_found(tmp_path, signer, keeper):
    log = Log(tmp_path / "log", signer)
    await filled(keeper)
    await log.publish(keeper)
    forget(log.tiles, [4])
    with pytest.raises(verify.RejectedError, match="not what the log declares"):
        verify.verify_log(log.folder, key_of(log))


async def test_pruning_that_a_crash_interrupted_is_completed_by_doing_it_again(pruned, keeper):
    log, _, _, planned = pruned
    again = plan(log.tiles, log.size, {"call": 365, "token": 365}, NOW_MS)
    await keeper.commit((), (again.event(NOW_MS),))
    await log.publish(keeper)
    half = sorted(again.now)[:50]
    forget(log.tiles, half)
    with pytest.raises(verify.RejectedError):
        verify.verify_log(log.folder, key_of(log))
    rest = plan(log.tiles, log.size, {"call": 365, "token": 365}, NOW_MS)
    assert sorted(rest.all) == sorted(again.all)
    forget(log.tiles, sorted(rest.now))
    verify.verify_log(log.folder, key_of(log))
    assert len(again.all) == len(planned.now) + len(again.now)


async def test_the_log_goes_on_after_pruning(pruned, keeper, signer, tmp_path):
    log, before, _, _ = pruned
    copied = tmp_path / "copied"
    shutil.copytree(log.folder, copied)
    await keeper.commit((), [Event(kind=Kind.CALL, time_ms=NOW_MS)] * 400)
    again = Log(log.folder, signer)
    await again.publish(keeper)
    report = verify.verify_log(log.folder, key_of(log), older=[("before", before.encode())])
    assert report.size == 1101
