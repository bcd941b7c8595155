"""Failpoints of a sandbox's Hub: ``HUB_FAILPOINTS="after_commit_before_ack=die@3,before_forward=fail"``.

Each plan names a place (``hub.model.failpoint.Point``), what happens there and, after ``@``, at which passage (the first
by default). ``die`` ends the process at once, as a power cut would; ``fail`` raises ``InducedFailureError``. Only the
sandbox's own Hub process reads the variable; ``hub serve`` has no way to it.

``HUB_FAILPOINTS="@FILE"`` reads one plan from a file, while the Hub runs, whenever somebody writes one; whoever carries it
out removes the file first, so that of all processes exactly one does, once.
"""

import os
import signal
from pathlib import Path
from typing import Final, Literal, cast, final

import msgspec

from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.node.errors import StartError

VARIABLE: Final = "HUB_FAILPOINTS"
Act = Literal["die", "fail"]


class InducedFailureError(Exception):
    """Say which failpoint raised."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what happens at one place, at its ``passage``-th passage (from 1)."""

    point: Point
    act: Act
    passage: int = 1


def read_plans(text: str) -> tuple[Plan, ...]:
    """Read the variable's value.

    Raises:
        StartError: It is not understood; the line says what was expected.
    """
    return tuple(_plan(item.strip()) for item in text.split(",") if item.strip())


def _plan(item: str) -> Plan:
    name, _, rest = item.partition("=")
    act, _, passage = rest.partition("@")
    if name not in set(Point) or act not in {"die", "fail"}:
        raise StartError(f"{VARIABLE}: expected POINT=die|fail[@N], got {item!r}")
    if passage and (not passage.isdecimal() or int(passage) < 1):
        raise StartError(f"{VARIABLE}: expected a number from 1 after @, got {item!r}")
    return Plan(point=Point(name), act=cast("Act", act), passage=int(passage or 1))


def make_failpoint(plans: tuple[Plan, ...]) -> Failpoint:
    """Return the failpoint that carries plans out; the no-op where there are none."""
    if not plans:
        return no_failpoint
    passages = dict.fromkeys(Point, 0)

    def failpoint(point: Point) -> None:
        passages[point] += 1
        for plan in plans:
            if plan.point is point and plan.passage == passages[point]:
                _carry_out(plan)

    return failpoint


def failpoint_of(text: str) -> Failpoint:
    """Return the failpoint that the variable's value asks for.

    Raises:
        StartError: It is not understood.
    """
    if text.startswith("@"):
        return _Watched(Path(text[1:]))
    return make_failpoint(read_plans(text))


@final
class _Watched:
    """Carry out the plan of a file, which may come and go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        self._plan: Plan | None = None
        self._passages = 0

    def __call__(self, point: Point) -> None:
        try:
            written = self._path.stat().st_mtime_ns
            if written != self._written:
                self._plan, self._passages = _plan(self._path.read_text().strip()), 0
                self._written = written
        except (OSError, StartError):
            return
        if self._plan is None or point is not self._plan.point:
            return
        self._passages += 1
        if self._passages == self._plan.passage and self._taken():
            _carry_out(self._plan)

    def _taken(self) -> bool:
        """Take the plan; False where another process was faster."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True


def _carry_out(plan: Plan) -> None:
    if plan.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise InducedFailureError(plan.point)
