"""A note that stands for many is counted as many."""

import io

from hub.model.clock import FixedClock
from hub.observe import Observer


def test_refusals_told_in_one_line_are_all_counted():
    observer = Observer(FixedClock(1_780_000_000), io.StringIO())
    observer.note("handshake_refused", reason="closed_by_peer", count=1)
    observer.note("handshake_refused", reason="closed_by_peer", count=41)
    observer.note("started")
    text = observer.exposition().decode()
    observer.close()
    assert 'hub_notes_total{name="handshake_refused"} 42.0' in text
    assert 'hub_notes_total{name="started"} 1.0' in text
