"""The life of a consent: every action of both parties in every state, also two at once, against a table written by hand."""

from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bench.evidence import append
from hub.lfi.sweep import settle_due
from hub.model.consent import ConsentType, Party, Status, status_at
from hub.model.consent_patch import revoke
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.state.keeper import Conflict, Put
from tests.lfi.desk import NOW, Desk, approval, consent

FINAL = {"Rejected", "Revoked", "Expired", "Consumed"}
MOVES = {
    "AwaitingAuthorization": {"Authorized", "Rejected", "Expired", "Revoked"},
    "Authorized": {"Suspended", "Consumed", "Expired", "Revoked"},
    "Suspended": {"Authorized", "Expired", "Revoked"},
}
"""What the bank may do, copied by hand from the standard's diagram and decisions.md section 2."""
PATCHABLE = ["Authorized", "Rejected", "Revoked", "Expired", "Consumed", "Suspended"]
ACTIONS = [*[("patch", s) for s in PATCHABLE], ("revoke", "LFI"), ("tpp", "TPP")]


class Model:
    """What the standard says, in a few lines."""

    def __init__(self, kind, window, expires, status="AwaitingAuthorization"):
        self.kind, self.window, self.expires, self.status = kind, window, expires, status

    def copy(self):
        return Model(self.kind, self.window, self.expires, self.status)

    def pass_time(self, now):
        if self.status in FINAL:
            return
        waits = self.status == "AwaitingAuthorization"
        if waits and self.window and self.window <= now and self.window <= self.expires:
            self.status = "Rejected"
        elif self.expires <= now:
            self.status = "Expired"

    def act(self, action):
        """Do it; tell whether it was allowed."""
        verb, value = action
        target = value if verb == "patch" else "Revoked"
        if target == self.status:
            return True
        payment = self.kind is ConsentType.SERVICE_INITIATION
        if target not in MOVES.get(self.status, set()) or (target == "Consumed" and not payment):
            return False
        self.status = target
        return True


def said(answer):
    """Return whether it was done; what was not done must be answered with the standard's error."""
    status, body, _ = answer
    if status == 204:
        return True
    assert (status, body["errorCode"]) == (400, "Consent.BusinessRuleViolation"), body
    return False


class LifeCycle(RuleBasedStateMachine):
    """One consent, two parties, one clock."""

    @initialize(
        kind=st.sampled_from(ConsentType),
        window=st.sampled_from([0, 40, 100, 300]),
        expires=st.sampled_from([50, 100, 200]),
    )
    def stage(self, kind, window, expires):
        self.desk = Desk(Path())
        self.kind = kind
        window = NOW + window if window else 0
        self.model = Model(kind, window, NOW + expires)
        staged = consent("c1", kind, authorization_expires=window, expires=NOW + expires)
        trio.run(self.desk.put, staged)

    async def act(self, action):
        verb, value = action
        if verb == "patch":
            patch = approval(self.kind, **{"consentBody.Data.Status": value})
            return said(await self.desk.call("PATCH", "/consents/c1", patch))
        if verb == "revoke":
            path = "/consents/c1/action/revoke"
            return said(await self.desk.call("POST", path, {"revokedBy": value}))
        return await self.revoke_as_tpp()

    async def revoke_as_tpp(self):
        while True:
            found, version = await self.desk.keeper.lookup(type(consent()), "c1")
            await trio.lowlevel.checkpoint()
            now_ms = self.desk.clock.now_ms()
            changed = revoke(found, "TPP", now_ms, Party.TPP)
            if isinstance(changed, Fault):
                return False
            event = Event(kind=Kind.CONSENT, time_ms=now_ms)
            done = await self.desk.keeper.commit([Put(changed, version)], [event])
            if not isinstance(done, Conflict):
                return True

    @rule(action=st.sampled_from(ACTIONS))
    def one(self, action):
        allowed = self.model.act(action)
        assert trio.run(self.act, action) is allowed, action

    @rule(first=st.sampled_from(ACTIONS), second=st.sampled_from(ACTIONS))
    def two_at_once(self, first, second):
        answers = {}

        async def run(action, at):
            answers[at] = await self.act(action)

        async def both():
            lookup = self.desk.keeper.lookup

            async def slow(kind, key):
                found = await lookup(kind, key)
                await trio.lowlevel.checkpoint()
                return found

            self.desk.keeper.lookup = slow
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, first, 0)
                nursery.start_soon(run, second, 1)
            self.desk.keeper.lookup = lookup
            return status_at(await self.desk.stored(), self.desk.clock.now())

        status = trio.run(both)
        orders = []
        for order in ((0, 1), (1, 0)):
            model = self.model.copy()
            said = {at: model.act((first, second)[at]) for at in order}
            orders.append((said, model.status, model))
        matching = [m for said, end, m in orders if (said, end) == (answers, str(status))]
        assert matching, (first, second, answers, status)
        self.model = matching[0]

    @rule(seconds=st.sampled_from([1, 9, 30, 59]))
    def pass_time(self, seconds):
        self.desk.clock.advance(seconds)
        self.model.pass_time(self.desk.clock.now())

    @precondition(lambda self: hasattr(self, "desk"))
    @rule()
    def sweep(self):
        parts = self.desk
        assert trio.run(settle_due, parts.keeper, parts.clock, parts.dice) is None
        assert str(trio.run(parts.stored).status) == self.model.status

    @invariant()
    def the_record_shows_what_holds(self):
        if not hasattr(self, "desk"):
            return
        _, body, _ = trio.run(self.desk.call, "GET", "/consents/c1")
        record = body["data"]
        assert record["status"] == record["consentBody"]["Data"]["Status"] == self.model.status
        stored = trio.run(self.desk.stored)
        assert stored.status is Status(self.model.status) or self.model.status in {
            "Rejected",
            "Expired",
        }

    def teardown(self):
        if hasattr(self, "desk"):
            self.desk.observer.close()


BUSY = [HealthCheck.too_slow, HealthCheck.data_too_large]
"""A busy machine is no difference: hypothesis measures how long a life takes, and we do not."""
LifeCycle.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=BUSY
)
test_every_action_in_every_state_by_both_parties = LifeCycle.TestCase


class LongLifeCycle(LifeCycle):
    """The same, 5,000 lives."""


LongLifeCycle.TestCase.settings = settings(
    max_examples=5000, stateful_step_count=30, deadline=None, suppress_health_check=BUSY
)


@pytest.mark.nightly
def test_five_thousand_lives_without_a_difference():
    """Run in the nightly lane."""
    run_state_machine_as_test(LongLifeCycle, settings=LongLifeCycle.TestCase.settings)
    append("consent life cycle against a model", {"lives": 5000, "steps": 30}, [], "no difference")
