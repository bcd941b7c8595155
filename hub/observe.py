"""Metrics and one JSON log line per request, through a redactor; neither ever holds a payload or a secret.

One ``Observer`` per process, made by ``node`` and handed down. ``answered`` is called by the edge once per answer;
``note`` by anybody for things that are not requests (a refused handshake, a refresh, a retry). Lines go to a bounded
queue and a thread of their own, so that a blocked standard output cannot stall the loop; what does not fit is counted.
The thread is woken for the first line only and then takes what has gathered every ``_GATHER_S``: waking it for each line
costs more than the line. What is counted for each answer is counted in plain numbers by the one thread that answers, and
becomes metrics when somebody asks for them: the locks of a metrics library cost more than the rest of the observation.
"""

import sys
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Final, TextIO, final

import msgspec
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from hub.log_line import Line
from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.http import Request, Response

_QUEUE: Final = 10_000
_GATHER_S: Final = 0.02
_AT_ONCE: Final = 1_000
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; 0.25 and 0.5 are the edges of the regulator's service level."""

_REDACTED: Final = frozenset(
    {
        "authorization",
        "code",
        "access_token",
        "refresh_token",
        "client_assertion",
        "request",
        "password",
        "dpop",
    }
)


class Observer:
    """Count, time and log."""

    def __init__(self, clock: Clock, out: TextIO | None = None, *, log: bool = True) -> None:
        """Start the log thread.

        Args:
            clock: For the lines' time.
            out: Where lines go; standard output by default.
            log: False: metrics only.
        """
        self._clock = clock
        self._out = out or sys.stdout
        self._log = log
        self._lines: deque[bytes] = deque()
        self._waiting = threading.Event()
        self._closing = threading.Event()
        self._answers = Answers()
        self._names: dict[str, Counter] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self._answers)
        self._notes = Counter(
            "hub_notes", "Things that happened, by name", ["name"], registry=self.registry
        )
        self._gauges: dict[str, Gauge] = {}
        self._lost = Counter(
            "hub_log_lines_lost",
            "Log lines dropped because the reader was slow",
            registry=self.registry,
        )
        self._writing = threading.Thread(target=self._write, name="log", daemon=True)
        self._writing.start()

    def answered(self, request: Request, response: Response, duration_ns: int) -> None:
        """Count one answer and write its line; called by the edge when the answer was handed to the transport."""
        event, route, bank_us = response.event, "unrouted", 0
        if event is not None:
            route, bank_us = event.route or route, event.bank_us
        self._answers.add(request.face, route, response.status, duration_ns, bank_us)
        if self._log:
            self._put(_LINES.encode(self._describe(request, response, duration_ns, event)))

    def note(self, name: str, **fields: str | int | bool) -> None:
        """Count and log something that is not a request; ``name`` is a stable word, ``fields`` hold no secrets.

        ``count``: how many of them this one stands for.
        """
        counter = self._names.get(name)
        if counter is None:
            counter = self._names[name] = self._notes.labels(name)
        counter.inc(int(fields.get("count", 1)))
        if self._log:
            safe = {key: ("-" if key in _REDACTED else value) for key, value in fields.items()}
            self._line({"time": self._clock.now_ms(), "note": name, **safe})

    def gauge(self, name: str, help_text: str, value: float) -> None:
        """Set a gauge; it is made at its first use."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, help_text, registry=self.registry)
        self._gauges[name].set(value)

    def exposition(self) -> bytes:
        """Return the metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Write what is queued and end the log thread (at most a second)."""
        self._closing.set()
        self._waiting.set()
        self._writing.join(1.0)

    def _describe(
        self, request: Request, response: Response, duration_ns: int, event: Event | None
    ) -> "Line":
        now, us, address = self._clock.now_ms(), duration_ns // 1000, request.peer.address
        if event is None:
            return Line(
                time=now,
                face=request.face,
                method=request.method,
                status=response.status,
                us=us,
                address=address,
            )
        return Line(
            time=now,
            face=request.face,
            method=request.method,
            status=response.status,
            us=us,
            address=address,
            interaction_id=event.interaction_id,
            client_id=event.client_id,
            consent_id=event.consent_id,
            route=event.route,
            verdict=event.verdict,
            check=event.check,
            code=event.code,
            bank_us=event.bank_us,
            octets_in=event.octets_in,
            octets_out=event.octets_out,
        )

    def _line(self, fields: dict[str, object]) -> None:
        self._put(orjson.dumps(fields, default=str))

    def _put(self, line: bytes) -> None:
        if len(self._lines) >= _QUEUE:
            self._lost.inc()
            return
        self._lines.append(line)
        if not self._waiting.is_set():
            self._waiting.set()

    def _write(self) -> None:
        while not self._closing.is_set():
            self._waiting.wait()
            self._closing.wait(_GATHER_S)
            self._waiting.clear()
            self._write_lines()
        self._write_lines()

    def _write_lines(self) -> None:
        while count := min(len(self._lines), _AT_ONCE):
            taken = [self._lines.popleft() for _ in range(count)]
            try:
                self._out.write(b"\n".join([*taken, b""]).decode())
                self._out.flush()
            except (OSError, ValueError):
                self._lost.inc(count)


_LINES: Final = msgspec.json.Encoder()


@final
class _Spread:
    """Count durations by bucket."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper edge of each bucket with how many lie at or below it."""
        total, found = 0, []
        for edge, count in zip((*map(str, _BUCKETS), "+Inf"), self.counts, strict=True):
            total += count
            found.append((edge, float(total)))
        return found


@final
class _Tally:
    """Count the answers of one face, route and status, beside the durations of all its route's."""

    __slots__ = ("bank", "count", "hub")

    def __init__(self, hub: _Spread, bank: _Spread) -> None:
        self.count = 0
        self.hub = hub
        self.bank = bank


@final
class Answers(Collector):
    """Count and time answers by face, route and status; ``add`` by one thread only."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tallies: dict[tuple[str, str, int], _Tally] = {}
        self._hub: dict[tuple[str, str], _Spread] = {}
        self._bank: dict[str, _Spread] = {}

    def add(self, face: str, route: str, status: int, duration_ns: int, bank_us: int) -> None:
        """Count one answer, of whose time the bank took ``bank_us``."""
        tally = self._tallies.get((face, route, status))
        if tally is None:
            tally = self._begin(face, route, status)
        tally.count += 1
        seconds = duration_ns / 1e9
        if bank_us:
            tally.bank.add(bank_us / 1e6)
            seconds = max(0.0, seconds - bank_us / 1e6)
        tally.hub.add(seconds)

    def _begin(self, face: str, route: str, status: int) -> "_Tally":
        hub = self._hub.setdefault((face, route), _Spread())
        bank = self._bank.setdefault(route, _Spread())
        tally = self._tallies[face, route, status] = _Tally(hub, bank)
        return tally

    @override
    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "hub_answers",
            "Answers by face, route and status",
            labels=["face", "route", "status"],
        )
        for (face, route, status), tally in list(self._tallies.items()):
            answers.add_metric([face, route, str(status)], tally.count)
        yield answers
        hub = HistogramMetricFamily(
            "hub_answer_seconds", "Hub time per answer", labels=["face", "route"]
        )
        for place, spread in list(self._hub.items()):
            hub.add_metric(list(place), spread.buckets(), spread.sum)
        yield hub
        bank = HistogramMetricFamily("hub_bank_seconds", "Bank time per answer", labels=["route"])
        for route, spread in list(self._bank.items()):
            if not any(spread.counts):
                continue  # nobody asked the bank for it
            bank.add_metric([route], spread.buckets(), spread.sum)
        yield bank
