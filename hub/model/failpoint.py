"""Named places where a test may make the process die or fail; a no-op unless a plan was given.

A component takes ``failpoint: Failpoint = no_failpoint`` and calls ``failpoint(Point.X)`` at the place.
``hub.node`` builds a real one only for a sandbox started with ``HUB_FAILPOINTS``; ``hub serve`` never does.
Names are added to ``Point``, never re-used.
"""

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """Enumerate every place that can be made to fail."""

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT_BEFORE_ACK = "after_commit_before_ack"
    AFTER_ACK_BEFORE_REPLY = "after_ack_before_reply"
    BEFORE_INVALIDATION = "before_invalidation"
    BEFORE_FORWARD = "before_forward"
    AFTER_FORWARD_BEFORE_RECORD = "after_forward_before_record"
    AFTER_RECORD_BEFORE_REPLY = "after_record_before_reply"
    BEFORE_INTENT = "before_intent"
    AFTER_INTENT = "after_intent"
    BEFORE_OUTCOME = "before_outcome"
    AFTER_OUTCOME = "after_outcome"
    BEFORE_REPLAY = "before_replay"
    BEFORE_RECOVERY = "before_recovery"
    BEFORE_RESEND = "before_resend"
    AFTER_RESEND = "after_resend"
    AFTER_BEGIN = "after_begin"
    AFTER_PLAN = "after_plan"
    AFTER_RECORDS = "after_records"
    AFTER_EVENTS = "after_events"
    BEFORE_GROUP = "before_group"
    BEFORE_ACK = "before_ack"
    AFTER_ASKED = "after_asked"
    BEFORE_TOLD = "before_told"
    BEFORE_ASK = "before_ask"
    AFTER_TOLD = "after_told"
    BEFORE_CHECKPOINT = "before_checkpoint"
    AFTER_CHECKPOINT = "after_checkpoint"


Failpoint = Callable[[Point], None]


def no_failpoint(_point: Point) -> None:
    """Do nothing: the production failpoint."""
