"""Account-access consents as a TPP reads and revokes them."""

import orjson
import pytest

from hub.model.consent import Consent, Status
from hub.model.fault import Fault
from hub.model.records import AccessToken, Grant, RefreshToken, digest_of
from hub.protocol.jose import PublicKey, sign
from hub.state.keeper import Query
from tests.gateway.test_reads import code_of
from tests.gateway.world import (
    AIS,
    BASE,
    CLIENT,
    CONSENT,
    KEY,
    NOW,
    ORGANISATION,
    World,
    client_token,
    consent_of,
    contract,
    grant_of,
    token_of,
)

PATH = f"/account-access-consents/{CONSENT}"
JSON = {b"content-type": b"application/json"}
REVOKE = orjson.dumps({"Data": {"Status": "Revoked", "RevokedBy": "TPP.InitiatedByUser"}})


async def started(**changes) -> World:
    """Start a world with a client-credentials token beside the consent."""
    world = await World().start(consent_of(**changes))
    await world.keep(token_of(**client_token()))
    return world


async def patch(world: World, body: bytes, headers=JSON, path=PATH):
    """Send a PATCH."""
    return await world.send("PATCH", AIS + path, headers=headers, body=body)


async def test_a_consent_is_read_as_the_standard_shows_it():
    world = await started()
    response = await world.get(PATH)
    value = orjson.loads(response.body)
    assert response.status == 200
    assert value["Data"]["Status"] == "Authorized"
    assert value["Links"] == {"Self": f"{BASE}{AIS}{PATH}"}
    assert contract().check_answer("account-information.account-access-consent", value) is None
    [event] = await world.events()
    assert event["consent_id"] == CONSENT


async def test_a_read_shows_the_status_that_holds_now():
    world = await started(expires=NOW)
    value = orjson.loads((await world.get(PATH)).body)
    assert value["Data"]["Status"] == "Expired"


async def test_nothing_undeclared_of_a_consent_is_shown():
    world = await started(data={"PersonalIdentifiableInformation": "secret"})
    assert b"secret" not in (await world.get(PATH)).body


async def test_consents_of_a_group_are_listed():
    world = await started()
    await world.keep(consent_of(id="55555555-5555-4555-8555-555555555555"))
    await world.keep(consent_of(id="66666666-6666-4666-8666-666666666666", group_id="other"))
    response = await world.get("/account-access-consents", f"baseConsentId={CONSENT}")
    assert len(orjson.loads(response.body)) == 2


async def test_a_group_is_listed_in_either_case_of_its_name():
    name = CONSENT.replace("3", "b", 4)
    world = await started(id=name, group_id=name)
    for spelt in (name, name.upper()):
        response = await world.get("/account-access-consents", f"baseConsentId={spelt}")
        assert [one["Data"]["ConsentId"] for one in orjson.loads(response.body)] == [name]


async def test_a_group_without_a_name_has_no_consents():
    world = await started()
    response = await world.get("/account-access-consents", "baseConsentId=")
    assert orjson.loads(response.body) == []


@pytest.mark.parametrize("name", ["x" * 30_000, "%01" * 10_850, "%C3%A9"], ids=len)
async def test_what_cannot_be_the_id_of_a_consent_is_refused_and_not_recorded(name):
    world = await started()
    response = await world.get(f"/account-access-consents/{name}")
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")
    event = (await world.events())[-1]
    assert (event["check"], event.get("consent_id", "")) == ("consent.unknown", "")


async def test_a_list_needs_its_base_consent():
    world = await started()
    response = await world.get("/account-access-consents")
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")


async def test_consents_of_others_are_not_listed():
    world = await started(client_id="other")
    response = await world.get("/account-access-consents", f"baseConsentId={CONSENT}")
    assert orjson.loads(response.body) == []


async def test_an_unknown_and_a_foreign_consent_get_the_same_answer():
    world = await started(client_id="other")
    foreign = await world.get(PATH)
    unknown = await world.get("/account-access-consents/77777777-7777-4777-8777-777777777777")
    assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
    assert (foreign.status, code_of(foreign.body)) == (400, "Resource.InvalidFormat")


@pytest.mark.parametrize("status", [Status.AWAITING, Status.AUTHORIZED, Status.SUSPENDED])
async def test_a_tpp_revokes(status):
    world = await started(status=status)
    response = await patch(world, REVOKE)
    assert (response.status, response.body) == (204, b"")
    consent, version = await world.keeper.lookup(Consent, CONSENT)
    assert (consent.status, version) == (Status.REVOKED, 2)
    assert consent.body["Data"]["RevokedBy"] == "TPP.InitiatedByUser"
    changed, call = await world.events()
    assert (changed["kind"], changed["change"]) == ("consent", f"{status}>Revoked")
    assert call["kind"] == "call"


async def test_a_user_token_is_worth_nothing_after_the_revocation():
    world = await World().start()
    assert (await world.get("/accounts")).status == 200
    assert (await patch(world, REVOKE)).status == 204
    assert (await world.get("/accounts")).status == 401


async def test_a_user_token_of_a_revoked_consent_does_not_read_it_either():
    world = await World().start(consent_of(status=Status.REVOKED))
    assert (await world.get(PATH)).status == 401


async def test_revoking_twice_is_no_error():
    world = await started()
    assert [(await patch(world, REVOKE)).status for _ in range(2)] == [204, 204]
    assert (await world.keeper.lookup(Consent, CONSENT))[1] == 2


@pytest.mark.parametrize("status", [Status.REJECTED, Status.EXPIRED])
async def test_a_terminal_consent_is_not_revoked(status):
    world = await started(status=status)
    response = await patch(world, REVOKE)
    assert (response.status, code_of(response.body)) == (400, "Consent.BusinessRuleViolation")


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        orjson.dumps({"Data": {"Status": "Authorized"}}),
        orjson.dumps({"Data": {"Status": "Revoked", "RevokedBy": "LFI"}}),
        orjson.dumps({"Data": {"Status": "Revoked"}, "Extra": "canary"}),
    ],
)
async def test_a_bad_patch_is_refused_without_repeating_it(body):
    world = await started()
    response = await patch(world, body)
    assert (response.status, code_of(response.body)) == (400, "Body.InvalidFormat")
    assert b"canary" not in response.body
    assert (await world.keeper.lookup(Consent, CONSENT))[1] == 1


async def test_a_patch_of_another_media_type_is_415():
    world = await started()
    response = await patch(world, REVOKE, {b"content-type": b"text/plain"})
    assert (response.status, response.body) == (415, b"")


async def test_a_subscription_is_changed_alone():
    world = await started()
    body = orjson.dumps({"Subscription": {"Webhook": {"IsActive": False}}})
    assert (await patch(world, body)).status == 204
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert consent.status is Status.AUTHORIZED
    assert consent.body["Subscription"]["Webhook"]["IsActive"] is False


def signed_patch(**changes) -> bytes:
    """Make a signed PATCH body."""
    claims = {
        "iss": CLIENT, "aud": [BASE], "nbf": NOW, "exp": NOW + 60,
        "message": orjson.loads(REVOKE), **changes,
    }  # fmt: skip
    return sign(orjson.dumps({k: v for k, v in claims.items() if v is not None}), KEY).encode()


SIGNED = {b"content-type": b"application/jwt"}


async def test_a_signed_patch_is_unwrapped():
    world = await started()
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    assert (await patch(world, signed_patch(), SIGNED)).status == 204


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"a.b", "JWS.Malformed"),
        (signed_patch(iss="other"), "JWS.InvalidClaim"),
        (signed_patch(aud="https://other"), "JWS.InvalidClaim"),
        (signed_patch(exp=NOW), "JWS.InvalidClaim"),
        (signed_patch(exp=NOW + 601), "JWS.InvalidClaim"),
        (signed_patch(nbf=NOW + 31), "JWS.InvalidClaim"),
        (signed_patch(nbf=NOW - 601), "JWS.InvalidClaim"),
        (signed_patch(message=None), "JWS.InvalidClaim"),
        (signed_patch()[:-4] + b"AAAA", "JWS.InvalidSignature"),
    ],
)
async def test_a_signed_patch_that_is_not_right_is_refused(body, code):
    world = await started()
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    response = await patch(world, body, SIGNED)
    assert (response.status, code_of(response.body)) == (400, code)


async def test_an_unknown_key_is_fetched_once_and_then_refused():
    world = await started()
    response = await patch(world, signed_patch(), SIGNED)
    assert (response.status, code_of(response.body)) == (400, "JWS.InvalidSignature")
    assert world.trust.refreshed == 1


async def test_a_change_is_decided_anew_when_another_was_faster():
    world = await started()
    commit = world.keeper.commit
    raced = False

    async def racing(changes, events):
        nonlocal raced
        if changes and not raced:
            raced = True
            await world.keep(consent_of(status=Status.SUSPENDED))
        return await commit(changes, events)

    world.keeper.commit = racing
    assert (await patch(world, REVOKE)).status == 204
    changed = next(e for e in await world.events() if e["kind"] == "consent")
    assert changed["change"] == "Suspended>Revoked"
    assert not isinstance(raced, Fault)


async def test_a_revocation_is_one_commit_with_its_history_and_the_end_of_its_tokens():
    world = await World().start()
    await world.keep(refresh_of(), token_of(digest=digest_of("other"), grant_id="g2"))
    await world.keep(grant_of(id="g2"), grant_of(id="g9", consent_id="another"))
    commits = []
    commit = world.keeper.commit

    async def counted(changes, events):
        commits.append(len(changes))
        return await commit(changes, events)

    world.keeper.commit = counted
    assert (await patch(world, REVOKE)).status == 204
    assert [count for count in commits if count] == [7], "consent, line, two grants, three tokens"
    for kind, key in (
        (Grant, "g1"),
        (Grant, "g2"),
        (RefreshToken, "r"),
        (AccessToken, digest_of("other")),
    ):
        assert (await world.keeper.lookup(kind, key))[0].revoked == NOW
    assert (await world.keeper.lookup(Grant, "g9"))[0].revoked == 0
    page = await world.keeper.search(Query(kind="consent_change", where=(("consent", CONSENT),)))
    [line] = [item.record for item in page.items]
    assert (line.client_id, line.organisation_id) == (CLIENT, ORGANISATION)
    assert orjson.loads(line.patch) == {
        "consentBody.Data.Status": "Revoked",
        "consentBody.Data.RevokedBy": "TPP.InitiatedByUser",
    }


def refresh_of() -> RefreshToken:
    """Make a refresh token of the consent."""
    return RefreshToken(
        digest="r", client_id=CLIENT, consent_id=CONSENT, grant_id="g1", scope="accounts",
        issued=NOW, expires=NOW + 60,
    )  # fmt: skip


def subscription(url: str, *, active: bool = True) -> bytes:
    """Make the patch of a subscription."""
    return orjson.dumps({"Subscription": {"Webhook": {"Url": url, "IsActive": active}}})


HOOK = "https://tpp.example/hook"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://tpp.example/hook", "Body.InvalidFormat"),
        ("https://tpp.example/hook2", "Consent.BusinessRuleViolation"),
        ("https://169.254.169.254/latest", "Consent.BusinessRuleViolation"),
    ],
)
async def test_an_active_subscription_needs_a_registered_https_address(url, code):
    world = await started()
    world.trust.hooks, world.trust.encrypts = (HOOK,), KEY
    response = await patch(world, subscription(url))
    assert (response.status, code_of(response.body)) == (400, code)
    assert (await patch(world, subscription(url, active=False))).status == 204
    assert (await patch(world, subscription(HOOK))).status == 204


async def test_an_active_subscription_needs_a_key_to_encrypt_to():
    world = await started()
    world.trust.hooks = (HOOK,)
    response = await patch(world, subscription(HOOK))
    assert (response.status, code_of(response.body)) == (400, "Consent.BusinessRuleViolation")


@pytest.mark.parametrize("changes", [{"status": Status.REVOKED}, {"expires": NOW}])
async def test_the_subscription_of_a_final_consent_changes_no_more(changes):
    world = await started(**changes)
    response = await patch(world, subscription(HOOK, active=False))
    assert (response.status, code_of(response.body)) == (400, "Consent.BusinessRuleViolation")


async def test_a_subscription_ends_together_with_its_consent():
    world = await started()
    both = {**orjson.loads(REVOKE), "Subscription": {"Webhook": {"IsActive": False}}}
    assert (await patch(world, orjson.dumps(both))).status == 204
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert consent.status is Status.REVOKED
    assert consent.body["Subscription"]["Webhook"] == {"IsActive": False}


async def test_a_customers_token_lists_that_customers_consents_of_the_group_only():
    world = await World().start()
    for number, psu in enumerate(("u-1", "u-2", None)):
        await world.keep(
            consent_of(
                id=f"{number}5555555-5555-4555-8555-555555555555",
                data={"ConsentId": f"{number}5555555-5555-4555-8555-555555555555"},
                psu_identifiers={"userId": psu} if psu else None,
            )
        )
    query = f"baseConsentId={CONSENT}"
    shown = orjson.loads((await world.get("/account-access-consents", query)).body)
    assert {one["Data"]["ConsentId"][0] for one in shown} == {"3", "0", "2"}
    await world.keep(token_of(**client_token()))
    assert len(orjson.loads((await world.get("/account-access-consents", query)).body)) == 4
