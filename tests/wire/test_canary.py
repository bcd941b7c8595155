"""A mark in each text of bodies, in both directions, is nowhere afterwards but where ``retained.toml`` lists it.

Marks of every class of field that passes: request bodies (signed, plain, files, sealed parts), and the bank's answers, which the
model bank is told to spoil with marks. Searched: every file below the sandbox's folder that the Hub writes (database, WAL, audit
log, its own output), its metrics, and all answers with refusals.
"""

import tomllib
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from bench.evidence import append
from hub.config import config_folder
from tests.wire.operations import PAYMENTS, Known, call, file_order, message_of, payment, prepare
from tests.wire.world import Sandbox, actor, free_base

pytestmark = pytest.mark.wire
MARK = "Canary"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Start a sandbox of its own: what others wrote must not be searched."""
    world = Sandbox(tmp_path_factory.mktemp("canary") / "sandbox", free_base())
    world.start()
    yield world
    world.stop()


@pytest.fixture(scope="module")
def known(own) -> Known:
    """Prepare consents and tokens."""
    return trio.run(prepare, own)


class Marks:
    """Give numbered marks, each with the field it went into."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}

    def make(self, field: str) -> str:
        mark = f"{MARK}{len(self.given):07d}x"
        self.given[mark] = field
        return mark

    def spread(self, value, where):
        """Return a copy whose texts all carry a mark."""
        if isinstance(value, str):
            return self.make(where)
        if isinstance(value, dict):
            return {k: self.spread(v, f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, list):
            return [self.spread(v, f"{where}[]") for v in value]
        return value


def places(sandbox: Sandbox) -> list[Path]:
    """Return every file that the Hub may write."""
    roots = [sandbox.folder / "state", sandbox.folder / "hub.log", Path("/dev/shm")]
    found = [p for root in roots for p in ([root] if root.is_file() else root.rglob("*"))]
    return [p for p in found if p.is_file()]


def leaked(sandbox: Sandbox, marks: Marks, answers: list[bytes]) -> dict[str, set[str]]:
    """Return where each mark was found, by the field that it was put into."""
    metrics = httpx.get(f"{sandbox.manifest.hub.ops_base}/metrics", trust_env=False).content
    kept = {str(p.relative_to(p.anchor)): p.read_bytes() for p in places(sandbox)}
    kept |= {"metrics": metrics, "refusals": b"\n".join(answers)}
    found: dict[str, set[str]] = {}
    for where, octets in kept.items():
        if MARK.encode() not in octets:
            continue
        for mark, field in marks.given.items():
            if mark.encode() in octets:
                found.setdefault(field, set()).add(Path(where).name)
    return found


async def travel(sandbox: Sandbox, known: Known, marks: Marks, rounds: int) -> list[bytes]:
    """Send marked bodies of every kind; return what refusals said."""
    refusals: list[bytes] = []
    sent = 0

    async def keep(answer):
        nonlocal sent
        sent += 1
        if answer.status >= 400:
            refusals.append(msgspec.json.encode(message_of(answer, known) or ""))

    async with actor(sandbox) as tpp:
        token, products = known.clients[PAYMENTS], known.clients["products"]
        payee = known.clients["confirmation-of-payee"]
        while sent < rounds:
            lead = {
                "Email": f"{marks.make('leads.Email')}@person.example",
                "EmiratesId": marks.make("leads.EmiratesId"),
                "LeadInformation": marks.make("leads.LeadInformation"),
                "Name": {"GivenName": marks.make("leads.GivenName"), "LastName": marks.make("leads.LastName")},
                "MarketingOptOut": True,
                "ProductCategories": ["CurrentAccount"],
            }  # fmt: skip
            path = "/open-finance/product/v2.1/leads"
            answer = await call(tpp, "POST", path, products, body={"Data": lead})
            assert answer.status == 201, answer.body
            await keep(answer)
            await keep(
                await call(
                    tpp, "POST", path, products, body=marks.spread({"Data": lead}, "bad-lead")
                )
            )
            name = {"FullName": marks.make("payee.FullName")}
            ask = {"SchemeName": "IBAN", "Identification": "AE279900000100100000001", "Name": name}
            path = "/open-finance/confirmation-of-payee/v2.1/confirmation"
            answer = await call(tpp, "POST", path, payee, body={"Data": ask}, signed=True)
            assert answer.status == 200
            await keep(answer)
            wrong = marks.spread({"Data": ask}, "bad-payee")
            await keep(await call(tpp, "POST", path, payee, body=wrong, signed=True))
            order = payment(known, tpp, known.paid[0])
            wrong = marks.spread(order, "bad-payment")
            key = {"x-idempotency-key": marks.make("header.x-idempotency-key")[:40]}
            path = "/open-finance/payment/v2.1/payments"
            await keep(
                await call(
                    tpp, "POST", path, known.payable[1], headers=key, body=wrong, signed=True
                )
            )
            wrong = marks.spread(file_order(known.filed[0]), "bad-file-order")
            path = "/open-finance/payment/v2.1/file-payments"
            await keep(
                await call(
                    tpp, "POST", path, known.file_payable[1], headers=key, body=wrong, signed=True
                )
            )
            path = f"/open-finance/payment/v2.1/payment-consents/{known.uploadable}/file"
            file = f"{marks.make('file')}\n" * 20
            await keep(await call(tpp, "POST", path, token, headers=key, content=file))
            base = "/open-finance/account-information/v2.1"
            query = {"fromBookingDateTime": marks.make("query.fromBookingDateTime")}
            path = f"{base}/accounts/{known.account}/transactions"
            await keep(await call(tpp, "GET", path, known.user, query=query))
            await keep(
                await call(
                    tpp, "GET", f"{base}/accounts/{marks.make('path.AccountId')}", known.user
                )
            )
            path = f"{base}/account-access-consents/{known.user_consent}"
            bad = marks.spread(
                {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}, "bad-consent-patch"
            )
            await keep(await call(tpp, "PATCH", path, known.clients["openid accounts"], body=bad))
            headers = {"x-fapi-interaction-id": marks.make("header.x-fapi-interaction-id")}
            await keep(await call(tpp, "GET", f"{base}/accounts", known.user, headers=headers))
    return refusals


def search(sandbox: Sandbox, known: Known, rounds: int) -> int:
    marks = Marks()
    refusals = trio.run(travel, sandbox, known, marks, rounds)
    assert len(marks.given) >= rounds
    assert leaked(sandbox, marks, refusals) == {}
    return len(marks.given)


def test_the_search_finds_a_mark_that_is_kept(own, known):
    marks = Marks()
    marks.given[known.user_consent] = "consent.request.ConsentId"
    text = known.user_consent.encode()
    assert any(text in path.read_bytes() for path in places(own))
    assert any(
        p.name.endswith("-wal") or p.suffix == ".db" or "sqlite" in p.name for p in places(own)
    )


def test_marks_of_a_hundred_bodies_are_nowhere(own, known):
    assert search(own, known, 100) > 300


@pytest.mark.nightly
def test_marks_of_ten_thousand_bodies_are_nowhere(own):
    total = bodies = 0
    while bodies < 10_000:
        total += search(own, trio.run(prepare, own), 1_000)
        bodies += 1_000
    append(
        "canary", {"bodies": bodies, "marks": total}, [], "nowhere but where retained.toml lists it"
    )


async def marked_payment(own, known):
    """Make a payment whose kept fields carry marks; return the marks by field."""
    marks = Marks()
    async with actor(own) as tpp:
        order = payment(known, tpp, known.payable[0])
        agent = marks.make("payment.request_headers.user-agent")
        headers = {
            "x-idempotency-key": "canary-kept",
            "x-customer-user-agent": agent,
            "authorization-of-nobody": marks.make(
                "payment.request_headers.authorization-of-nobody"
            ),
        }
        path = "/open-finance/payment/v2.1/payments"
        answer = await call(
            tpp, "POST", path, known.payable[1], headers=headers, body=order, signed=True
        )
        assert answer.status == 201, message_of(answer, known)
    return marks


def test_what_is_kept_is_what_the_list_names(own, known):
    marks = trio.run(marked_payment, own, known)
    found = leaked(own, marks, [])
    listed = tomllib.loads((config_folder() / "contract/retained.toml").read_text())["kept"]
    prefixes = tuple(row["field"].removesuffix("*") for row in listed)
    assert found, "the payment log keeps the headers, as the Consent Manager's schema demands"
    assert all(field.startswith(prefixes) for field in found)


def test_the_list_names_each_field_once_and_with_its_source():
    listed = tomllib.loads((config_folder() / "contract/retained.toml").read_text())["kept"]
    fields = [row["field"] for row in listed]
    assert len(fields) == len(set(fields))
    assert all(row["source"] for row in listed)
