"""Backups: whose they are, and what is left of one that failed."""

import stat

import apsw
import pytest

from hub.state.backup import check_backup, copy_state
from hub.state.open import DATABASE
from hub.state.schema import StoreError
from hub.state.sqlite import Store


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
