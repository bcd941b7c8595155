"""Backups: whose they are, and what is left of one that failed."""

import errno
import os
import shutil
import stat
from pathlib import Path

import apsw
import pytest

from hub.state.backup import check_backup, copy_state, put_back
from hub.state.entry import leaf_of
from hub.state.open import DATABASE
from hub.state.schema import StoreError
from hub.state.sqlite import Store
from hub.state.work import Commit
from tests.state.keepers import event


def test_a_backup_is_its_owners_alone_from_the_first_and_leaves_no_part(tmp_path, monkeypatch):
    Store(tmp_path / DATABASE).close()
    target, modes = tmp_path / "copy", []

    class Full(apsw.Connection):
        def __init__(self, path, **more):
            super().__init__(path, **more)
            if path == str(target):
                modes.append(stat.S_IMODE(target.stat().st_mode))
                self.pragma("max_page_count", 2)

    monkeypatch.setattr("hub.state.copying.apsw.Connection", Full)
    with pytest.raises(StoreError, match="the backup failed"):
        copy_state(tmp_path, target)
    assert modes == [0o600]
    assert not list(tmp_path.glob("copy*"))
    monkeypatch.undo()
    copy_state(tmp_path, target)
    assert check_backup(target).size == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_backup_that_fails_at_its_very_end_leaves_no_part(tmp_path, monkeypatch):
    Store(tmp_path / DATABASE).close()

    class Full(apsw.Connection):
        def pragma(self, name, *value):
            if (name, *value) == ("journal_mode", "delete"):
                raise apsw.FullError("database or disk is full")
            return super().pragma(name, *value)

    monkeypatch.setattr(apsw, "Connection", Full)
    with pytest.raises(StoreError, match="disk is full"):
        copy_state(tmp_path, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


def test_a_restore_that_is_cut_off_leaves_the_old_state_whole(tmp_path, monkeypatch):
    """The Hub was killed: its newest commits are in SQLite's log only."""
    folder, source = tmp_path / "state", tmp_path / "source.db"
    folder.mkdir()
    Store(source).close()
    store = Store(folder / DATABASE)
    store.write([Commit((), [leaf_of(event())])])
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed)
    store.close()
    assert (killed / f"{DATABASE}-wal").stat().st_size
    rename = Path.rename

    def cut_off(self, target):
        if self.name == f"{DATABASE}.new":
            raise OSError("killed")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", cut_off)
        with pytest.raises(StoreError, match="killed"):
            put_back(source, killed)
    assert check_backup(killed / DATABASE).size == 1
    aside = put_back(source, killed)
    assert (check_backup(killed / DATABASE).size, check_backup(aside).size) == (0, 1)


@pytest.mark.parametrize("says", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_backup_is_put_back_on_a_file_system_without_links(tmp_path, monkeypatch, says):
    folder, source = tmp_path / "state", tmp_path / "source.db"
    folder.mkdir()
    for path in (source, folder / DATABASE):
        Store(path).close()

    def link(_present, _aside):
        raise OSError(says, os.strerror(says))

    monkeypatch.setattr(os, "link", link)
    aside = put_back(source, folder)
    assert (check_backup(folder / DATABASE).size, check_backup(aside).size) == (0, 0)
