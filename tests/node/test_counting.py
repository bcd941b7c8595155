"""What is counted: a note that stands for many as many, an answer by its time, each with one line."""

import io

import orjson

from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.model.http import Request, Response
from hub.model.terms import Face
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


def test_answers_are_counted_and_timed_without_the_bank():
    out = io.StringIO()
    observer = Observer(FixedClock(1_780_000_000), out)
    request = Request(face=Face.TPP, method="GET", authority="hub.example", path="/p")
    event = Event(kind=Kind.CALL, time_ms=1, route="accounts", bank_us=30_000, check="c")
    for _ in range(3):
        observer.answered(request, Response(status=200, event=event), 32_000_000)
    observer.answered(request, Response(status=404), 400_000)
    text = observer.exposition().decode()
    observer.close()
    for line in (
        'hub_answers_total{face="tpp",route="accounts",status="200"} 3.0',
        'hub_answers_total{face="tpp",route="unrouted",status="404"} 1.0',
        'hub_answer_seconds_bucket{face="tpp",le="0.001",route="accounts"} 0.0',
        'hub_answer_seconds_bucket{face="tpp",le="0.0025",route="accounts"} 3.0',
        'hub_answer_seconds_bucket{face="tpp",le="+Inf",route="accounts"} 3.0',
        'hub_answer_seconds_count{face="tpp",route="accounts"} 3.0',
        'hub_bank_seconds_bucket{le="0.025",route="accounts"} 0.0',
        'hub_bank_seconds_bucket{le="0.05",route="accounts"} 3.0',
    ):
        assert line in text.splitlines()
    assert 'hub_bank_seconds_count{route="unrouted"}' not in text
    lines = [orjson.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0] == {
        "time": 1_780_000_000_000, "face": "tpp", "method": "GET", "status": 200, "us": 32_000, "address": "",
        "route": "accounts", "verdict": "allowed", "check": "c", "bank_us": 30_000,
    }  # fmt: skip
    assert lines[3] == {
        "time": 1_780_000_000_000, "face": "tpp", "method": "GET", "status": 404, "us": 400, "address": "",
    }  # fmt: skip
