"""A mark in each text of bodies, in both directions, is nowhere afterwards but where ``retained.toml`` lists it.

A Hub of the test's own stands between a TPP that sends marks (signed, plain, files, request objects, headers) and a bank whose
every answer carries them (lawful, spoiled, refusals, no JSON), and which patches consents and payments with them. Searched: every
record and event, field by field; every file that the Hub writes or holds open, its output included; its metrics; all refusals.
"""

import os
import sqlite3
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import trio

from bench.evidence import append
from hub.config import config_folder
from hub.contract.tables import read_rows
from hub.sandbox.server import serve_site
from hub.sandbox.tls import client_context, server_context
from hub.sandbox.tpp import Answer, Ask, Pushed, Tokens
from hub.sandbox.tpp.consent import timestamp
from hub.sandbox.tpp.oauth import new_secrets, read_par, request_par
from hub.sandbox.tpp.payment import seal
from tests.wire.canary import (
    FORMATS,
    PATTERNS,
    UNDECLARED,
    MarkedBank,
    Marks,
    kept_fields,
    numbers_in,
    schemas_of,
    written_files,
)
from tests.wire.newcomer import newcomer
from tests.wire.operations import (
    CLIENT_SCOPES,
    EVERY_PERMISSION,
    FILE,
    SHOP,
    bank_keys,
    file_object,
    signed_message,
)
from tests.wire.own_hub import OwnHub, copy_state, free_ports, settings_beside
from tests.wire.test_lifecycle import reissued
from tests.wire.world import ROOT, Sandbox, actor

pytestmark = [pytest.mark.wire, pytest.mark.specs]
SPECS = Path(os.environ.get("HUB_SPECS", ROOT / "../shared/reference/api-specs"))
CONTRACT = config_folder() / "contract"
ACCOUNTS = "/open-finance/account-information/v2.1"
PAYMENT = "/open-finance/payment/v2.1"
DETAIL = "authorization_details urn:openfinanceuae:{}-consent:v2.1"
LIFE = 20 * 86_400
READS = (
    "/accounts", "/parties", "/accounts/{}", "/accounts/{}/balances", "/accounts/{}/beneficiaries",
    "/accounts/{}/direct-debits", "/accounts/{}/product", "/accounts/{}/scheduled-payments", "/accounts/{}/standing-orders",
    "/accounts/{}/transactions", "/accounts/{}/parties", "/accounts/{}/statements",
)  # fmt: skip
NEVER = {UNDECLARED, "header.cookie", "header.proxy-authorization", "header.authorization"}
"""Fields whose marks no record holds, whatever the list says."""
OPEN_READS = (
    ("products", "/open-finance/product/v2.1/products"),
    ("atm", "/open-finance/atm/v2.1/atms"),
)


@pytest.fixture(scope="module")
def schemas():
    """Read the official schemas, of which bodies are made."""
    return schemas_of(SPECS, tomllib.loads((CONTRACT / "sources.toml").read_text()))


class Setting:
    """A Hub of its own on a copy of the sandbox's state, and what was sent through it."""

    def __init__(self, sandbox: Sandbox, folder: Path, schemas, temporary: Path) -> None:
        self.sandbox, self.schemas, self.temporary = sandbox, schemas, temporary
        self.marks = Marks()
        self.bank = MarkedBank(self.marks, read_rows(CONTRACT / "routes"), schemas)
        self.told: dict[str, set[int]] = {}
        self.kept: dict[str, set[int]] = {}
        self.statuses: set[tuple[str, int]] = set()
        self.bodies = 0
        copy_state(sandbox, folder)
        self.bank_port = free_ports(1)[0]
        bank = {"base_url": f"https://localhost:{self.bank_port}"}
        limits = {"bank_failures": 100_000, "bank_health_s": 3600.0}
        settings = settings_beside(sandbox, folder, bank=bank)
        settings["limits"] = limits
        settings["switches"] = {**settings["switches"], "response_validation": "shadow"}
        self.base = f"https://localhost:{settings['tpp']['port']}"
        self.bank_face = f"https://localhost:{settings['lfi']['port']}"
        settings["tenant"] |= {"issuer": self.base, "resource_base": self.base}
        settings["lfi"]["base"] = self.bank_face
        self.hub = OwnHub(folder, settings)
        self.patched = self.payment_ids()

    def look(self) -> None:
        """Note what the records hold now; later looks add to it."""
        for field, numbers in kept_fields(self.hub.folder / "hub.db").items():
            self.kept.setdefault(field, set()).update(numbers)

    def payment_ids(self) -> set[str]:
        """Return the ids of the payments that the log holds."""
        with closing(sqlite3.connect(f"file:{self.hub.folder}/hub.db?mode=ro", uri=True)) as store:
            return {k for (k,) in store.execute("SELECT key FROM record WHERE kind = 'payment'")}

    def hear(self, where: str, octets: bytes) -> None:
        """Note the marks in something that the Hub said in a refusal."""
        if numbers := numbers_in(octets):
            self.told.setdefault(where, set()).update(numbers)

    def fields(self, numbers: set[int]) -> set[str]:
        """Return the fields that marks were put into."""
        return {self.marks.fields[n] for n in numbers if n < len(self.marks.fields)}

    def elsewhere(self) -> dict[str, set[str]]:
        """Return the fields of marks that are where no record of ours put them, by place."""
        logged = set().union(*(n for field, n in self.kept.items() if field.startswith("event.")))
        kept = set().union(*self.kept.values())
        pids = [self.hub.pid, *self.hub.workers()]
        files = written_files(self.hub.folder, pids) | written_files(self.temporary, [])
        files["metrics"] = self.hub.ops("/metrics").encode()
        found = {}
        for path, octets in files.items():
            known = kept if Path(path).name in {"hub.db", "hub.db-wal"} else set()
            strange = numbers_in(octets) - (logged if "/audit/" in path else known)
            if fields := self.fields(strange):
                found[path] = fields
        return found


@pytest.fixture(scope="module")
def setting(sandbox, schemas, tmp_path_factory) -> Iterator[Setting]:
    """Start the Hub; what it writes to temporary folders is seen."""
    folder = tmp_path_factory.mktemp("canary")
    temporary = folder / "tmp"
    temporary.mkdir()
    made = Setting(sandbox, folder / "hub", schemas, temporary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        made.hub.start()
    yield made
    assert made.hub.stop() == 0
    assert b"Traceback" not in made.hub.log.read_bytes(), made.hub.tail()


class Traveller:
    """One TPP and the bank's own calls, through the Hub of the setting."""

    def __init__(self, setting: Setting, tpp, keys, bank: httpx.AsyncClient) -> None:
        self.setting, self.marks, self.tpp, self.keys, self.bank = (
            setting, setting.marks, tpp, keys, bank,
        )  # fmt: skip
        self.clients: dict[str, str] = {}
        self.files: dict[str, str] = {}

    async def start(self) -> "Traveller":
        for scope in CLIENT_SCOPES:
            tokens = await self.tpp.tpp.client_credentials(self.tpp.discovery, scope)
            assert isinstance(tokens, Tokens), tokens
            self.clients[scope] = tokens.access_token
        return self

    async def send(self, method, path, token, *, body=None, signed=False, content="", **headers):
        """Send one request whose headers carry marks too; hear what a refusal says."""
        make = self.marks.make
        sent = {
            "authorization": f"Bearer {token}",
            "accept": "application/json, application/jwt;q=0.5",
            "x-fapi-customer-ip-address": "192.0.2.17",
            "x-customer-user-agent": make("header.x-customer-user-agent"),
            "cookie": make("header.cookie"),
            "proxy-authorization": make("header.proxy-authorization"),
            "x-unknown": make("header.x-unknown"),
        }
        if body is not None:
            sent["content-type"] = "application/jwt" if signed else "application/json"
            content = (
                signed_message(self.tpp, body) if signed else msgspec.json.encode(body).decode()
            )
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if "://" in path else self.setting.base + path
        answer = await self.tpp.tpp.wire.carry(
            Ask(method=method, url=url, headers=sent, content=content)
        )
        self.heard(path, answer)
        return answer

    def heard(self, path: str, answer: Answer) -> None:
        self.setting.bodies += 1
        self.setting.statuses.add((path, answer.status))
        self.last = answer
        if answer.status >= 400:
            self.setting.hear("refusal", answer.body + repr(answer.headers).encode())

    async def call_as_bank(self, method, path, **content) -> httpx.Response:
        """Call the Hub's face for the bank."""
        self.setting.bodies += 1
        answer = await self.bank.request(method, self.setting.bank_face + path, **content)
        if answer.status_code >= 400:
            self.setting.hear("refusal to the bank", answer.content)
        return answer

    async def push(self, detail, scope) -> Pushed | None:
        """Push a request with marks in its claims and headers."""
        secrets = new_secrets(self.tpp.identity)
        secrets = msgspec.structs.replace(
            secrets, state=self.marks.make("par.state"), nonce=self.marks.make("par.nonce")
        )
        ask = request_par(
            self.tpp.identity, self.tpp.discovery, detail=detail, scope=scope, secrets=secrets
        )
        headers = {
            "x-customer-user-agent": self.marks.make("header.x-customer-user-agent"),
            "cookie": self.marks.make("header.cookie"),
        }
        answer = await self.tpp.tpp.wire.carry(msgspec.structs.replace(ask, headers=headers))
        self.heard("/par", answer)
        found = read_par(answer, secrets)
        return found if isinstance(found, Pushed) else None

    async def approved(self, detail, scope, patch) -> str:
        """Have a consent approved by the bank, with a patch full of marks; return the access token."""
        consent_id = detail["consent"]["ConsentId"]
        pushed = await self.push(detail, scope)
        assert pushed is not None, self.last.body
        return await self.redeemed(pushed, scope, consent_id, patch)

    async def begin(self, pushed, scope) -> str:
        """Begin an interaction as the bank; return its id."""
        query = {
            "client_id": self.tpp.identity.client_id, "response_type": "code", "scope": scope,
            "request_uri": pushed.request_uri,
        }  # fmt: skip
        begun = await self.call_as_bank("GET", "/auth", params=query)
        assert begun.status_code == 200, begun.text
        return begun.json()["interaction"]["interactionId"]

    async def confirmed(self, interaction) -> httpx.Response:
        """Confirm as the bank, with marks in what it adds to the id_token and in what means nothing."""
        claims = {n: self.marks.make(f"confirm.{n}") for n in ("name", "sub", "heimdall.x")}
        answer = await self.call_as_bank("POST", f"/auth/{interaction}/doConfirm", data=claims)
        assert answer.status_code == 303, answer.text
        return answer

    async def redeemed(self, pushed, scope, consent_id, patch) -> str:
        interaction = await self.begin(pushed, scope)
        done = await self.call_as_bank("PATCH", f"/consents/{consent_id}", json=patch)
        assert done.status_code == 204, done.text
        confirmed = await self.confirmed(interaction)
        code = parse_qs(urlsplit(confirmed.headers["location"]).query)["code"][0]
        tokens = await self.tpp.tpp.redeem(self.tpp.discovery, code, pushed)
        assert isinstance(tokens, Tokens), tokens
        return tokens.access_token

    def patch(self, accounts, **more):
        """Return what the bank says of a consent that its customer approves."""
        make = self.marks.make
        return {
            "status": "Authorized",
            "authorizationChannel": "App",
            "psuIdentifiers": {"userId": make("patch.userId"), "other": make("patch.other")},
            "accountIds": accounts,
            "supplementaryInformation": {"note": make("patch.supplementaryInformation")},
            **more,
        }

    def expires(self) -> str:
        return timestamp(self.tpp.identity.clock.now() + LIFE)

    def account_detail(self):
        """Return a lawful data-sharing request, marked wherever a text may be free."""
        detail = self.marks.lawful(
            self.setting.schemas["authorization"][DETAIL.format("account-access")], "par.accounts"
        )
        detail["type"] = "urn:openfinanceuae:account-access-consent:v2.1"
        detail["subscription"]["Webhook"]["IsActive"] = False
        detail["consent"] |= {
            "ConsentId": self.tpp.identity.dice.uuid(),
            "Permissions": list(EVERY_PERMISSION),
            "ExpirationDateTime": self.expires(),
        }
        return detail

    def payment_detail(self, schedule):
        """Return a lawful request to pay, marked wherever a text may be free."""
        detail = self.marks.lawful(
            self.setting.schemas["authorization"][DETAIL.format("service-initiation")],
            "par.payments",
        )
        detail["type"] = "urn:openfinanceuae:service-initiation-consent:v2.1"
        detail["subscription"]["Webhook"]["IsActive"] = False
        detail["consent"] |= {
            "ConsentId": self.tpp.identity.dice.uuid(),
            "ControlParameters": {"ConsentSchedule": schedule},
            "PersonalIdentifiableInformation": self.sealed({"Creditor": [SHOP]}),
            "ExpirationDateTime": self.expires(),
            "AuthorizationExpirationDateTime": self.expires(),
            "PaymentPurposeCode": "ACM",
            "Permissions": ["ReadRefundAccount"],
            "IsSingleAuthorization": True,
        }
        return detail

    def sealed(self, initiation) -> str:
        """Seal personal data with a mark inside: the Hub cannot read it."""
        initiation = {**initiation, "Note": self.marks.make("sealed")}
        found = seal(self.tpp.identity, self.keys, initiation)
        assert isinstance(found, str)
        return found


async def read_everything(on: Traveller, token: str, account: str) -> None:
    """Read every resource while the bank answers in every way."""
    for mode in on.setting.bank.MODES:
        on.setting.bank.mode = mode
        for path in READS:
            await on.send("GET", ACCOUNTS + path.format(account), token)
        for scope, path in OPEN_READS:
            await on.send("GET", path, on.clients[scope])
        await ask_openly(on, lawful=True)
    on.setting.bank.mode = "lawful"
    await ask_openly(on, lawful=False)
    stamp = on.marks.make("query.fromBookingDateTime")
    await on.send(
        "GET", f"{ACCOUNTS}/accounts/{account}/transactions?fromBookingDateTime={stamp}", token
    )
    await on.send("GET", f"{ACCOUNTS}/accounts/{on.marks.make('path.AccountId')}", token)
    await on.send("GET", f"{ACCOUNTS}/{on.marks.make('path')}", token)
    await on.send("GET", f"{ACCOUNTS}/accounts", on.marks.make("header.authorization"))
    mark = on.marks.make("header.x-fapi-interaction-id")
    await on.send("GET", f"{ACCOUNTS}/accounts", token, x_fapi_interaction_id=mark)


async def ask_openly(on: Traveller, *, lawful: bool) -> None:
    """Send leads and names of payees."""
    schemas = on.setting.schemas
    family = "confirmation-of-payee"
    for scope, path, name, site, signed in (
        ("products", "/open-finance/product/v2.1/leads", "product", "/leads", False),
        (family, f"/open-finance/{family}/v2.1/confirmation", family, "/confirmation", True),
        (family, f"/open-finance/{family}/v2.1/discovery", family, "/discovery", True),
    ):
        body = on.marks.lawful(schemas[name][f"POST {site} request"], name + site)
        if not lawful:
            body = on.marks.spread(body, f"bad {name}{site}")
        await on.send("POST", path, on.clients[scope], body=body, signed=signed)


async def push_wrongly(on: Traveller) -> None:
    """Push requests that are spoiled, and such as the bank says no to."""
    detail = on.account_detail()
    await on.push(on.marks.spread(detail, "par.accounts"), "accounts openid")
    wrong = on.marks.spread(detail["consent"], "par.accounts.consent")
    await on.push({**detail, "consent": {**wrong, "ConsentId": detail["consent"]["ConsentId"]}}, "accounts openid")  # fmt: skip
    payment = on.payment_detail(single_payment())
    await on.push({**payment, "consent": on.marks.spread(payment["consent"], "par.payments")}, "payments openid")  # fmt: skip
    await on.tpp.tpp.register(on.setting.base + "/tpp-registration")
    refused = await on.tpp.tpp.client_credentials(on.tpp.discovery, on.marks.make("token.scope"))
    on.setting.hear("refusal", repr(refused).encode())
    on.setting.bank.mode = "refusal"
    assert await on.push(on.account_detail(), "accounts openid") is None
    on.setting.bank.mode = "lawful"


def single_payment():
    amount = {"Amount": "12.50", "Currency": "AED"}
    return {"SinglePayment": {"Type": "SingleInstantPayment", "Amount": amount}}


async def take_accounts(on: Traveller) -> tuple[str, str, str]:
    """Take a consent to account data; return token, account and the consent's id."""
    detail = on.account_detail()
    account = on.marks.make("patch.accountIds")
    token = await on.approved(detail, "accounts openid", on.patch([account]))
    return token, account, detail["consent"]["ConsentId"]


async def patch_wrongly(on: Traveller, consent_id: str) -> None:
    """Send spoiled patches of a consent, from both sides."""
    wrong = on.marks.spread(on.patch(["a"]), "bad patch")
    await on.call_as_bank("PATCH", f"/consents/{consent_id}", json=wrong)
    wrong = on.marks.spread({"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}, "bad tpp patch")
    path = f"{ACCOUNTS}/account-access-consents/{consent_id}"
    await on.send("PATCH", path, on.clients["openid accounts"], body=wrong)


async def paid(on: Traveller, *, path="/payments", control=None, silent=False) -> None:
    """Take a consent to a payment and pay: first wrongly, then as it should be."""
    detail = on.payment_detail(control or single_payment())
    consent_id = detail["consent"]["ConsentId"]
    scope = "payments openid"
    pushed = await on.push(detail, scope)
    assert pushed is not None, on.last.body
    if control is not None:
        upload = f"{PAYMENT}/payment-consents/{consent_id}/file"
        key = on.marks.make("header.x-idempotency-key")
        wrong = on.marks.make("file") * 20
        for content in (wrong, marked_file(on, control)):
            await on.send(
                "POST", upload, on.clients["openid payments"], content=content,
                content_type="text/csv", x_idempotency_key=key,
            )  # fmt: skip
    patch = on.patch([on.marks.make("patch.accountIds")], ConnectToken=on.marks.make("patch.ConnectToken"))  # fmt: skip
    token = await on.redeemed(pushed, scope, consent_id, patch)
    schema = on.setting.schemas["payment"][f"POST {path} request"]
    order = on.marks.lawful(schema, "order")
    wanted = {
        "ConsentId": consent_id,
        "PaymentPurposeCode": "ACM",
        "PersonalIdentifiableInformation": on.sealed(SHOP),
        "Instruction": detail["consent"]["ControlParameters"]["ConsentSchedule"].get("FilePayment")
        or {"Amount": {"Amount": "12.50", "Currency": "AED"}},
    }
    order["Data"] |= {name: value for name, value in wanted.items() if name in order["Data"]}
    for name in ("DebtorReference", "CreditorReference")[: 2 if control is None else 1]:
        order["Data"][name] = detail["consent"][name]
    order["Data"].pop("CurrencyRequest", None)
    url = PAYMENT + path
    key = on.marks.make("header.x-idempotency-key")
    wrong = on.marks.spread(order, "bad order")
    await on.send("POST", url, token, body=wrong, signed=True, x_idempotency_key=key)
    on.setting.bank.silent = silent
    answer = await on.send("POST", url, token, body=order, signed=True, x_idempotency_key=key)
    if silent:
        assert answer.status >= 400
        on.setting.look()
        on.setting.bank.silent = False
        return
    assert answer.status == 201, (answer.status, on.setting.told, answer.body)


def marked_file(on: Traveller, control) -> str:
    """Return the file that a consent announces."""
    return on.files[control["FilePayment"]["FileHash"]]


def file_control(on: Traveller):
    """Return a schedule of a file full of marks."""
    content = FILE + on.marks.make("file") + "\n"
    digest = b64encode(sha256(content.encode()).digest()).decode()
    on.files[digest] = content
    return {"FilePayment": {**file_object(), "FileHash": digest, "FileReference": on.marks.make("par.FileReference")}}  # fmt: skip


async def patch_payments(on: Traveller) -> None:
    """Let the bank speak of payments that it has made."""
    make = on.marks.make
    ids = on.setting.payment_ids() - on.setting.patched
    on.setting.look()  # what a patch replaces stays in the write-ahead log for a while
    for payment_id in ids:
        on.setting.patched.add(payment_id)
        good = {
            "paymentResponse.status": "Rejected",
            "paymentResponse.paymentTransactionId": make("payment-log.paymentTransactionId"),
            "paymentResponse.rejectReasonCode": [
                {"code": make("payment-log.code", "AANI.Canary{n}x"), "message": make("payment-log.message")}
            ],
        }  # fmt: skip
        wrong = on.marks.spread(good, "bad payment-log")
        await on.call_as_bank("PATCH", f"/payment-log/{payment_id}", json=wrong)
        await on.call_as_bank("PATCH", f"/payment-log/{payment_id}", json=good)


async def refuse_as_customer(on: Traveller) -> None:
    """End an interaction with what the bank says of it, and take a consent back in a customer's name."""
    scope = "accounts openid"
    pushed = await on.push(on.account_detail(), scope)
    begun = await on.begin(pushed, scope)
    form = {
        "error": "access_denied",
        "error_description": on.marks.make("doFail.error_description"),
    }
    failed = await on.call_as_bank("POST", f"/auth/{begun}/doFail", data=form)
    assert failed.status_code == 303
    wrong = {"error": on.marks.make("doFail.error"), "error_description": on.marks.make("doFail")}
    await on.call_as_bank("POST", f"/auth/{on.marks.make('path.interactionId')}/doFail", data=wrong)


async def take_back(on: Traveller, consent_id: str) -> None:
    """Revoke a consent in the name of a customer."""
    user = {"userId": on.marks.make("revoke.userId")}
    body = {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": user}
    done = await on.call_as_bank("POST", f"/consents/{consent_id}/action/revoke", json=body)
    assert done.status_code == 204, done.text


async def one_round(on: Traveller) -> None:
    """Send bodies of every kind."""
    token, account, consent_id = await take_accounts(on)
    await push_wrongly(on)
    await read_everything(on, token, account)
    await patch_wrongly(on, consent_id)
    await paid(on)
    await paid(on, silent=True)
    await paid(on, path="/file-payments", control=file_control(on))
    await patch_payments(on)
    await refuse_as_customer(on)
    await take_back(on, consent_id)


async def travel(setting: Setting, bodies: int) -> None:
    """Send rounds until so many bodies have gone through."""
    sandbox = setting.sandbox
    manifest = sandbox.manifest
    certificate, key = reissued(sandbox)[0]
    ca = sandbox.folder / manifest.ca_bundle
    own = client_context(ca, sandbox.folder / manifest.bank.transport_cert, sandbox.folder / manifest.bank.transport_key)  # fmt: skip
    async with actor(sandbox) as acting:
        keys = await bank_keys(acting)
    async with trio.open_nursery() as nursery:
        tls = server_context(certificate, key, ca, "required")

        async def site(*, task_status):
            await serve_site(
                setting.bank, host="127.0.0.1", port=setting.bank_port, tls=tls, task_status=task_status
            )  # fmt: skip

        await nursery.start(site)
        async with (
            newcomer(sandbox, manifest.tpps[0], setting.base) as tpp,
            httpx.AsyncClient(verify=own, trust_env=False, timeout=15) as bank,
        ):
            while setting.bodies + setting.bank.bodies < bodies:
                await one_round(await Traveller(setting, tpp, keys, bank).start())
                setting.look()
        nursery.cancel_scope.cancel()


def listed(table: str) -> list[dict[str, str]]:
    return tomllib.loads((CONTRACT / "retained.toml").read_text())[table]


def covers(row: dict[str, str], field: str) -> bool:
    """Tell whether a row of the list is about a field; ``.*`` is about all that is below."""
    name = row["field"]
    return field == name or (name.endswith(".*") and field.startswith(name[:-1]))


def check(setting: Setting) -> None:
    """Hold what was found against the list, both ways."""
    kept = {field: numbers for field, numbers in setting.kept.items() if numbers}
    rows = listed("kept")
    assert {f for f in kept if not any(covers(row, f) for row in rows)} == set(), "not listed"
    open_rows = [row for row in rows if not row.get("sealed")]
    idle = {row["field"] for row in open_rows if not any(covers(row, f) for f in kept)}
    assert idle == set(), "listed, and nobody keeps it"
    for row in rows:
        if row.get("sealed"):
            assert setting.kept[row["field"]] == set(), "sealed, and a mark is in the clear"
    strange = {f for numbers in kept.values() for f in setting.fields(numbers) & NEVER}
    assert strange == set()
    told = set().union(*map(setting.fields, setting.told.values()))
    rows = listed("told")
    assert {f for f in told if not any(covers(row, f) for row in rows)} == set(), "told, not listed"
    assert {row["field"] for row in rows if not any(covers(row, f) for f in told)} == set()
    assert setting.elsewhere() == {}


def test_marks_of_a_hundred_bodies_are_kept_where_the_list_says_and_nowhere_else(setting):
    trio.run(travel, setting, 100)
    assert len(setting.marks.fields) > 1_000
    check(setting)


def test_no_process_of_the_hub_may_dump_core(setting):
    pids = [setting.hub.pid, *setting.hub.workers()]
    for pid in pids:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split() for line in lines if line.startswith("Max core file size")]
        assert all(int(octets) <= 1 for octets in core[4:6]), "soft and hard"


def test_lawful_marks_went_all_the_way(setting):
    good = {path.rsplit("/", 1)[-1] for path, status in setting.statuses if 200 <= status < 300}
    wanted = {"accounts", "parties", "balances", "transactions", "statements", "product", "products", "atms", "leads"}  # fmt: skip
    wanted |= {"confirmation", "payments", "file-payments", "file", "par"}
    assert wanted <= good


def test_a_mark_is_found_in_whatever_form_it_is_written():
    marks = Marks()
    for form in ("Canary{n}x", *FORMATS.values(), *PATTERNS.values()):
        text = marks.make("f", form)
        number = len(marks.fields) - 1
        assert numbers_in(text.encode()) == {number}
        for before in range(3):
            encoded = b64encode(b"\0" * before + text.encode() + b"tail")
            assert numbers_in(b"x" + encoded) == {number}, form
            assert numbers_in(encoded.translate(bytes.maketrans(b"+/", b"-_"))) == {number}, form


def test_what_the_list_does_not_name_and_what_nobody_keeps_are_both_told(setting):
    """The check fails on a list that is one row short, and on one that has a row too many."""
    rows = listed("kept")
    kept = [field for field, numbers in setting.kept.items() if numbers]
    for row in rows:
        if not row.get("sealed"):
            rest = [other for other in rows if other is not row]
            assert [f for f in kept if not any(covers(other, f) for other in rest)], row


def test_the_list_names_each_field_once_and_with_its_source():
    for table in ("kept", "told"):
        fields = [row["field"] for row in listed(table)]
        assert len(fields) == len(set(fields))
        assert all(row["source"] for row in listed(table))


@pytest.mark.nightly
def test_marks_of_ten_thousand_bodies_are_kept_where_the_list_says_and_nowhere_else(setting):
    trio.run(travel, setting, 10_000)
    check(setting)
    bodies = setting.bodies + setting.bank.bodies
    counts = {"bodies": bodies, "marks": len(setting.marks.fields)}
    append("canary", counts, [], "kept where retained.toml lists it, and nowhere else")
