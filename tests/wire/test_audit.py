"""The audit log over the wire: published, witnessed, read with ``hub audit``, proved offline, reported on."""

import json
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import jsonschema_rs
import pytest
import trio

from hub.audit.note import Checkpoint, Signer
from hub.contract.official import plain_body, read_document
from hub.sandbox.tpp import Ask, Refused, Tokens
from hub.sandbox.witness import NAME, witness_key_of
from tests.waiting import until
from tests.wire.test_operations import SPECS
from tests.wire.world import ROOT, Actor, Sandbox

pytestmark = pytest.mark.wire
REPORTS = "/open-finance/reporting/v2.1/tpp-reports"
ACCOUNTS = "/open-finance/account-information/v2.1/accounts"


def hub(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hub", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def audit(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return hub("audit", "--config", str(sandbox.folder / "hub.toml"), *arguments)


def verifier(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the verifier that lies beside the log, without the Hub's code."""
    beside = sandbox.folder / "state/audit"
    command = [sys.executable, "-I", str(beside / "verify.py"), *arguments]
    return subprocess.run(
        [*command, "--key", str(beside / "key")], capture_output=True, text=True, timeout=60
    )


async def published(sandbox: Sandbox, interaction: str, folder: Path) -> Path:
    """Return the receipt of an interaction once it is published."""

    async def receipt() -> Path | None:
        done = await trio.to_thread.run_sync(
            lambda: audit(sandbox, "receipt", interaction, "--to", str(folder))
        )
        return Path(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    return await until(receipt, 15, f"the receipt of {interaction}")


def checkpoint_of(sandbox: Sandbox) -> str:
    return (sandbox.folder / "state/audit/log/checkpoint").read_text()


def size_of(note: str) -> int:
    return int(note.split("\n")[1])


def committed(sandbox: Sandbox) -> int:
    """Return how many events the log has by now, published or not."""
    with closing(sqlite3.connect(f"file:{sandbox.folder}/state/hub.db?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT size FROM head").fetchone()[0])


async def witnessed(sandbox: Sandbox, fetch: Callable[[], Awaitable[str]] | None = None) -> str:
    """Return a checkpoint that covers all that has happened and bears the witness's signature."""
    wanted = committed(sandbox)

    async def signed() -> str:
        note = await fetch() if fetch else checkpoint_of(sandbox)
        return note if size_of(note) >= wanted and f"\n— {NAME} " in note else ""

    return await until(signed, 15, f"a checkpoint of {wanted} events with the witness's signature")


async def client_token(acting: Actor, scope: str) -> str:
    tokens = await acting.tpp.client_credentials(acting.discovery, scope)
    assert isinstance(tokens, Tokens), tokens
    return tokens.access_token


async def test_each_call_has_a_receipt_that_log_and_witness_vouch_for(sandbox, tpp, tmp_path):
    token = await client_token(tpp, "atm")
    answer = await tpp.tpp.get(
        sandbox.manifest.hub.resource_base + "/open-finance/atm/v2.1/atms", token
    )
    assert answer.status == 200
    receipt = await published(sandbox, answer.headers["x-fapi-interaction-id"], tmp_path)
    witness = ("--witness", str(witness_key_of(sandbox.folder)))
    done = verifier(sandbox, "receipt", str(receipt), *witness)
    assert done.returncode == 0, done.stdout
    assert '"route":"atm.atms"' in done.stdout
    receipt.write_text(receipt.read_text().replace("index ", "index 1"))
    assert verifier(sandbox, "receipt", str(receipt), *witness).returncode == 1


async def test_the_log_is_fetched_without_a_certificate_and_verified_without_us(
    sandbox, tpp, tmp_path
):
    await client_token(tpp, "atm")
    base = f"{sandbox.manifest.hub.issuer}/log"
    context = ssl.create_default_context(cafile=sandbox.folder / sandbox.manifest.ca_bundle)
    async with httpx.AsyncClient(verify=context) as anybody:

        async def fetch() -> str:
            return (await anybody.get(f"{base}/checkpoint")).raise_for_status().text

        note = await witnessed(sandbox, fetch)
        size = size_of(note)
        names = [("tile/entries", size), ("tile/0", size), ("tile/1", size // 256)]
        copied = tmp_path / "copy"
        for row, count in names:
            for at in range(-(-count // 256)):
                width = min(256, count - at * 256)
                name = f"{row}/{at:03}" + ("" if width == 256 else f".p/{width}")
                got = await anybody.get(f"{base}/{name}")
                assert got.status_code == 200, name
                (copied / name).parent.mkdir(parents=True, exist_ok=True)
                (copied / name).write_bytes(got.content)
        (copied / "checkpoint").write_text(note)
        for name in ("../key", "hub.db", "tile/0/999", "..%2fkey"):
            assert (await anybody.get(f"{base}/{name}")).status_code in {400, 404}
        assert (await anybody.post(f"{base}/checkpoint", content=b"")).status_code == 405
    witness = ("--witness", str(witness_key_of(sandbox.folder)))
    done = verifier(sandbox, "log", str(copied), *witness)
    assert done.returncode == 0, done.stdout
    assert f"{size} entries" in done.stdout


async def test_the_trace_of_a_refused_call_names_the_check_that_the_tpp_was_told(sandbox, tpp):
    refused = await tpp.tpp.client_credentials(tpp.discovery, "no-such-scope")
    assert isinstance(refused, Refused)
    told = refused.line
    found = audit(
        sandbox, "search", "--route", "token", "--verdict", "refused", "--json", "--limit", "1"
    )
    event = json.loads(found.stdout.splitlines()[0])
    done = audit(sandbox, "trace", event["interaction_id"])
    assert done.returncode == 0
    assert f"by the check {event['check']}" in done.stdout
    assert len(done.stdout.splitlines()) <= 24, "one screen"
    explained = hub("explain", event["check"]).stdout
    assert explained.splitlines()[0] in done.stdout
    assert event["code"] in told


async def test_a_refused_resource_call_is_traced_to_its_check(sandbox, tpp):
    url = sandbox.manifest.hub.resource_base + ACCOUNTS
    answer = await tpp.tpp.get(url, "not-a-token")
    assert answer.status == 401
    done = audit(sandbox, "trace", answer.headers["x-fapi-interaction-id"])
    assert "bank         not asked" in done.stdout
    assert "by the check token." in done.stdout
    told = answer.headers["www-authenticate"].partition("/errors/")[2].rstrip('"')
    assert f"by the check {told}" in done.stdout
    assert hub("explain", told).stdout.splitlines()[0] in done.stdout
    page = await tpp.tpp.wire.carry(
        Ask(method="GET", url=f"{sandbox.manifest.hub.issuer}/errors/{told}")
    )
    assert page.body.decode().splitlines()[0] in done.stdout
    assert len(done.stdout.splitlines()) <= 24


async def test_every_reading_of_the_log_is_an_event_before_it_is_shown(sandbox):
    assert audit(sandbox, "search", "--customer", "nobody-in-particular").returncode == 1
    done = audit(sandbox, "search", "--route", "admin.audit", "--json", "--limit", "2")
    mine, before = (json.loads(line) for line in done.stdout.splitlines())
    assert (mine["change"], mine["subject"]) == ("search", "route=admin.audit")
    assert before["subject"] == "customer"
    assert "nobody-in-particular" not in done.stdout


async def test_a_running_hubs_log_verifies_and_says_in_what_time(sandbox):
    done = audit(
        sandbox, "verify", "--checkpoint", str(sandbox.folder / "state/audit/log/checkpoint")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything holds (" in done.stdout
    assert "is a beginning of it" in done.stdout


async def test_an_export_for_the_regulator_verifies_offline(sandbox, tpp, tmp_path):
    await client_token(tpp, "products")
    client = sandbox.manifest.tpps[0].client_id
    await witnessed(sandbox)
    done = audit(sandbox, "export", str(tmp_path / "bundle"), "--tpp", client)
    assert done.returncode == 0, done.stderr
    receipts = sorted(str(path) for path in (tmp_path / "bundle/receipts").iterdir())
    bundle = tmp_path / "bundle"
    command = [sys.executable, "-I", str(bundle / "verify.py"), "receipt", *receipts]
    checked = subprocess.run(
        [*command, "--key", str(bundle / "key")], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0
    assert checked.stdout.count("is in the log") == len(receipts) >= 1
    events = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()]
    assert {event["client_id"] for event in events} == {client}


@pytest.mark.specs
async def test_a_tpp_gets_reports_of_its_own_calls_in_the_official_shape(sandbox, tpp, other_tpp):
    token = await client_token(tpp, "tpp-reports")
    atm = await client_token(tpp, "atm")
    base = sandbox.manifest.hub.resource_base
    assert (await tpp.tpp.get(f"{base}/open-finance/atm/v2.1/atms", atm)).status == 200
    today = datetime.now(timezone(timedelta(hours=4))).date().isoformat()
    asked = {"ReportingPeriodStartDate": today, "ReportingPeriodEndDate": today}
    answer = await tpp.tpp.get(base + REPORTS, token, asked)
    assert answer.status == 200, answer.body
    rows = answer.json()["Data"]
    types = {row["Type"] for row in rows}
    assert types == {
        "API Call Volume",
        "LFI Availability",
        "OFP Availability",
        "LFI Performance",
        "OFP Performance",
    }
    path = SPECS / "dist/api-hub/v2.1.x/uae-api-hub-tpp-reports-openapi.yaml"
    operation = read_document(path).operations["GET", "/tpp-reports"]
    validator = jsonschema_rs.Draft7Validator(plain_body(operation, "200"), validate_formats=True)
    assert [error.message for error in validator.iter_errors(answer.json())] == []
    mine = [
        row for row in rows if row["Type"] == "API Call Volume" and row["Url"].endswith("/atms")
    ]
    assert sum(row["TotalCalls"] for row in mine) >= 1
    theirs = await client_token(other_tpp, "tpp-reports")
    got = await other_tpp.tpp.get(
        base + REPORTS, theirs, {**asked, "ReportType": "API Call Volume"}
    )
    assert got.status == 200
    assert {row["Type"] for row in got.json()["Data"]} <= {"API Call Volume"}
    assert not [row for row in got.json()["Data"] if row["Url"].endswith("/atms")]


async def test_reports_of_impossible_periods_are_refused(sandbox, tpp):
    token = await client_token(tpp, "tpp-reports")
    url = sandbox.manifest.hub.resource_base + REPORTS
    for first, last in (
        ("2026-02-02", "2026-02-01"),
        ("2020-01-01", "2026-01-01"),
        ("x", "2026-01-01"),
    ):
        asked = {"ReportingPeriodStartDate": first, "ReportingPeriodEndDate": last}
        assert (await tpp.tpp.get(url, token, asked)).status == 400
    assert (await tpp.tpp.get(url, token)).status == 400
    other = await client_token(tpp, "atm")
    asked = {"ReportingPeriodStartDate": "2026-01-01", "ReportingPeriodEndDate": "2026-01-01"}
    assert (await tpp.tpp.get(url, other, asked)).status == 403


async def test_a_running_hub_is_backed_up_and_the_backup_checked(sandbox, tmp_path):
    target = tmp_path / "backup.db"
    done = hub("db", "backup", str(target), "--config", str(sandbox.folder / "hub.toml"))
    assert done.returncode == 0, done.stderr
    assert hub("db", "check", str(target)).returncode == 0
    refused = hub("db", "restore", str(target), "--config", str(sandbox.folder / "hub.toml"))
    assert refused.returncode == 4
    assert "another process has this state open" in refused.stderr
    target.write_bytes(target.read_bytes().replace(b'"kind":"node"', b'"kind":"nodf"'))
    assert hub("db", "check", str(target)).returncode == 1


async def test_readiness_includes_the_log(sandbox):
    async with httpx.AsyncClient() as ops:
        answer = await ops.get(f"{sandbox.manifest.hub.ops_base}/readyz")
    assert answer.json()["log"] is True


async def test_the_banks_reports_come_as_csv_and_json(sandbox, tpp):
    await client_token(tpp, "atm")
    today = datetime.now(timezone(timedelta(hours=4))).date().isoformat()
    days = ("--from", today, "--to", today)
    done = audit(sandbox, "report", "performance", *days)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.startswith("day,organisation,route,group,calls,errorPercent,hubP50,hubP95,hubP99")
    assert any(",token,2xx," in row for row in rows)
    asked = json.loads(audit(sandbox, "report", "availability", *days, "--format", "json").stdout)
    assert {row["party"] for row in asked} == {"bank", "hub"}
    assert all(row["availabilityPercent"] <= 100 for row in asked)
    for name in ("errors", "volumes", "tpps", "outages", "payments", "consents"):
        assert audit(sandbox, "report", name, *days, "--format", "json").returncode == 0
    assert audit(sandbox, "report", "errors", "--from", "x", "--to", today).returncode == 2


async def test_starts_keys_certificates_and_operators_are_in_the_log(sandbox):
    """Every event of every face: what is not a call is there too."""
    assert hub("admin", "--config", str(sandbox.folder / "hub.toml"), "reload").returncode == 0
    wanted = {
        ("node", "started"),
        ("configuration", "start"),
        ("key", "log-key"),
        ("key", "certificate_read"),
        ("registration", "registered"),
        ("admin", "search"),
    }

    def found() -> list[dict]:
        done = audit(sandbox, "search", "--json", "--limit", "2000")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        wanted.difference_update((event["kind"], event.get("change")) for event in events)
        return [] if wanted else events

    events = await until(found, 10, "each of the events", seen=lambda: wanted)
    routes = {event.get("route") for event in events}
    assert "admin.reload" in routes
    assert all(event["time_ms"] > 0 for event in events)


async def test_a_second_history_is_refused_by_the_sandboxs_witness(sandbox, tpp):
    """A split view: the log's own key signs another tree; the witness has seen the first one."""
    await client_token(tpp, "atm")
    folder = sandbox.folder
    note = await witnessed(sandbox)
    origin, size = note.splitlines()[0], size_of(note)
    signer = Signer.load(origin, (folder / "keys/hub/log.key").read_bytes())
    context = ssl.create_default_context(cafile=folder / sandbox.manifest.ca_bundle)
    url = f"https://localhost:{sandbox.base + 13}/add-checkpoint"
    remembered = folder / "keys/witness/latest.json"

    async def lie(more: int) -> int:
        """Ask for a signature under a tree of our own; the log may have grown meanwhile, then once more."""
        for _ in range(5):
            latest = json.loads(remembered.read_text())[origin]["size"]
            assert latest >= size
            forged = signer.sign(Checkpoint(origin, latest + more, b"\x05" * 32).text())
            body = f"old {latest}\n\n{forged}".encode()
            answer = await anybody.post(url, content=body)
            assert "—" not in answer.text
            if answer.status_code != 409:
                break
        return answer.status_code

    async with httpx.AsyncClient(verify=context) as anybody:
        assert await lie(0) == 409
        assert await lie(1) == 422
        stranger = note.replace(origin, "nobody.example/log", 1)
        assert (await anybody.post(url, content=f"old 0\n\n{stranger}")).status_code == 404
        assert (await anybody.post(url, content=b"x")).status_code == 400
