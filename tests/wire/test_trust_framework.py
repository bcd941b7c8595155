"""What the Trust Framework takes away is refused within the stated bound, over the wire, at PAR, token and resource."""

import re
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from hub.sandbox.clock import SharedClock
from hub.sandbox.directory.acts import SLOW_S
from hub.sandbox.pki import Pki
from hub.sandbox.tpp import Tokens
from tests.waiting import until
from tests.wire.newcomer import (
    do,
    events,
    fault,
    join,
    newcomer,
    operator,
    three_places,
    thumbprint,
)
from tests.wire.world import moved

pytestmark = pytest.mark.wire

BOUND_S = 301
"""The refresh interval (README: within five minutes) and a second."""
PASSED = {"par": (201, ""), "token": (200, ""), "resource": (200, "")}
UNKNOWN = {"par": (401, "invalid_client"), "token": (401, "invalid_client"), "resource": (401, "")}
held: dict[str, str] = {}


@pytest.fixture(scope="module")
def section(sandbox):
    held.clear()
    return join(sandbox, "Newcomer, FZ+LLC")


@pytest.fixture
async def tpp(sandbox, section):
    """Let the newcomer act; it registers and takes a customer's consent once."""
    async with newcomer(sandbox, section) as acting:
        if "token" not in held:
            assert await acting.tpp.register(sandbox.manifest.hub.registration) is None
            held["token"] = (await acting.consented()).access_token
        yield acting


async def refresh(sandbox) -> None:
    assert (await operator(sandbox, "resync"))["ok"]


NO_ROLE = {
    "par": (400, "unauthorized_client"),
    "token": (400, "unauthorized_client"),
    "resource": (403, "AccessToken.InvalidScope"),
}
NO_KEY = UNKNOWN | {"resource": (200, "")}
"""A resource needs no signature of the TPP's."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken away and given back, who of the framework is silent about it, and what comes of it."""

    acts: tuple[tuple[str, str, dict[str, str]], ...]
    silent: str = ""
    outcome: dict[str, tuple[int, str]] = msgspec.field(default_factory=lambda: UNKNOWN)
    checks: frozenset[str]


def loss(check: str, act: str, undo: str, members: dict[str, str], **more) -> Loss:
    return Loss(acts=((act, undo, members),), checks=frozenset({check}), **more)


REVOKE = ("trust.certificate_revoked", "revoke", "restore", {"kid": "transport"})
ROLES = tuple(
    ("drop_role", "give_role", {"organisation_id": "organisation", "role": role})
    for role in ("BDSP", "BSIP")
)
LOSSES = {
    "certificate-revoked": loss(*REVOKE),
    "certificate-revoked-by-crl-alone": loss(*REVOKE, silent="/ocsp"),
    "certificate-revoked-by-ocsp-alone": loss(*REVOKE, silent="/issuer.crl"),
    "application-suspended": loss(
        "trust.client_inactive", "suspend", "resume", {"client_id": "client"}
    ),
    "organisation-withdrawn": loss(
        "trust.organisation_inactive", "withdraw", "reinstate", {"organisation_id": "organisation"}
    ),
    "roles-dropped": Loss(
        acts=ROLES, outcome=NO_ROLE, checks=frozenset({"client.role", "enforce.role"})
    ),
    "signing-key-revoked": loss(
        "client_assertion.key", "revoke", "restore", {"kid": "signing"}, outcome=NO_KEY
    ),
}


def named(section, members: dict[str, str]) -> dict[str, str]:
    values = {
        "client": section.client_id,
        "organisation": section.organisation_id,
        "transport": thumbprint(section.transport_cert),
        "signing": section.signing_kid,
    }
    return {name: values.get(what, what) for name, what in members.items()}


async def silence(sandbox, section, path: str) -> None:
    """Let one of the two that tell of revocations fail, and the key store know nothing of it."""
    if path:
        await fault(sandbox, "pki", path=path, status=500)
        home = f"/{section.organisation_id}/{section.client_id}/revoked"
        await fault(sandbox, "directory", path=home, status=404)


@pytest.mark.parametrize("name", LOSSES)
async def test_what_the_framework_takes_away_is_refused_within_the_bound(
    sandbox, section, tpp, name
):
    """Nobody asks the Hub to look: only the clock moves, by the bound that the README states."""
    lost = LOSSES[name]
    assert await three_places(tpp, held["token"]) == PASSED
    await silence(sandbox, section, lost.silent)
    for act, _, members in lost.acts:
        await do(sandbox, act, **named(section, members))
    try:
        async with moved(sandbox, BOUND_S):

            async def refused() -> bool:
                return await three_places(tpp, held["token"]) == lost.outcome

            await until(refused, 20, "what the framework took away to be refused")
            told = events(sandbox.folder / "state", thumbprint(section.transport_cert))
            refusals = [e for e in told if e.get("verdict") == "refused"]
            places = [status for status, _ in lost.outcome.values() if status >= 400]
            assert len(refusals) == len(places), told
            assert {e["check"] for e in refusals} == lost.checks
    finally:
        await fault(sandbox, "pki")
        await fault(sandbox, "directory")
        for _, undo, members in lost.acts:
            await do(sandbox, undo, **named(section, members))
        await refresh(sandbox)
    assert await three_places(tpp, held["token"]) == PASSED


async def test_a_rotated_key_works_on_the_first_request_and_costs_one_fetch(sandbox, section, tpp):
    made = await do(sandbox, "new_key", client_id=section.client_id, kind="signing")
    rotated = msgspec.structs.replace(section, signing_key=made["key"], signing_kid=made["kid"])
    results: list[object] = []
    async with newcomer(sandbox, rotated) as acting:

        async def ask_for_token() -> None:
            results.append(await acting.tpp.client_credentials(acting.discovery, "openid accounts"))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask_for_token)
    assert all(isinstance(r, Tokens) for r in results), results


async def test_a_certificate_that_runs_out_on_an_open_connection_is_refused(sandbox, section, tpp):
    made = await do(
        sandbox, "new_key", client_id=section.client_id, kind="transport", seconds="120"
    )
    short = msgspec.structs.replace(
        section, transport_cert=made["certificate"], transport_key=made["key"]
    )
    async with newcomer(sandbox, short) as acting:
        tokens = await acting.tpp.client_credentials(acting.discovery, "openid accounts")
        assert isinstance(tokens, Tokens), tokens
        async with moved(sandbox, 121):
            got = await three_places(acting, tokens.access_token)
            assert got == UNKNOWN
            told = events(sandbox.folder / "state", thumbprint(short.transport_cert))
            assert [e["check"] for e in told] == ["trust.certificate_expired"] * 3


def issue(sandbox, section, folder, **changes):
    """Issue a transport certificate of the sandbox's own authority that is wrong in one way."""
    clock = SharedClock.open(sandbox.folder / "run/clock")
    try:
        pki = Pki.open(sandbox.folder / "pki", clock)
        names = {
            "organisation_id": section.organisation_id,
            "organisation_name": section.name,
            "client_id": section.client_id,
        }
        return pki.issue("C1", folder=folder, name="wrong", **(names | changes))
    finally:
        clock.close()


async def test_the_right_authority_with_the_wrong_organisation_is_refused(
    sandbox, section, tpp, tmp_path
):
    wrong = issue(
        sandbox, section, tmp_path, organisation_id=sandbox.manifest.tpps[0].organisation_id
    )
    changed = msgspec.structs.replace(
        section, transport_cert=str(wrong.cert_path), transport_key=str(wrong.key_path)
    )
    async with newcomer(sandbox, changed) as acting:
        got = await three_places(acting, held["token"])
    assert got == UNKNOWN
    told = events(sandbox.folder / "state", thumbprint(wrong.cert_path))
    # At the resource the binding comes first: no token was ever bound to such a certificate.
    wrong_one = "trust.certificate_unknown_organisation"
    assert [e["check"] for e in told] == [wrong_one, wrong_one, "token.certificate_binding"]


def other_authority(sandbox, section, folder):
    clock = SharedClock.open(sandbox.folder / "run/clock")
    try:
        return Pki.open(folder / "other", clock).issue(
            "C1",
            organisation_id=section.organisation_id,
            organisation_name=section.name,
            client_id=section.client_id,
            folder=folder,
            name="wrong",
        )
    finally:
        clock.close()


def expired(sandbox, section, folder):
    clock = SharedClock.open(sandbox.folder / "run/clock")
    try:
        now = clock.now()
    finally:
        clock.close()
    return issue(sandbox, section, folder, not_before=now - 9_000, not_after=now - 3_600)


def too_early(sandbox, section, folder):
    clock = SharedClock.open(sandbox.folder / "run/clock")
    try:
        now = clock.now()
    finally:
        clock.close()
    return issue(sandbox, section, folder, not_before=now + 3_600, not_after=now + 9_000)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (expired, "certificate_has_expired"),
        (too_early, "certificate_is_not_yet_valid"),
        (other_authority, "unable_to_get_local_issuer_certificate"),
    ],
)
async def test_what_tls_decides_ends_the_handshake_and_the_log_names_certificate_and_reason(
    sandbox, section, tpp, tmp_path, make, reason
):
    wrong = make(sandbox, section, tmp_path)
    changed = msgspec.structs.replace(
        section, transport_cert=str(wrong.cert_path), transport_key=str(wrong.key_path)
    )
    with pytest.raises(httpx.TransportError):
        async with newcomer(sandbox, changed):
            pass
    from hub.sandbox.pki import read_certificate

    serial = f"{read_certificate(wrong.cert_path).serial_number:x}"

    async def told() -> bool:
        lines = (sandbox.folder / "hub.log").read_text().splitlines()
        notes = [msgspec.json.decode(line) for line in lines if "handshake_refused" in line]
        return any(
            n["reason"] == reason
            and n.get("serial") == serial
            and section.client_id in n["subject"]
            for n in notes
        )

    await until(told, 10, "the refused handshake to be noted")


async def break_off(sandbox, what: str, *, down: bool) -> None:
    """Take the whole framework, or only the host of the revocation list, off the net, or bring it back."""
    if what == "framework":
        await do(sandbox, "down" if down else "up")
    else:
        await fault(sandbox, "pki", **({"path": "/issuer.crl", "close": True} if down else {}))


@pytest.mark.parametrize("what", ["framework", "crl"])
async def test_reads_go_on_and_payments_stop_while_it_is_down_for_an_hour(
    sandbox, section, tpp, what
):
    own = await tpp.tpp.client_credentials(tpp.discovery, "openid payments")
    assert isinstance(own, Tokens), own
    base = sandbox.manifest.hub.resource_base
    url = f"{base}/open-finance/payment/v2.1/payment-consents/{tpp.identity.dice.uuid()}"
    assert (await tpp.tpp.get(url, own.access_token)).status in {400, 404}
    await break_off(sandbox, what, down=True)
    try:
        async with moved(sandbox, 3_600):

            async def stopped() -> bool:
                fresh = await tpp.tpp.client_credentials(tpp.discovery, "openid payments")
                assert isinstance(fresh, Tokens), fresh  # reads and the authorization server go on
                return (await tpp.tpp.get(url, fresh.access_token)).status == 500

            await until(stopped, 10, "payments to stop")
            fresh = await tpp.tpp.client_credentials(tpp.discovery, "openid accounts")
            assert isinstance(fresh, Tokens), fresh
            consents = "/account-access-consents/" + tpp.identity.dice.uuid()
            assert (await tpp.get(consents, fresh.access_token)).status in {400, 404}
            (told,) = [
                e
                for e in events(sandbox.folder / "state", thumbprint(section.transport_cert), 40)
                if e.get("check") == "trust.stale"
            ][-1:]
            assert told["status"] == 500
            status = (await operator(sandbox, "trust"))["trust"]
            assert (status["ready"], status["payments"]) == (True, False)
            await break_off(sandbox, what, down=False)

            payments = await tpp.tpp.client_credentials(tpp.discovery, "openid payments")
            assert isinstance(payments, Tokens), payments

            async def recovered() -> bool:
                return (await tpp.tpp.get(url, payments.access_token)).status in {400, 404}

            await until(recovered, 40, "payments to go on")
            assert (await operator(sandbox, "trust"))["trust"]["payments"] is True
    finally:
        await break_off(sandbox, what, down=False)
        await refresh(sandbox)


async def test_nobody_waits_for_a_framework_that_is_slow(sandbox, section, tpp):
    await do(sandbox, "slow")
    try:
        async with moved(sandbox, BOUND_S):
            for _ in range(5):
                with trio.fail_after(SLOW_S - 1):
                    assert (await tpp.get("/accounts", held["token"])).status == 200
    finally:
        await do(sandbox, "up")
        await refresh(sandbox)


async def test_the_bank_with_a_revoked_certificate_is_refused_at_the_consent_manager(
    sandbox, tmp_path
):
    from tests.wire.test_revocation import bank_client

    bank = sandbox.manifest.bank
    kid = thumbprint(sandbox.folder / bank.transport_cert)
    async with bank_client(sandbox) as client:
        assert (await client.get("/consents")).status_code == 200
        await do(sandbox, "revoke", kid=kid)
        try:
            await refresh(sandbox)
            refused = await client.get("/consents")
            assert refused.status_code == 403
            assert "revoked" in refused.json()["errorMessage"]
        finally:
            await do(sandbox, "restore", kid=kid)
            await refresh(sandbox)
        assert (await client.get("/consents")).status_code == 200


def test_the_readme_states_the_bounds():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert re.search(r"within five minutes", text)
