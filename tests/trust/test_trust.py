"""The mirror of the Trust Framework over real TLS: who is let in, who is refused by which check, and when."""

import msgspec
import orjson
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import RSAKey

from hub.model.caller import NOBODY, Caller
from hub.model.event import Kind, Verdict
from hub.model.fault import Fault
from hub.model.records import Registration
from hub.protocol.jose import PrivateKey, public_jwk
from hub.sandbox.directory.register import Key
from hub.sandbox.server import FaultPlan
from hub.trust import flights
from hub.trust.view import Risk
from tests.trust.framework import (
    APP,
    BANK,
    BANK_APP,
    NOW,
    ORG,
    OTHER_APP,
    enrol,
    open_world,
    peer_of,
    refreshed,
    registration,
    running,
)
from tests.waiting import until

DOWN = FaultPlan(close=True)


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def trust(world):
    made = world.trust()
    async with running(made):
        assert (await enrol(made)).status == 204
        yield made


def judged(trust, name="c1", risk=Risk.READ, now=NOW, **changes):
    outcome = trust.judge(peer_of(name, **changes), now, risk)
    return outcome.check if isinstance(outcome, Fault) else outcome


async def test_a_registered_tpp_is_a_caller_with_what_the_framework_says_of_it(trust):
    caller = judged(trust)
    assert isinstance(caller, Caller)
    assert caller.client_id == caller.software_statement_id == APP
    assert (caller.organisation_id, caller.tpp_name) == (ORG, "Rain, FZ-LLC")
    assert caller.roles == ("BDSP", "BSIP")
    assert caller.redirect_uris == ("https://tpp.example/cb",)
    assert caller.webhook_uris == ("https://tpp.example/hook",)
    assert caller.x5t_s256 == peer_of("c1").x5t_s256
    assert caller.decoded_ssa["client_id"] == APP
    assert caller.decoded_ssa["roles"] == ["BDSP", "BSIP"]
    assert caller.decoded_ssa["jwks_uri"].endswith(f"/{ORG}/{APP}/application.jwks")
    assert trust.caller(APP) == msgspec.structs.replace(caller, x5t_s256="")
    assert trust.ready()


async def test_warm_and_cold_judgements_are_the_same(trust):
    assert judged(trust) == judged(trust)


async def test_nobody_is_refused_for_want_of_a_certificate(trust):
    outcome = trust.judge(NOBODY, NOW)
    assert isinstance(outcome, Fault)
    assert (outcome.status, outcome.code) == (401, "invalid_client")
    assert outcome.check == "trust.certificate_missing"


async def test_a_certificate_past_its_end_is_refused_on_an_open_connection(trust):
    peer = peer_of("c1")
    judged(trust)
    assert judged(trust, now=peer.not_after - 1).client_id == APP
    assert judged(trust, now=peer.not_after) == "trust.certificate_expired"


async def test_the_right_authority_but_the_wrong_organisation_is_refused(trust):
    assert judged(trust, "stolen") == "trust.certificate_unknown_organisation"


async def test_an_organisation_that_the_framework_does_not_list_is_refused(trust):
    check = judged(trust, "c1", organisation_id=OTHER_APP, client_id=OTHER_APP, x5t_s256="x")
    assert check == "trust.certificate_unknown_organisation"


async def test_a_client_that_never_registered_here_is_told_so(trust):
    assert judged(trust, "c1b") == "trust.not_registered"
    assert trust.caller(OTHER_APP) is None


@pytest.mark.parametrize(
    ("act", "check"),
    [
        (lambda w: w.directory.revoke(w.keys["c1"].kid), "trust.certificate_revoked"),
        (lambda w: w.directory.withdraw(ORG), "trust.organisation_inactive"),
        (lambda w: w.directory.suspend(APP), "trust.client_inactive"),
    ],
)
async def test_what_the_framework_takes_away_is_gone_after_the_next_round_and_can_come_back(
    world, trust, act, check
):
    judged(trust)
    act(world)
    assert isinstance(judged(trust), Caller)
    await refreshed(trust)
    assert judged(trust) == check
    world.directory.restore(world.keys["c1"].kid)
    world.directory.reinstate(ORG)
    world.directory.resume(APP)
    await refreshed(trust)
    assert isinstance(judged(trust), Caller)


async def test_a_certificate_revoked_only_in_the_key_store_is_refused_too(world):
    trust = world.trust(crl="")
    async with running(trust):
        await enrol(trust)
        world.directory.revoke(world.keys["c1"].kid)
        await refreshed(trust)
        assert judged(trust) == "trust.certificate_revoked"


async def test_a_revocation_is_learnt_by_ocsp_alone(world):
    settings = {"crl": "", "ocsp": f"{world.directory.bases.pki}/ocsp"}
    trust = world.trust(**settings)
    async with running(trust):
        await enrol(trust)
        assert isinstance(judged(trust), Caller)
        await refreshed(trust)
        assert ("pki", "/ocsp") in world.asked
        assert isinstance(judged(trust), Caller)
        world.pki.revoke(int(peer_of("c1").serial, 16))
        world.clock.advance(200)
        await refreshed(trust)
        assert judged(trust, now=NOW + 200) == "trust.certificate_revoked"


async def test_a_dropped_role_is_gone_after_the_next_round(world, trust):
    world.directory.drop_role(ORG, "BSIP")
    await refreshed(trust)
    assert judged(trust).roles == ("BDSP",)


async def test_a_withdrawn_application_loses_its_statement(world, trust):
    organisation = world.directory.register.organisation(ORG)
    kept = {k: v for k, v in organisation.applications.items() if k != APP}
    changed = msgspec.structs.replace(organisation, applications=kept)
    world.directory._keep(world.directory.register.with_organisation(changed))
    await refreshed(trust)
    assert judged(trust) == "trust.software_statement_inactive"


async def test_keys_are_found_by_kid_and_use_and_parsed_once(world, trust):
    kid = world.keys["sig1"].kid
    key = trust.key(APP, kid, "sig")
    assert key.kid == kid
    assert trust.key(APP, kid, "sig") is key
    assert trust.key(APP, kid, "enc") is None
    assert trust.key(OTHER_APP, kid, "sig") is None
    assert trust.encryption_key(APP).kid == world.keys["enc2"].kid
    assert trust.encryption_key(BANK_APP) is None


async def test_a_client_that_is_read_again_is_not_called_unknown(world, trust):
    assert trust.explain(APP) is None
    trust._known.loading[APP] = 1
    assert trust.caller(APP) is None
    fault = trust.explain(APP)
    assert (fault.check, fault.status, fault.retry_after) == ("trust.stale", 503, 1)


async def test_only_what_can_be_encrypted_to_is_an_encryption_key(world, trust):
    """A newer key of another type is passed over: sealing for it would be a failure of ours."""
    made = ec.generate_private_key(ec.SECP256R1())
    elliptic = public_jwk(PrivateKey(kid="newer", key=made), use="enc", alg="")
    key = Key(kid="newer", key_type="enc", jwk=elliptic, created=NOW)
    world.directory.publish(ORG, APP, key)
    await refreshed(trust)
    assert trust.key(APP, "newer", "enc") is not None
    assert trust.encryption_key(APP).kid == world.keys["enc2"].kid


async def test_a_revoked_key_is_not_given_out(world, trust):
    world.directory.revoke(world.keys["sig1"].kid)
    await refreshed(trust)
    assert trust.key(APP, world.keys["sig1"].kid, "sig") is None


async def test_a_new_key_costs_one_fetch_however_many_wait(world, trust):
    kid = world.keys["sig1-new"].kid
    world.directory.add_key(ORG, world.keys["sig1-new"], client_id=APP)
    world.asked.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(trust.refresh_keys, APP)
    assert trust.key(APP, kid, "sig") is not None
    assert world.asked.count(("public", f"/{ORG}/{APP}/application.jwks")) == 1


async def test_a_refresh_during_the_fetch_of_a_new_key_does_not_lose_the_key(
    world, trust, monkeypatch
):
    """The refresh read the key set before the key was in it, and comes in between."""
    looked = flights.look_at_keys

    async def overtaken(fetcher, client):
        found = await looked(fetcher, client)
        monkeypatch.setattr(flights, "look_at_keys", looked)
        trust._known.install_client(APP, msgspec.structs.replace(client))
        return found

    world.directory.add_key(ORG, world.keys["sig1-new"], client_id=APP)
    monkeypatch.setattr(flights, "look_at_keys", overtaken)
    await trust.refresh_keys(APP)
    assert trust.key(APP, world.keys["sig1-new"].kid, "sig") is not None


async def test_unknown_kids_cannot_make_the_hub_hammer_the_key_store(world, trust):
    world.asked.clear()
    for _ in range(20):
        await trust.refresh_keys(APP)
    assert world.asked.count(("public", f"/{ORG}/{APP}/application.jwks")) == 3


async def test_one_waiter_that_gives_up_does_not_stop_the_others(world, trust):
    world.directory.add_key(ORG, world.keys["sig1-new"], client_id=APP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trust.refresh_keys, APP)
        with trio.move_on_after(0):
            await trust.refresh_keys(APP)
    assert trust.key(APP, world.keys["sig1-new"].kid, "sig") is not None


async def test_keys_of_strangers_are_not_fetched(world, trust):
    world.asked.clear()
    await trust.refresh_keys(OTHER_APP)
    await trust.refresh_keys("../../etc/passwd")
    assert world.asked == []


async def test_the_banks_own_client_is_mirrored_without_a_registration(world):
    trust = world.trust(also=[(BANK, BANK_APP)])
    async with running(trust):
        assert trust.key(BANK_APP, world.keys["sig4"].kid, "sig") is not None
        assert trust.caller(BANK_APP) is None


async def test_reads_go_on_longer_than_payments_when_the_framework_is_down(world, trust):
    world.break_everything(DOWN)
    world.clock.advance(1_700)
    await refreshed(trust)
    assert isinstance(judged(trust, risk=Risk.PAY), Caller)
    world.clock.advance(200)
    await refreshed(trust)
    fault = trust.judge(peer_of("c1"), NOW + 1900, Risk.PAY)
    assert (fault.check, fault.status, fault.retry_after) == ("trust.stale", 503, 30)
    assert isinstance(judged(trust), Caller)
    assert trust.ready()
    assert trust.status()["payments"] is False
    assert b"hub_trust_payments 0.0" in world.observer.exposition()
    assert b"hub_trust_reads 1.0" in world.observer.exposition()
    world.clock.advance(14_400)
    await refreshed(trust)
    assert judged(trust) == "trust.stale"
    assert not trust.ready()
    world.mend()
    await refreshed(trust)
    assert isinstance(judged(trust, risk=Risk.PAY), Caller)
    assert trust.ready()


async def test_a_revocation_list_that_cannot_be_had_counts_as_an_outage(world, trust):
    world.faults["pki"].set(DOWN)
    world.clock.advance(1_900)
    await refreshed(trust)
    assert judged(trust, risk=Risk.PAY) == "trust.stale"
    assert isinstance(judged(trust), Caller)


async def test_a_clock_that_jumps_does_not_make_a_healthy_framework_stale(world, trust):
    world.clock.advance(30 * 86_400)
    assert isinstance(judged(trust, risk=Risk.PAY, now=NOW + 30 * 86_400), Caller)


async def test_a_clock_that_is_set_back_does_not_keep_the_hub_from_looking(world, trust):
    async def rounds():
        events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 1000)]
        return sum(e.get("change") == "trust.refreshed" for e in events)

    for seconds in (86_400, -86_400):
        before = await rounds()
        world.clock.advance(seconds)

        async def looked(before=before):
            return await rounds() > before

        await until(looked, 10, f"a round after {seconds} seconds")


@pytest.mark.parametrize(
    "plan",
    [
        FaultPlan(status=500),
        FaultPlan(status=302),
        FaultPlan(wrong_shape=True),
        FaultPlan(half_answer=True),
        FaultPlan(reset=True),
        DOWN,
    ],
)
@pytest.mark.parametrize("site", ["public", "api", "pki"])
async def test_a_framework_that_misbehaves_changes_nothing_but_its_age(world, trust, plan, site):
    before = judged(trust)
    world.faults[site].set(plan)
    trust._refresher._memory.known.clear()  # an unchanged document has no body that could be spoiled
    await refreshed(trust)
    assert trust.status()["problem"]
    assert judged(trust) == before
    world.mend()
    await refreshed(trust)
    assert trust.status()["problem"] == ""


async def test_documents_over_the_bound_are_refused(world):
    trust = world.trust(limits={"trust_document_octets": 100})
    async with running(trust):
        assert "larger than 100" in trust.status()["problem"]
        assert not trust.ready()


async def test_without_a_framework_and_a_snapshot_everything_is_refused_as_stale(world):
    world.break_everything(DOWN)
    trust = world.trust()
    async with running(trust):
        assert judged(trust) == "trust.stale"
        assert (await enrol(trust)).status == 500


async def test_a_restart_during_an_outage_begins_with_the_last_good_snapshot(world):
    async with running(world.trust()) as first:
        await enrol(first)
        await refreshed(first)
        before = judged(first)
    world.break_everything(DOWN)
    world.clock.advance(600)
    async with running(world.trust()) as second:
        assert judged(second, risk=Risk.PAY) == before
        assert second.key(APP, world.keys["sig1"].kid, "sig") is not None
        world.clock.advance(1300)
        await refreshed(second)
        assert judged(second, risk=Risk.PAY) == "trust.stale"


async def test_a_worker_that_does_not_refresh_follows_the_one_that_does(world, trust):
    follower = world.trust(leader=False)
    async with running(follower):
        assert judged(follower) == judged(trust)
        world.directory.withdraw(ORG)
        await refreshed(trust)
        await trio.testing.wait_all_tasks_blocked()
        assert judged(follower) == "trust.organisation_inactive"


async def test_a_statement_signed_by_another_key_is_not_believed(world, trust):
    world.directory._signer = RSAKey.generate_key(2048)
    world.directory.suspend(APP)
    await refreshed(trust)
    assert isinstance(judged(trust), Caller)
    assert "does not verify" in trust.status()["problem"]


async def test_a_statement_signed_by_an_unlisted_key_is_not_believed(world, trust):
    other = msgspec.structs.replace(world.directory.signing, kid="other")
    handler = world.directory.assertion
    world.directory.assertion = lambda *given: _signed_as(world.directory, handler, other, given)
    world.directory.suspend(APP)
    await refreshed(trust)
    assert isinstance(judged(trust), Caller)
    assert "does not list" in trust.status()["problem"]


def _signed_as(directory, handler, key, given):
    listed, directory.signing = directory.signing, key
    try:
        return handler(*given)
    finally:
        directory.signing = listed


async def test_an_unchanged_list_of_organisations_is_not_read_again(trust):
    before = trust._known.index.organisations
    await refreshed(trust)
    assert trust._known.index.organisations is before


async def test_each_round_is_an_event_and_a_failed_one_says_so(world, trust):
    world.break_everything(DOWN)
    await refreshed(trust)
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 1000)]
    rounds = [e for e in events if e.get("change") == "trust.refreshed"]
    assert rounds[-1]["verdict"] == Verdict.FAILED
    assert rounds[-1]["check"] == "trust.refresh"
    assert rounds[0].get("verdict", Verdict.ALLOWED) == Verdict.ALLOWED


async def test_registration_is_answered_with_204_and_its_event_is_durable(world, trust):
    answer = await enrol(
        trust, body=b"{}", x_fapi_interaction_id="6d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6c"
    )
    assert (answer.status, answer.body) == (204, b"")
    assert dict(answer.headers)[b"x-fapi-interaction-id"].startswith(b"6d0b9a2c")
    assert answer.event.kind is Kind.REGISTRATION
    last = orjson.loads((await world.keeper.events(0, 1000))[-1])
    assert (last["route"], last["client_id"], last["status"]) == ("tpp-registration", APP, 204)


async def test_both_documented_paths_are_served(trust):
    paths = {path for _, path in trust.tpp_routes()}
    assert paths == {"/tpp-registration", "/open-finance/onboarding/v2.1/tpp-registration"}


async def test_without_auto_activation_a_registration_is_inactive(world):
    trust = world.trust(auto_activate=False)
    async with running(trust):
        assert (await enrol(trust)).status == 204
        assert judged(trust) == "trust.not_activated"
        held, _ = await world.keeper.lookup(Registration, APP)
        assert (held.tpp_state, held.statement_state, held.client_state) == ("inactive",) * 3


@pytest.mark.parametrize(
    ("act", "check"),
    [
        (lambda d: d.suspend(APP), "trust.client_inactive"),
        (lambda d: d.drop_role(ORG, "BDSP") and d.drop_role(ORG, "BSIP"), "trust.role_missing"),
        (lambda d: d.withdraw(ORG), "trust.organisation_inactive"),
    ],
)
async def test_an_unfit_tpp_cannot_register(world, act, check):
    trust = world.trust()
    async with running(trust):
        act(world.directory)
        await refreshed(trust)
        answer = await enrol(trust)
        assert answer.status == 403
        assert orjson.loads(answer.body)["Errors"][0]["Code"] == "GenericError"
        assert answer.event.check == check
        assert await world.keeper.lookup(Registration, APP) is None


async def test_a_certificate_whose_organisation_is_not_the_clients_cannot_register(world):
    async with running(world.trust()) as trust:
        answer = await enrol(trust, "stolen")
        assert (answer.status, answer.event.check) == (403, "trust.software_statement_inactive")


async def test_a_revoked_certificate_cannot_register(world):
    world.directory.revoke(world.keys["c1"].kid)
    async with running(world.trust()) as trust:
        answer = await enrol(trust)
        assert (answer.status, answer.event.check) == (403, "trust.certificate_revoked")


async def test_a_bank_cannot_register_as_a_tpp(world):
    async with running(world.trust()) as trust:
        handler = trust.tpp_routes()["POST", "/tpp-registration"]
        answer = await handler(
            registration(peer_of("c1", client_id=BANK_APP, organisation_id=BANK))
        )
        assert (answer.status, answer.event.check) == (403, "trust.role_missing")


@pytest.mark.parametrize("body", [b"[]", b'{"a":1}', b"x", b" " * 5000 + b"1"])
async def test_a_registration_with_a_body_is_refused(trust, body):
    answer = await enrol(trust, body=body)
    assert (answer.status, answer.event.check) == (400, "registration.body")


async def test_registrations_are_limited_per_client(trust):
    statuses = [(await enrol(trust)).status for _ in range(15)]
    assert statuses.count(429) >= 5
    assert statuses[0] == 204


async def test_an_unknown_client_in_a_subject_never_becomes_a_path(world):
    async with running(world.trust()) as trust:
        world.asked.clear()
        handler = trust.tpp_routes()["POST", "/tpp-registration"]
        answer = await handler(registration(peer_of("c1", client_id="../../token")))
        assert answer.status == 403
        assert world.asked == []


async def test_what_ends_soon_is_on_the_radar_and_noted_once(world, trust):
    judged(trust)
    assert trust.expiries() == ()
    world.clock.advance(350 * 86_400)
    await refreshed(trust)
    assert {b.owner for b in trust.expiries()} == {APP, "tenant"}
    assert b"hub_expiring 5.0" in world.observer.exposition()
    await refreshed(trust)
    assert b'hub_notes_total{name="certificate.ends"} 5.0' in world.observer.exposition()


async def test_a_client_whose_statement_has_another_id_is_found_by_the_list(world):
    statement = "7e0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6e"
    register = world.directory.register
    changed = msgspec.structs.replace(register.application(APP), software_statement_id=statement)
    world.directory._keep(register.with_application(changed))
    original = world.directory.api_handler

    async def strict(request):
        """Know statements by their own id only, as a framework may."""
        path = request.path.replace(f"softwarestatements/{APP}", "softwarestatements/none")
        return await original(msgspec.structs.replace(request, path=path))

    world.directory._api = strict
    async with running(world.trust()) as trust:
        assert (await enrol(trust)).status == 204
        caller = judged(trust)
        assert (caller.client_id, caller.software_statement_id) == (APP, statement)
        assert trust.key(APP, world.keys["sig1"].kid, "sig") is not None


async def test_a_party_without_a_registration_is_vetted_by_certificate_and_organisation(
    world, trust
):
    assert trust.vet(peer_of("c4"), NOW) is None
    assert trust.vet(NOBODY, NOW).check == "trust.certificate_missing"
    world.directory.revoke(world.keys["c4"].kid)
    assert trust.vet(peer_of("c4"), peer_of("c4").not_after).check == "trust.certificate_expired"
    await refreshed(trust)
    assert trust.vet(peer_of("c4"), NOW).check == "trust.certificate_revoked"
