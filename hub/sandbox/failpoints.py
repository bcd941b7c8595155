"""Failpoints of a sandbox's Hub: ``HUB_FAILPOINTS="after_commit_before_ack=die@3,before_forward=fail"``.

Each plan names a place (``hub.model.failpoint.Point``), what happens there and, after ``@``, at which passage (the first
by default). ``die`` ends the process at once, as a power cut would; ``fail`` raises ``InducedFailureError``. Only the
sandbox's own Hub process reads the variable; ``hub serve`` has no way to it.
"""

import os
import signal
from typing import Final, Literal, cast

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


def _carry_out(plan: Plan) -> None:
    if plan.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise InducedFailureError(plan.point)
