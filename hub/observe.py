"""Metrics and one JSON log line per request, through a redactor; neither ever holds a payload or a secret.

One ``Observer`` per process, made by ``node`` and handed down. ``answered`` is called by the edge once per answer;
``note`` by anybody for things that are not requests (a refused handshake, a refresh, a retry). Lines go to a bounded
queue and a thread of their own, so that a blocked standard output cannot stall the loop; what does not fit is counted.
"""

import queue
import sys
import threading
from typing import Final, TextIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.http import Request, Response

_QUEUE: Final = 10_000
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
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
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
        self._answers.labels(request.face, route, response.status).inc()
        bank_us = event.bank_us if event is not None else 0
        self._seconds.labels(request.face, route).observe(
            max(0.0, duration_ns / 1e9 - bank_us / 1e6)
        )
        if bank_us:
            self._bank_seconds.labels(route).observe(bank_us / 1e6)
        if self._log:
            self._line(self._describe(request, response, duration_ns, event))

    def note(self, name: str, **fields: str | int | bool) -> None:
        """Count and log something that is not a request; ``name`` is a stable word, ``fields`` hold no secrets."""
        self._notes.labels(name).inc()
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
        self._lines.put(None)
        self._thread.join(1.0)

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
        try:
            self._lines.put_nowait(orjson.dumps(fields, default=str) + b"\n")
        except queue.Full:
            self._lost.inc()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._out.write(line.decode())
                self._out.flush()
            except (OSError, ValueError):
                self._lost.inc()
