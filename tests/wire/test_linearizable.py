"""What both workers say of one consent at once fits one order of what was done (linearizability; Wing and Gong's search)."""

import random

import httpx
import msgspec
import pytest
import trio

from tests.wire.test_revocation import bank_client

pytestmark = pytest.mark.wire
CLIENTS = 5
STEPS = 6
CONSENTS = 6
FINAL = "Revoked"


class Done(msgspec.Struct, frozen=True):
    """Hold one operation: when it was called and answered, what it was, what it saw."""

    called: float
    answered: float
    verb: str
    value: str
    allowed: bool = True


def after(state: str, one: Done) -> str | None:
    """Return the state that an operation leaves, or None where it cannot have seen what it saw."""
    if one.verb == "read":
        return state if one.value == state else None
    allowed = state != FINAL or one.value == FINAL
    if allowed is not one.allowed:
        return None
    return one.value if allowed else state


def fits(history: list[Done], state: str) -> bool:
    """Tell whether some order explains a history: an operation may come next if none ended before it was called."""
    seen = set()

    def search(left: frozenset[int], state: str) -> bool:
        if not left:
            return True
        if (left, state) in seen:
            return False
        seen.add((left, state))
        first = min(history[at].answered for at in left)
        for at in left:
            if history[at].called <= first:
                then = after(state, history[at])
                if then is not None and search(left - {at}, then):
                    return True
        return False

    return search(frozenset(range(len(history))), state)


def test_the_search_can_fail():
    write = Done(0, 1, "patch", "Suspended")
    assert fits([write, Done(2, 3, "read", "Suspended")], "Authorized")
    assert fits([write, Done(0.5, 3, "read", "Authorized")], "Authorized")
    assert not fits([write, Done(2, 3, "read", "Authorized")], "Authorized")
    revoked = Done(0, 1, "patch", "Revoked")
    assert not fits([revoked, Done(2, 3, "patch", "Suspended")], "Authorized")
    assert fits([revoked, Done(2, 3, "patch", "Suspended", allowed=False)], "Authorized")


async def act(line, consent_id, verb, value) -> Done:
    called = trio.current_time()
    if verb == "read":
        shown = (await line.get(f"/consents/{consent_id}")).json()
        return Done(called, trio.current_time(), verb, shown["data"]["status"])
    body = {"authorizationChannel": "App", "status": value}
    answer = await line.patch(f"/consents/{consent_id}", json=body)
    assert answer.status_code in {204, 400}, answer.text
    return Done(called, trio.current_time(), verb, value, answer.status_code == 204)


async def lived(lines, consent_id, dice) -> list[Done]:
    """Let everybody act on one consent at once; return what happened."""
    history: list[Done] = []

    async def one(line, steps):
        for verb, value in steps:
            history.append(await act(line, consent_id, verb, value))

    async with trio.open_nursery() as nursery:
        for number, line in enumerate(lines):
            steps = [
                ("read", "")
                if dice.random() < 0.5
                else ("patch", dice.choice(["Suspended", "Authorized"]))
                for _ in range(STEPS)
            ]
            if number == 0:
                steps[dice.randrange(STEPS // 2, STEPS)] = ("patch", FINAL)
            nursery.start_soon(one, line, steps)
    return history


async def test_both_workers_tell_one_story_of_a_consent(general_sandbox, general_tpp):
    dice = random.Random(5)
    lines: list[httpx.AsyncClient] = []
    try:
        lines += [bank_client(general_sandbox) for _ in range(CLIENTS)]
        for _ in range(CONSENTS):
            pushed = await general_tpp.push()
            query = {"client_id": general_tpp.identity.client_id, "request_uri": pushed.request_uri}
            told = await lines[0].get("/auth", params=query)
            consent_id = told.json()["interaction"]["consentId"]
            patch = {
                "authorizationChannel": "App",
                "psuIdentifiers": {"userId": "u"},
                "accountIds": ["a"],
                "status": "Authorized",
            }
            done = await lines[0].patch(f"/consents/{consent_id}", json=patch)
            assert done.status_code == 204
            history = await lived(lines, consent_id, dice)
            assert fits(history, "Authorized"), history
    finally:
        for line in lines:
            await line.aclose()
