"""Groups of more consents than one page or one commit holds: revoked to the last one, over the store itself."""

from collections import Counter

import orjson
import pytest

from hub.model.clock import FixedClock
from hub.model.consent import Consent, Status
from hub.model.records import AccessToken
from tests.lfi.desk import NOW, Desk, consent
from tests.state.keepers import open_socket

PATH = "/consent-groups/base/consents/action/revoke"
STATES = (Status.AUTHORIZED, Status.AWAITING, Status.SUSPENDED, Status.CONSUMED)


@pytest.fixture
async def desk(tmp_path):
    clock = FixedClock(NOW)
    async with open_socket(clock, tmp_path) as keeper:
        made = Desk(tmp_path, keeper=keeper)
        yield made
        made.observer.close()


def token(number, consent_id):
    return AccessToken(
        digest=f"a{number}",
        client_id="tpp",
        scope="accounts",
        x5t_s256="x",
        issued=NOW,
        expires=NOW + 600,
        consent_id=consent_id,
        grant_id="g",
    )


async def states_of(desk, group):
    """Count the group's consents by their state."""
    found = Counter()
    page = 1
    while True:
        target = f"/consent-groups/{group}/consents?page={page}&pageSize=100"
        listed = (await desk.call("GET", target))[1]
        found.update(one["status"] for one in listed["data"])
        if page >= listed["meta"]["totalPages"]:
            return found
        page += 1


async def all_events(desk):
    head, found = await desk.keeper.head(), []
    while len(found) < head.size:
        found += [orjson.loads(leaf) for leaf in await desk.keeper.events(len(found), 1000)]
    return found


async def test_a_group_of_2500_is_revoked_to_the_last_consent_with_its_tokens(desk):
    names = [f"g{at:04}" for at in range(2500)]
    await desk.put(
        *[consent(n, group_id="base", status=STATES[at % 4]) for at, n in enumerate(names)],
        consent("other", group_id="other", status=Status.AUTHORIZED),
        token(0, names[0]),
        token(1, names[2498]),
    )
    assert (await desk.call("POST", PATH, {"revokedBy": "LFI"}))[0] == 204
    assert await states_of(desk, "base") == {"Revoked": 1875, "Consumed": 625}
    assert (await desk.stored("other")).status is Status.AUTHORIZED
    for digest in ("a0", "a1"):
        assert (await desk.keeper.lookup(AccessToken, digest))[0].revoked
    told = [e for e in await all_events(desk) if e.get("route") == "consents.revoke-group"]
    assert Counter(e["kind"] for e in told) == {"consent": 1875, "call": 1}
    assert len({e["consent_id"] for e in told if e["kind"] == "consent"}) == 1875
    assert (await desk.call("POST", PATH, {"revokedBy": "LFI"}))[0] == 204


async def test_who_follows_the_changes_misses_none_of_a_group_that_is_revoked_in_several_commits(
    desk,
):
    names = [f"g{at:04}" for at in range(600)]
    await desk.put(*[consent(n, group_id="base", status=Status.AUTHORIZED) for n in names])
    await desk.put(consent("other"))
    desk.clock.advance(1)
    commit, seen = desk.keeper.commit, []

    async def follow():
        after = max([0, *(one["updatedAt"] for one in seen)])
        seen.extend(
            (await desk.call("GET", f"/consents?updatedAt={after}&pageSize=500"))[1]["data"]
        )

    async def meanwhile(changes, events):
        done = await commit(changes, events)
        if len(changes) > 100:
            desk.clock.advance(1)
            desk.keeper.commit = commit
            patch = {"authorizationChannel": "App" if len(seen) % 2 else "Web"}
            assert (await desk.call("PATCH", "/consents/other", patch))[0] == 204
            await follow()
            desk.clock.advance(1)
            desk.keeper.commit = meanwhile
        return done

    await follow()
    desk.keeper.commit = meanwhile
    assert (await desk.call("POST", PATH, {"revokedBy": "LFI"}))[0] == 204
    await follow()
    revoked = {one["id"] for one in seen if one["status"] == "Revoked"}
    assert revoked == set(names)


async def test_customers_are_told_apart_in_a_group_of_more_than_a_page(desk):
    def owned(name, user):
        return consent(
            name, group_id="base", status=Status.AUTHORIZED, psu_identifiers={"userId": user}
        )

    await desk.put(*[owned(f"g{at:04}", "u-1") for at in range(1100)], owned("z", "u-2"))
    revoke = {"revokedBy": "LFI.InitiatedByUser"}
    assert (await desk.call("POST", PATH, revoke))[0] == 400
    named = revoke | {"revokedByPsu": {"userId": "u-1"}}
    assert (await desk.call("POST", PATH, named))[0] == 204
    assert await states_of(desk, "base") == {"Revoked": 1100, "Authorized": 1}
    assert (await desk.keeper.lookup(Consent, "z"))[0].status is Status.AUTHORIZED
