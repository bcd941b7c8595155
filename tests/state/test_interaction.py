"""Events are found by their interaction wherever they are: in a slice, behind the last one, in an older database."""

import random

import apsw
import pytest

from hub.protocol.merkle import leaf_hash
from hub.state.backup import FORGOTTEN, check_backup, copy_state, forget_events
from hub.state.entry import MOST, leaf_of
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


@pytest.mark.parametrize("gone", [[3], [17], [3, 4, 10, 17]])
def test_what_is_forgotten_is_not_found_by_its_interaction(tmp_path, short, gone):
    store = Store(tmp_path / DATABASE)
    write(store, *["a", "b"] * 5)
    write(store, *["a", "b"] * 5)
    hashes = {at: leaf_hash(leaf) for at, leaf in enumerate(store.events(0, 20)) if at in gone}
    assert sliced(store._writer) == 20
    write(store, "a", "b")
    store.close()
    forget_events(tmp_path, hashes)
    check_backup(tmp_path / DATABASE)
    store = Store(tmp_path / DATABASE)
    for first, name in enumerate("ab"):
        assert positions(store, name) == [at for at in range(first, 22, 2) if at not in gone]
    assert all(leaf[:1] != FORGOTTEN for name in "ab" for _, leaf in store.trace(name))
    kept = store._writer.execute("SELECT count(*) FROM interaction").get
    assert kept == 20 - len(gone), "the interaction is forgotten too"
    store.close()


def test_an_interaction_of_very_many_events_is_read_no_further_than_asked(tmp_path, short):
    store = Store(tmp_path / DATABASE)
    for _ in range(6):
        write(store, *["same"] * MOST)
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    store._searcher.set_progress_handler(count, 100)
    assert positions(store, "same") == list(range(MOST))
    assert steps * 100 < 40 * MOST
    store.close()


def test_a_full_disk_does_not_keep_the_log_from_being_moved(tmp_path, short, monkeypatch):
    disk = Disk(f"disk-{tmp_path.name}")
    store = Store(tmp_path / DATABASE, vfs=disk.name)
    store.write([Commit((), [leaf_of(event(str(n))) for n in range(12)])])
    monkeypatch.setattr("hub.state.sqlite._CHECKPOINT_PAGES", 1)

    def full(*_):
        raise apsw.FullError("no space left")

    monkeypatch.setattr("hub.state.sqlite.add_slice", full)
    store.tidy()
    assert store._pages == 0, "moved"
    assert store.untidy
    store.close()


def test_what_was_put_off_for_long_is_sorted_in_slices_of_some_size(tmp_path, short):
    store = Store(tmp_path / DATABASE)
    store.write([Commit((), [leaf_of(event(str(n % 7))) for n in range(200)])])
    turns = 0
    while store.untidy:
        store.tidy()
        turns += 1
    assert turns > 1
    assert [positions(store, str(n)) for n in range(7)] == [
        list(range(n, 200, 7)) for n in range(7)
    ]
    store.close()


def test_a_database_of_the_first_version_is_backed_up_as_it_is(tmp_path):
    first_version(tmp_path / DATABASE).close()
    copy_state(tmp_path, tmp_path / "copy")
    assert check_backup(tmp_path / "copy").size == 0
    copy = apsw.Connection(str(tmp_path / "copy"))
    assert copy.pragma("user_version") == 1
    copy.close()


def test_what_is_not_there_cannot_be_backed_up(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        copy_state(tmp_path, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM interaction WHERE position = 3",
        "UPDATE interaction SET name = 'b' WHERE position = 2",
        "UPDATE interaction SET slice = 0 WHERE position = 12",
        "INSERT INTO interaction VALUES (0, 'c', 3)",
        "DELETE FROM slice WHERE first = 0",
        "UPDATE slice SET beyond = 21 WHERE first = 10",
        "UPDATE event SET interaction = 'c' WHERE position = 5",
    ],
)
def test_a_backup_whose_events_are_sorted_wrongly_is_damaged(tmp_path, short, damage):
    store = Store(tmp_path / DATABASE)
    for _ in range(2):
        write(store, *["a", "b"] * 5)
    write(store, "a", "b")
    store.close()
    check_backup(tmp_path / DATABASE)
    connection = apsw.Connection(str(tmp_path / DATABASE))
    connection.execute(damage)
    connection.close()
    with pytest.raises(StoreError, match="sorted wrongly"):
        check_backup(tmp_path / DATABASE)
