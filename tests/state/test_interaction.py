"""Events are found by their interaction wherever they are: in a slice, behind the last one, in an older database."""

import random

import apsw
import pytest

from hub.state.entry import leaf_of
from hub.state.interaction import SLICE, sliced
from hub.state.open import DATABASE, open_reader
from hub.state.schema import APPLICATION_ID, MIGRATIONS, StoreError
from hub.state.sqlite import Store
from hub.state.work import Commit
from tests.state.disk import Disk
from tests.state.keepers import event


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("hub.state.sqlite.SLICE", 10)


def write(store: Store, *names: str) -> None:
    """Write events in one group, and tidy where it is due, as the writer does."""
    store.write([Commit((), [leaf_of(event(name))]) for name in names])
    if store.untidy:
        store.tidy()


def positions(store: Store, name: str) -> list[int]:
    return [at for at, _ in store.trace(name)]


def test_events_of_one_interaction_are_found_across_slices_and_in_order(tmp_path, short):
    dice, store = random.Random(3), Store(tmp_path / DATABASE)
    names = [dice.choice("abcdefg") for _ in range(187)]
    at = 0
    while at < len(names):
        some = names[at : at + dice.randrange(1, 8)]
        write(store, *some)
        at += len(some)
        seen = names[:at]
        for name in "abcdefgx":
            assert positions(store, name) == [n for n, one in enumerate(seen) if one == name]
    assert 100 < sliced(store._writer) < len(names)
    leaves = store.events(0, 1000)
    assert store.trace("a") == tuple((n, leaves[n]) for n in positions(store, "a"))
    store.close()


def test_slices_are_found_again_after_a_restart_and_continued(tmp_path, short):
    for start in range(0, 60, 4):
        store = Store(tmp_path / DATABASE)
        write(store, *(str(n) for n in range(start, start + 4)))
        store.close()
    store = Store(tmp_path / DATABASE)
    assert sliced(store._writer) == 60
    assert [positions(store, str(n)) for n in range(60)] == [[n] for n in range(60)]
    store.close()


def test_events_without_an_interaction_are_never_found(tmp_path, short):
    store = Store(tmp_path / DATABASE)
    write(store, *([""] * 12), "a")
    assert sliced(store._writer) == 13
    assert store._writer.execute("SELECT count(*) FROM interaction").get == 1
    assert positions(store, "") == []
    store.close()


def test_a_full_disk_puts_the_sorting_off(tmp_path, short):
    disk = Disk(f"disk-{tmp_path.name}")
    store = Store(tmp_path / DATABASE, vfs=disk.name)
    store.write([Commit((), [leaf_of(event(str(n))) for n in range(12)])])
    disk.full = True
    store.tidy()
    assert store.untidy
    disk.full = False
    assert positions(store, "3") == [3]
    store.tidy()
    assert not store.untidy
    assert sliced(store._writer) == 12
    assert positions(store, "3") == [3]
    store.close()


def first_version(path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", APPLICATION_ID)
    connection.execute(MIGRATIONS[0])
    connection.pragma("user_version", 1)
    return connection


@pytest.mark.parametrize("names", [[], ["a", "b", "", "a"]])
def test_a_database_of_the_first_version_is_brought_forward(tmp_path, names):
    path = tmp_path / DATABASE
    new = Store(tmp_path / "new")
    write(new, *names)
    old = first_version(path)
    old.executemany(
        "INSERT INTO event VALUES (?, ?, ?)", new._writer.execute("SELECT * FROM event")
    )
    old.execute("UPDATE head SET (size, frontier, root) = (?, ?, ?)", (
        *new._writer.execute("SELECT size, frontier, root FROM head").get,))  # fmt: skip
    old.close()
    store = Store(path)
    assert sliced(store._writer) == len(names)
    write(store, "a")
    assert store.trace("a") == (*new.trace("a"), (len(names), leaf_of(event("a"))[1]))
    for one in (new, store):
        one.close()


def test_who_only_reads_refuses_an_older_database_in_one_line(tmp_path):
    first_version(tmp_path / DATABASE).close()
    with pytest.raises(StoreError, match="older Hub"), open_reader(tmp_path):
        pass


def test_a_slice_is_due_after_thousands_of_events(tmp_path):
    store = Store(tmp_path / DATABASE)
    write(store, *(str(n) for n in range(SLICE - 1)))
    assert sliced(store._writer) == 0
    write(store, "last")
    assert sliced(store._writer) == SLICE
    assert positions(store, "17") == [17]
    assert positions(store, "last") == [SLICE - 1]
    store.close()
