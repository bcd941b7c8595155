"""What is remembered of records is what stands in the database: in the group that is written, and when it is durable."""

import pytest

from hub.model.consent import Consent
from hub.model.fault import Fault
from hub.model.limits import Taken
from hub.state.entry import entry_of, leaf_of
from hub.state.keeper import Conflict, Drop, Put, Versioned
from hub.state.known import Known, Row
from hub.state.open import DATABASE
from hub.state.sqlite import Store
from hub.state.work import Commit
from tests.state.keepers import consent, event
from tests.state.test_shares import payment_consent, reserve, settle

SHOWN = {
    "CumulativeNumberOfPayments": 2,
    "CumulativeValueOfPayments": {"Amount": "2.00", "Currency": "AED"},
    "CumulativeNumberOfPaymentsInCurrentPeriod": 2,
    "CumulativeValueOfPaymentsInCurrentPeriod": {"Amount": "2.00", "Currency": "AED"},
}
NAME = ("consent", "c")


def row(version: int, octets: int = 100) -> Row:
    return Row(Versioned(consent("c"), version), b"", octets)


def test_what_a_group_writes_is_seen_by_the_group_at_once_and_by_others_when_it_is_durable():
    known = Known(1000)
    known.write(*NAME, row(1))
    assert known.current(*NAME) == row(1)
    assert known.committed(*NAME) is None
    known.end()
    assert known.committed(*NAME) == known.current(*NAME) == row(1)


def test_what_was_undone_never_was():
    known = Known(1000)
    known.keep(*NAME, row(1), known.commits)
    known.write(*NAME, row(2))
    known.undo()
    known.end()
    assert known.current(*NAME) == known.committed(*NAME) == row(1)


def test_a_record_that_only_the_database_knows_is_not_the_one_that_was_known():
    known = Known(1000)
    known.keep(*NAME, row(1), known.commits)
    known.write(*NAME, None)
    assert known.current(*NAME) is None
    assert known.committed(*NAME) == row(1)
    known.keep(*NAME, row(2), known.commits)
    assert known.committed(*NAME) == row(1)
    known.end()
    assert known.committed(*NAME) is None


def test_what_was_read_while_a_commit_ended_is_not_remembered():
    known = Known(1000)
    began = known.commits
    known.write(*NAME, row(2))
    known.end()
    known.keep(*NAME, row(1), began)
    assert known.committed(*NAME) == row(2)


def test_octets_are_bounded_together_and_what_is_written_again_counts_once():
    known = Known(250)
    for version in range(1, 9):
        known.write(*NAME, row(version))
        known.end()
    known.keep("consent", "d", row(1), known.commits)
    assert known.committed(*NAME) == row(8)
    known.keep("consent", "e", row(1), known.commits)
    assert known.committed(*NAME) is None
    assert known.committed("consent", "e") == row(1)
    known.keep("consent", "f", row(1, 251), known.commits)
    assert known.committed("consent", "f") is None
    assert known.committed("consent", "e") == row(1)


def test_other_kinds_are_not_remembered():
    known = Known(1000)
    known.keep("setting", "c", row(1), known.commits)
    known.write("setting", "c", row(1))
    assert known.current("setting", "c") is None


def commit(*changes) -> Commit:
    steps = tuple(
        entry_of(change) if isinstance(change, Put | Drop) else change for change in changes
    )
    return Commit(steps, (leaf_of(event()),))


def test_what_a_commit_decided_is_the_same_from_memory_and_from_the_disk(tmp_path):
    path = tmp_path / DATABASE
    store = Store(path)
    store.write([commit(Put(payment_consent(number=2)))])
    store.write([commit(reserve("p1")), commit(reserve("p2")), commit(reserve("p3"))])
    done = store.write([commit(settle("p1", "Pending")), commit(settle("p2", "AcceptedX"))])
    assert not any(isinstance(one, Fault) for one in done)
    store.write([commit(settle("p1", "AcceptedX"))])
    remembered = [store.lookup(kind, "c") for kind in ("consent", "allowance")]
    store.close()
    fresh = Store(path)
    assert [fresh.lookup(kind, "c") for kind in ("consent", "allowance")] == remembered
    fresh.close()
    assert str(remembered[0].record.status) == "Consumed"
    assert isinstance(remembered[0].record, Consent)


def test_what_was_rolled_back_is_not_remembered_as_written(tmp_path):
    store = Store(tmp_path / DATABASE)
    store.write([commit(Put(payment_consent()))])

    class LostError(Exception):
        pass

    def lose(_point):
        raise LostError

    store.prepare([commit(reserve("p1"))])
    store._failpoint = lose
    with pytest.raises(LostError):
        store.commit()
    store._failpoint = lambda _point: None
    assert store.lookup("allowance", "c") is None
    store.write([commit(reserve("p2", 200))])
    assert store.lookup("allowance", "c").record.total == Taken(1, 200)
    store.close()


def test_a_record_is_found_as_it_stands_whoever_wrote_it(tmp_path):
    store = Store(tmp_path / DATABASE)
    store.write([commit(Put(payment_consent(number=9)))])
    store.write([commit(reserve("p1"), settle("p1", "AcceptedX"))])
    store.lookup("consent", "c")
    patched = payment_consent(number=9, updated=77)
    refused, *_ = store.write([commit(Put(patched, 1)), commit(reserve("p2"))])
    assert refused == Conflict(0)
    store.write([commit(Put(patched, 2)), commit(reserve("p3"), settle("p3", "Rejected"))])
    found = store.lookup("consent", "c")
    assert (found.version, found.record.body["Data"]["PaymentConsumption"]) == (4, SHOWN)
    store.write([commit(Drop("consent", "c"))])
    assert store.lookup("consent", "c") is None
    store.write([commit(Put(patched, 0))])
    assert store.lookup("consent", "c") == Versioned(patched, 1)
    store.close()


def test_nobody_sees_what_is_prepared_before_it_is_committed(tmp_path):
    store = Store(tmp_path / DATABASE)
    store.write([commit(Put(payment_consent()))])
    store.prepare([commit(reserve("p1")), commit(reserve("p2"))])
    assert store.lookup("allowance", "c") is None
    store.commit()
    assert store.lookup("allowance", "c").record.total == Taken(2, 200)
    store.close()


def test_who_only_reads_finds_what_another_wrote_meanwhile(tmp_path):
    store = Store(tmp_path / DATABASE)
    store.write([commit(Put(payment_consent()))])
    reader = Store(tmp_path / DATABASE, readonly=True)
    assert reader.lookup("consent", "c").version == 1
    store.write([commit(Put(payment_consent()))])
    assert reader.lookup("consent", "c").version == 2
    reader.close()
    store.close()
