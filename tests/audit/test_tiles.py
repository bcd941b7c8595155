"""The files of the log: what was written is still named after a power cut."""

import os
from pathlib import Path

import pytest

from hub.audit import verify
from hub.audit.log import CHECKPOINT, Log
from hub.audit.receipt import receipt_of
from hub.audit.tiles import LogError, Tiles, tile_path
from hub.model.event import Event, Kind
from hub.model.failpoint import Point
from hub.state.memory import MemoryKeeper

_EVENT = [Event(kind=Kind.CALL, time_ms=1)]


async def test_a_receipt_is_given_while_the_full_bundle_lies_beside_the_part_that_is_signed(
    tmp_path, signer, keeper
):
    """The files of the next publication are there before its checkpoint; on a full disk for long."""

    def full(point):
        if point is Point.BEFORE_CHECKPOINT and log.size:
            raise OSError(28, "No space left on device")

    log = Log(tmp_path / "log", signer, failpoint=full)
    await keeper.commit((), [Event(kind=Kind.CALL, time_ms=1)] * 300)
    await log.publish(keeper)
    await keeper.commit((), [Event(kind=Kind.CALL, time_ms=1)] * 300)
    with pytest.raises(OSError, match="No space"):
        await log.publish(keeper)
    assert (log.folder / tile_path(None, 1)).exists()
    assert (log.folder / tile_path(None, 1, 44)).exists()
    keys = [verify.Key.parse(log.vkey)]
    for index in (0, 255, 256, 299):
        receipt = receipt_of(Tiles(log.folder), log.note, index)
        assert verify.verify_receipt(receipt.encode(), keys)[0] == index
    log.tiles.drop_partial(None, 1)
    receipt = receipt_of(Tiles(log.folder), log.note, 299)
    assert verify.verify_receipt(receipt.encode(), keys)[0] == 299


async def test_a_database_that_was_restored_and_has_grown_since_leaves_nothing_beside_the_log(
    tmp_path, signer, keeper, clock
):
    """With the right database in its place again, the log goes on."""
    events = [Event(kind=Kind.CALL, time_ms=at) for at in range(600)]
    await keeper.commit((), events[:300])
    log = Log(tmp_path / "log", signer)
    await log.publish(keeper)
    files = sorted(log.folder.rglob("*"))
    restored = MemoryKeeper(clock=clock)
    await restored.commit((), [*events[:200], *events[300:]])
    for size in (500, 700):
        await restored.commit((), events[: size - (await restored.head()).size])
        again = Log(log.folder, signer)
        with pytest.raises(LogError, match="is not the one"):
            await again.publish(restored)
        assert sorted(log.folder.rglob("*")) == files
    await keeper.commit((), events[300:])
    again = Log(log.folder, signer)
    await again.publish(keeper)
    assert verify.verify_log(log.folder, [verify.Key.parse(log.vkey)]).size == 600


def test_a_new_file_and_every_new_folder_above_it_are_named_durably(tmp_path, monkeypatch):
    synced: list[Path] = []
    real = os.fsync

    def noted(opened):
        synced.append(Path(f"/proc/self/fd/{opened}").readlink())
        real(opened)

    monkeypatch.setattr(os, "fsync", noted)
    tiles = Tiles(tmp_path / "audit" / "log")
    path = tile_path(0, 1234, 5)
    tiles.write(path, b"\0" * 160)
    target = tiles.folder / path
    above = [folder for folder in target.parents if folder.is_relative_to(tmp_path)]
    assert len(above) > 4
    assert set(above) <= set(synced)

    synced.clear()
    tiles.write(tile_path(0, 1234, 6), b"\0" * 192)
    assert [folder for folder in synced if folder.is_dir()] == [target.parent]


async def test_every_name_is_durable_before_it_is_signed_and_each_folder_synced_once(
    tmp_path, monkeypatch, keeper, signer
):
    synced: list[Path] = []
    real = os.fsync

    def noted(opened):
        synced.append(Path(f"/proc/self/fd/{opened}").readlink())
        real(opened)

    log = Log(tmp_path / "audit" / "log", signer)
    await keeper.commit((), _EVENT * 5)
    await log.publish(keeper)
    await keeper.commit((), _EVENT * 768)
    monkeypatch.setattr(os, "fsync", noted)
    await log.publish(keeper)
    files = [at for at, path in enumerate(synced) if not path.is_dir()]
    at_once = synced[files[-2] + 1 : files[-1]]
    laid = {path.parent for path in log.folder.rglob("*") if path.is_file()} - {log.folder}
    assert {folder: at_once.count(folder) for folder in laid} == dict.fromkeys(laid, 1), (
        "once each, after the last file and before the checkpoint"
    )
    assert synced[-1] == log.folder


async def test_names_that_could_not_be_made_durable_are_so_before_the_next_signature(
    tmp_path, monkeypatch, keeper, signer
):
    log = Log(tmp_path / "audit" / "log", signer)
    await keeper.commit((), _EVENT * 5)
    synced: list[Path] = []
    real = os.fsync
    refuse = True

    def failing(opened):
        path = Path(f"/proc/self/fd/{opened}").readlink()
        if refuse and path.name == "000.p":
            raise OSError(28, "no space left")
        synced.append(path)
        real(opened)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no space left"):
        await log.publish(keeper)
    assert not (log.folder / CHECKPOINT).exists()
    refuse = False
    await log.publish(keeper)
    at = [synced.index(log.folder / name) for name in ("tile/0/000.p", "tile/entries/000.p")]
    assert max(at) < len(synced) - 1
    assert synced[-1] == log.folder
