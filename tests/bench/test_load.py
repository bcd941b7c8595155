"""The load's own arithmetic: what waits late counts from when it was due, what was not answered is no answer."""

import pytest
import trio

from bench import run
from bench.client import H1Connection, H2Connection, Request, frame, literal, status_of
from bench.load import ClosedLoop, OpenLoop, Tally, main, percentile, summary
from tests.waiting import pause_of_a_peer, until


class Slow:
    """Answer one request at a time, each after ``seconds``."""

    failed = ""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sent: list = []

    def send(self, request, done) -> None:
        self.sent.append(done)

    async def run(self) -> None:
        while True:
            await pause_of_a_peer(self.seconds)
            if self.sent:
                self.sent.pop(0)(200, 10)


class Fixed:
    def request(self) -> Request:
        return Request("GET", "https://localhost", "/", (), ())


async def test_open_loop_counts_latency_from_when_a_request_was_due():
    tally, slow = Tally(), Slow(0.05)
    tally.measuring = True
    loop = OpenLoop([slow], 1, Fixed(), tally)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.run)
        nursery.start_soon(loop.run, 100.0)
        # 100 a second are due, 20 are answered: the queue counts
        await until(lambda: max(tally.latencies, default=0) > 150_000, 5, "answers that were late")
        nursery.cancel_scope.cancel()
    assert tally.late > 0


async def test_closed_loop_sends_only_after_an_answer():
    tally, slow = Tally(), Slow(0.0)
    tally.measuring = True
    loop = ClosedLoop(slow, Fixed(), tally)
    loop.go()
    assert len(slow.sent) == 1
    slow.sent.pop()(200, 5)
    assert (len(slow.sent), tally.statuses[200]) == (1, 1)


def test_percentiles_and_sums_are_those_of_all_parts():
    part = {
        "seconds": 2.0,
        "statuses": {200: 3, 0: 1},
        "octets": 30,
        "late": 0,
        "failed_connections": {},
    }
    result = summary([{**part, "latencies": [1000.0, 3000.0]}, {**part, "latencies": [2000.0]}])
    assert (result["answered"], result["good"], result["per_second"]) == (6, 6, 3.0)
    assert (result["p50_ms"], result["max_ms"]) == (2.0, 3.0)
    assert percentile([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x88", 200),
        (b"\x20\x8d", 404),
        (b"\x08\x03201", 201),
        (b"\x48\x82\x10\x03", 201),
        (literal(b":status", b"103"), 103),
        (b"\xbe", 0),
    ],
)
def test_a_status_is_read_however_it_is_encoded(block, status):
    assert status_of(block) == status


def test_an_interim_answer_is_not_the_answer():
    connection = H2Connection("localhost", 1, None)
    heard = []
    connection.send(Fixed().request(), lambda *answer: heard.append(answer))
    connection._feed(frame(1, 4, 1, literal(b":status", b"103")))
    connection._feed(frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"hello"))
    assert heard == [(200, 5)]


def test_http1_answers_are_told_apart_by_their_length():
    connection = H1Connection("localhost", 1, None)
    heard = []
    connection.send(Fixed().request(), lambda *answer: heard.append(answer))
    connection._feed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
    )
    assert not heard
    connection._feed(b"lo")
    connection.send(Fixed().request(), lambda *answer: heard.append(answer))
    connection._feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert heard == [(200, 5), (200, 3)]


async def test_a_connection_that_ends_leaves_no_request_unanswered():
    connection = H2Connection("localhost", 1, None)
    heard = []
    connection.send(Fixed().request(), lambda *answer: heard.append(answer))
    connection._lose()
    connection.failed = "closed"
    connection.send(Fixed().request(), lambda *answer: heard.append(answer))
    assert heard == [(0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--rate", "-5"), "--rate: expected"),
        (("--duration", "nan"), "--duration: expected"),
        (("--duration", "0"), "--duration: expected"),
        (("--connections", "0"), "--connections: expected 1 or more"),
        (("--at", "nonsense"), "--at: expected HOST:PORT"),
        ((), "no sandbox there"),
    ],
)
def test_load_that_cannot_be_made_is_refused_with_what_was_expected(tmp_path, capsys, given, words):
    with pytest.raises(SystemExit):
        main(["--sandbox", str(tmp_path), *given])
    assert words in capsys.readouterr().err


def test_a_part_that_nobody_measures_is_not_measured(tmp_path, capsys):
    history = tmp_path / "history"
    with pytest.raises(SystemExit):
        run.main(["--only", "peers,nope", "--history", str(history)])
    assert "nope: expected of " in capsys.readouterr().err
    assert not history.exists()
