"""Failpoints are read from one variable and carried out at the passage they name."""

import subprocess
import sys

import pytest

from hub.model.failpoint import Point, no_failpoint
from hub.node.errors import StartError
from hub.sandbox.failpoints import (
    InducedFailureError,
    Plan,
    failpoint_of,
    make_failpoint,
    read_plans,
)


def test_plans_are_read_with_their_passages():
    assert read_plans(" after_commit_before_ack=die@3, before_forward=fail ") == (
        Plan(point=Point.AFTER_COMMIT_BEFORE_ACK, act="die", passage=3),
        Plan(point=Point.BEFORE_FORWARD, act="fail"),
    )
    assert read_plans("") == ()


@pytest.mark.parametrize(
    "text", ["nowhere=die", "before_forward", "before_forward=wait", "before_forward=die@0"]
)
def test_a_plan_that_is_not_understood_stops_the_start(text):
    with pytest.raises(StartError, match="HUB_FAILPOINTS: expected"):
        read_plans(text)


def test_nothing_planned_is_the_production_failpoint():
    assert make_failpoint(()) is no_failpoint


def test_a_failpoint_fails_at_its_passage_and_only_there():
    failpoint = make_failpoint(read_plans("before_commit=fail@2"))
    failpoint(Point.BEFORE_COMMIT)
    failpoint(Point.AFTER_CHECKPOINT)
    with pytest.raises(InducedFailureError, match="before_commit"):
        failpoint(Point.BEFORE_COMMIT)
    failpoint(Point.BEFORE_COMMIT)


def test_dying_is_at_once_and_runs_no_cleanup():
    program = (
        "import atexit; atexit.register(print, 'cleaned up')\n"
        "from hub.model.failpoint import Point\n"
        "from hub.sandbox.failpoints import make_failpoint, read_plans\n"
        "make_failpoint(read_plans('before_commit=die'))(Point.BEFORE_COMMIT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == -9
    assert done.stdout == ""


def test_a_plan_in_a_file_is_carried_out_once_by_one_process(tmp_path):
    path = tmp_path / "plan"
    one, other = failpoint_of(f"@{path}"), failpoint_of(f"@{path}")
    one(Point.BEFORE_COMMIT)
    path.write_text("before_commit=fail@2\n")
    one(Point.AFTER_BEGIN)
    one(Point.BEFORE_COMMIT)
    other(Point.BEFORE_COMMIT)
    with pytest.raises(InducedFailureError):
        one(Point.BEFORE_COMMIT)
    assert not path.exists()
    other(Point.BEFORE_COMMIT)
    path.write_text("before_commit=fail")
    with pytest.raises(InducedFailureError):
        other(Point.BEFORE_COMMIT)


def test_a_plan_in_a_file_that_makes_no_sense_does_nothing(tmp_path):
    path = tmp_path / "plan"
    path.write_text("nonsense")
    failpoint_of(f"@{path}")(Point.BEFORE_COMMIT)
    assert path.exists()
