"""Metrics and one JSON log line per request, through a redactor; neither ever holds a payload or a secret.

One ``Observer`` per process, made by ``node`` and handed down. ``answered`` is called by the edge once per answer;
``note`` by anybody for things that are not requests (a refused handshake, a refresh, a retry). Lines go to a bounded
queue and a thread of their own, so that a blocked standard output cannot stall the loop; what does not fit is counted.
The thread is woken for the first line only and then takes what has gathered every ``_GATHER_S``: waking it for each line
costs more than the line. Metrics are looked up by their labels once and remembered.
"""

import sys
import threading
from collections import deque
from typing import Final, TextIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
        self._meters: dict[tuple[str, str, int], _Meter] = {}
        self._names: dict[str, Counter] = {}
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "hub_answers",
            "Answers by face, route and status",
            ["face", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hub_answer_seconds",
            "Hub time per answer",
            ["face", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._bank_seconds = Histogram(
            "hub_bank_seconds",
            "Bank time per answer",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._notes = Counter(
            "hub_notes", "Things that happened, by name", ["name"], registry=self.registry
        )
        self._gauges: dict[str, Gauge] = {}
        self._lost = Counter(
            "hub_log_lines_lost",
            "Log lines dropped because the reader was slow",
            registry=self.registry,
        )
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def answered(self, request: Request, response: Response, duration_ns: int) -> None:
        """Count one answer and write its line; called by the edge when the answer was handed to the transport."""
        event = response.event
        route = event.route if event is not None and event.route else "unrouted"
        meter = self._meters.get((request.face, route, response.status))
        if meter is None:
            meter = self._meter(request.face, route, response.status)
        bank_us = event.bank_us if event is not None else 0
        meter.answers.inc()
        meter.seconds.observe(max(0.0, duration_ns / 1e9 - bank_us / 1e6))
        if bank_us:
            meter.bank_seconds.observe(bank_us / 1e6)
        if self._log:
            self._line(self._describe(request, response, duration_ns, event))

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
        self._thread.join(1.0)

    def _meter(self, face: str, route: str, status: int) -> "_Meter":
        meter = _Meter(
            answers=self._answers.labels(face, route, status),
            seconds=self._seconds.labels(face, route),
            bank_seconds=self._bank_seconds.labels(route),
        )
        self._meters[face, route, status] = meter
        return meter

    def _describe(
        self, request: Request, response: Response, duration_ns: int, event: Event | None
    ) -> dict[str, object]:
        line: dict[str, object] = {
            "time": self._clock.now_ms(),
            "face": request.face,
            "method": request.method,
            "status": response.status,
            "us": duration_ns // 1000,
            "address": request.peer.address,
        }
        if event is None:
            return line
        for name in (
            "interaction_id",
            "client_id",
            "consent_id",
            "route",
            "verdict",
            "check",
            "code",
            "bank_us",
            "octets_in",
            "octets_out",
        ):
            value = getattr(event, name)
            if value:
                line[name] = value
        return line

    def _line(self, fields: dict[str, object]) -> None:
        if len(self._lines) >= _QUEUE:
            self._lost.inc()
            return
        self._lines.append(orjson.dumps(fields, default=str))
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


class _Meter:
    """Hold the metrics of one face, route and status."""

    __slots__ = ("answers", "bank_seconds", "seconds")

    def __init__(self, answers: Counter, seconds: Histogram, bank_seconds: Histogram) -> None:
        self.answers = answers
        self.seconds = seconds
        self.bank_seconds = bank_seconds
