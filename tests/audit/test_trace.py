"""The trace of a refused call explains the refusal in one screen, whatever the check."""

import pytest

from hub.audit.trace import told
from hub.authz.explanations import explain, names
from hub.model.event import Event, Kind, Verdict
from hub.model.terms import Face

LINES, COLUMNS = 24, 200


def refused(check):
    return Event(
        kind=Kind.CALL,
        time_ms=1_800_000_000_000,
        interaction_id="i" * 36,
        face=Face.TPP,
        client_id="c" * 36,
        organisation_id="o" * 36,
        x5t_s256="x" * 43,
        consent_id="d" * 36,
        route="account-information.accounts",
        verdict=Verdict.REFUSED,
        check=check,
        code="Resource.InvalidFormat",
        status=400,
        octets_in=1,
        octets_out=1,
        hub_us=1,
    )


@pytest.mark.parametrize("check", names())
def test_every_check_is_explained_in_one_screen_in_the_words_of_its_page(check):
    lines = told([(7, refused(check))], explain)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert f"by the check {check}" in "\n".join(lines)
    page = explain(check)
    assert page
    assert all(line.strip() in "\n".join(lines) for line in page.splitlines())


def test_a_payment_is_told_from_its_intent_to_the_outcome_that_was_found_later():
    name, face = "i" * 36, Face.NODE
    events = [
        Event(kind=Kind.INTENT, time_ms=1, interaction_id=name, change="open", subject="r"),
        Event(kind=Kind.OUTCOME, time_ms=2, interaction_id=name, face=face, change="unknown",
              verdict=Verdict.UNKNOWN, check="payment.lost", route="payment.recovery"),
        Event(kind=Kind.OUTCOME, time_ms=3, interaction_id=name, face=face, change="made",
              route="payment.recovery", subject="p-1"),
    ]  # fmt: skip
    lines = told(list(enumerate(events)), explain)
    assert [line.split()[3] for line in lines if line.startswith("entry")] == [
        "intent", "outcome", "outcome",
    ]  # fmt: skip
    assert any("unknown" in line and "payment.lost" in line for line in lines)
    assert "p-1" in lines[-1]
    assert told([], explain) == []
