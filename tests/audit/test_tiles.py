"""The files of the log: what was written is still named after a power cut."""

import os
from pathlib import Path

from hub.audit.tiles import Tiles, tile_path


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
