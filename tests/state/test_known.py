"""What is remembered of records: only what their octets say, and only so much."""

import msgspec
import pytest

from hub.model.consent import Consent
from hub.model.fault import Fault
from hub.model.limits import Allowance, Taken
from hub.state.entry import entry_of, leaf_of, put_entry
from hub.state.keeper import Put
from hub.state.known import Known
from hub.state.open import DATABASE
from hub.state.sqlite import Store
from hub.state.work import Commit
from tests.state.keepers import consent, event
from tests.state.test_shares import payment_consent, reserve, settle


def body_of(record) -> bytes:
    return put_entry(Put(record)).body


def test_a_record_is_decoded_once_and_again_when_its_octets_are_others():
    known, one = Known(100_000), consent("c")
    first = known.read("consent", "c", body_of(one))
    assert first == one
    assert known.read("consent", "c", body_of(one)) is first
    changed = msgspec.structs.replace(one, updated_ms=5)
    assert known.read("consent", "c", body_of(changed)) == changed


def test_what_is_kept_is_given_out_for_its_octets_only():
    known, one = Known(100_000), Allowance(consent_id="c")
    known.keep("allowance", "c", body_of(one), one)
    assert known.read("allowance", "c", body_of(one)) is one
    other = Allowance(consent_id="c", total=Taken(1, 100))
    assert known.read("allowance", "c", body_of(other)) == other


def test_octets_are_bounded_together_and_records_that_are_too_long_are_not_kept():
    bodies = {name: body_of(consent(name)) for name in ("a", "b", "c")}
    known = Known(2 * len(bodies["a"]))
    kept = {name: known.read("consent", name, body) for name, body in bodies.items()}
    assert known.read("consent", "c", bodies["c"]) is kept["c"]
    assert known.read("consent", "a", bodies["a"]) is not kept["a"]
    small = Known(10)
    assert small.read("consent", "a", bodies["a"]) is not small.read("consent", "a", bodies["a"])


def test_the_same_record_read_many_times_over_forgets_no_other():
    one, other = consent("a"), consent("b")
    known = Known(3 * len(body_of(one)))
    kept = known.read("consent", "b", body_of(other))
    for moment in range(10):
        known.read("consent", "a", body_of(msgspec.structs.replace(one, updated_ms=moment)))
    assert known.read("consent", "b", body_of(other)) is kept


def commit(*changes) -> Commit:
    steps = tuple(entry_of(change) if isinstance(change, Put) else change for change in changes)
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
