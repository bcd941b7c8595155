"""Backups, restores and retention of a whole tenant's folder, through the commands an operator types."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
import trio
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit import verify
from hub.audit.index import FILE, Index
from hub.audit.open import ReadLog, open_log
from hub.cli import main
from hub.config import config_folder
from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.node import retention
from hub.protocol.merkle import leaf_hash
from hub.state.backup import check_backup, copy_state, forget_events
from hub.state.entry import unavailable
from hub.state.open import DATABASE, SqliteKeeper, open_keeper
from hub.state.schema import StoreError
from hub.state.work import Commit
from tests.audit.crash_child import PEM
from tests.state.keepers import NOW, limits

OLD_MS = 1_500_000_000_000


@pytest.fixture
def tenant(tmp_path) -> Path:
    """Write a tenant's configuration whose state is in ``state``; return its path."""
    text = (config_folder() / "hub.production.toml").read_text()
    lines, section = [], ""
    for line in text.splitlines():
        section = line.partition("]")[0] + "]" if line.startswith("[") else section
        if section in {"[state]", "[log]"} or line.startswith("log ="):
            continue
        lines.append(line)
        if line == "[keys]":
            lines.append('log = "log.key"')
    lines += ["[state]", 'folder = "state"', "[log]", "retain = { call = 30 }"]
    path = tmp_path / "hub.toml"
    path.write_text("\n".join(lines).replace('issuer = "', 'issuer = "') + "\n")
    (tmp_path / "log.key").write_bytes(PEM)
    return path


def origin(tenant) -> str:
    from hub.audit.open import origin_of
    from hub.config import load

    return origin_of(load(tenant).settings.tenant.issuer)


def fill(tenant, count, kind=Kind.CALL, pem=PEM):
    async def filled():
        folder = tenant.parent / "state"
        async with open_keeper(folder, clock=FixedClock(NOW), limits=limits()) as keeper:
            start = (await keeper.head()).size
            for at in range(start, start + count):
                event = Event(kind=kind, time_ms=OLD_MS + at, interaction_id=f"i{at}")
                await keeper.commit((), (event,))
            log = open_log(folder, origin=origin(tenant), pem=pem)
            await log.publish(keeper)

    trio.run(filled)


def run(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def keys(folder):
    return [verify.Key.parse(one) for one in ReadLog.read(folder).vkey.split()]


def test_a_backup_is_restored_and_the_log_goes_on(tenant, tmp_path):
    fill(tenant, 300)
    target, state = tmp_path / "backup.db", tmp_path / "state"
    assert run("db", "backup", target, "--config", tenant).exit_code == 0
    assert run("db", "backup", target, "--config", tenant).exit_code == 4, "it exists"
    (state / DATABASE).write_bytes(b"lost")
    done = run("db", "restore", target, "--config", tenant)
    assert done.exit_code == 0, done.output
    fill(tenant, 10)
    assert ReadLog.read(state).verify().size == 310
    assert [one.read_bytes() for one in state.glob(f"{DATABASE}.before-*[0-9]")] == [b"lost"]


def test_a_backup_older_than_the_published_log_is_refused_or_begins_another_log(tenant, tmp_path):
    fill(tenant, 20)
    target, state = tmp_path / "backup.db", tmp_path / "state"
    assert run("db", "backup", target, "--config", tenant).exit_code == 0
    fill(tenant, 5)
    refused = run("db", "restore", target, "--config", tenant)
    assert refused.exit_code == 4
    assert "the published log has 25 events, the backup 20" in refused.output
    same = run("db", "restore", target, "--config", tenant, "--new-log")
    assert same.exit_code == 4
    assert "must sign no other history" in same.output
    assert run("audit", "--config", tenant, "verify").exit_code == 0, "nothing was put back"
    write_key(tmp_path, 9)
    tenant.write_text(tenant.read_text().replace("[log]", '[log]\nretiring = ["old.key"]'))
    assert run("db", "restore", target, "--config", tenant, "--new-log").exit_code == 4
    tenant.write_text(tenant.read_text().replace('retiring = ["old.key"]', ""))
    for turn, name in enumerate(("audit-until-20", "audit-until-20-2")):
        write_key(tmp_path, 9 + turn)
        done = run("db", "restore", target, "--config", tenant, "--new-log")
        assert done.exit_code == 0, done.output
        assert (state / name / "log/checkpoint").exists()
        assert not (state / "audit").exists()
        fill(tenant, 5, pem=(tmp_path / "log.key").read_bytes())


def write_key(folder, seed):
    (folder / "old.key").write_bytes(PEM)
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "log.key").write_bytes(pem)


def test_a_backup_is_restored_where_nothing_was_published_yet(tenant, tmp_path):
    fill(tenant, 20)
    target, state = tmp_path / "backup.db", tmp_path / "state"
    assert run("db", "backup", target, "--config", tenant).exit_code == 0
    shutil.rmtree(state / "audit/log")
    (state / "audit/log").mkdir()
    done = run("db", "restore", target, "--config", tenant)
    assert done.exit_code == 0, done.output


def test_a_backup_of_another_tenant_is_refused_or_begins_another_log(tenant, tmp_path):
    fill(tenant, 20)
    state, other = tmp_path / "state", tmp_path / "other"
    other.mkdir()
    (other / "hub.toml").write_text(tenant.read_text())
    (other / "log.key").write_bytes(PEM)
    fill(other / "hub.toml", 30, Kind.TOKEN)
    target = tmp_path / "backup.db"
    assert run("db", "backup", target, "--config", other / "hub.toml").exit_code == 0
    before = (state / DATABASE).read_bytes()
    refused = run("db", "restore", target, "--config", tenant)
    assert refused.exit_code == 4
    assert "is of another history: its first 20 events are not those" in refused.output
    assert (state / DATABASE).read_bytes() == before
    same_key = run("db", "restore", target, "--config", tenant, "--new-log")
    assert "must sign no other history" in same_key.output
    write_key(tmp_path, 9)
    done = run("db", "restore", target, "--config", tenant, "--new-log")
    assert done.exit_code == 0, done.output
    assert (state / "audit-until-30/log/checkpoint").exists()


def test_a_damaged_backup_is_never_put_back(tenant, tmp_path):
    fill(tenant, 20)
    target, state = tmp_path / "backup.db", tmp_path / "state"
    run("db", "backup", target, "--config", tenant)
    before = (state / DATABASE).read_bytes()
    target.write_bytes(target.read_bytes().replace(b'"i7"', b'"i8"'))
    with pytest.raises(StoreError, match="do not lead to its tree's root"):
        check_backup(target)
    assert run("db", "check", target).exit_code == 1
    assert run("db", "restore", target, "--config", tenant).exit_code == 4
    assert (state / DATABASE).read_bytes() == before


def test_what_is_too_old_is_exported_and_forgotten_everywhere(tenant, tmp_path):
    fill(tenant, 400)
    fill(tenant, 200, Kind.CONSENT)
    state, bundle = tmp_path / "state", tmp_path / "bundle"
    assert run("audit", "--config", tenant, "search", "--limit", "1").exit_code == 0
    done = run("audit", "--config", tenant, "prune", "--export", bundle)
    assert done.exit_code == 0, done.output
    assert "400 event(s) forgotten" in done.output
    report = ReadLog.read(state).verify()
    assert "400 entries were pruned, as declared" in report.remarks
    kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b'"i399"' not in kept
    assert b'"i401"' in kept
    assert check_backup(state / DATABASE).size == report.size
    receipts = sorted(str(path) for path in (bundle / "receipts").iterdir())[:20]
    command = [sys.executable, "-I", str(bundle / "verify.py"), "receipt", *receipts]
    checked = subprocess.run(
        [*command, "--key", str(bundle / "key")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    assert len((bundle / "events.jsonl").read_text().splitlines()) == 400
    fill(tenant, 300)
    assert verify.verify_log(state / "audit/log", keys(state)).size == report.size + 300
    found = run("audit", "--config", tenant, "search", "--interaction", "i401", "--json")
    assert json.loads(found.stdout.splitlines()[0])["index"] == 401
    shutil.rmtree(bundle)
    again = run("audit", "--config", tenant, "prune", "--export", bundle)
    assert again.exit_code == 0, again.output


def test_a_hub_without_rules_of_retention_forgets_nothing(tenant, tmp_path):
    tenant.write_text(tenant.read_text().replace("retain = { call = 30 }", ""))
    fill(tenant, 3)
    done = run("audit", "--config", tenant, "prune", "--export", tmp_path / "bundle")
    assert done.exit_code == 4
    assert "log.retain says of no kind" in done.output
    tenant.write_text(tenant.read_text().replace("[log]", "[log]\nretain = { calls = 3 }"))
    assert (
        "expected kinds of event"
        in run("audit", "--config", tenant, "prune", "--export", "x").output
    )


def test_a_log_whose_newest_entries_were_pruned_is_verified_with_its_database(tenant):
    fill(tenant, 256)
    pruned = run("audit", "--config", tenant, "prune", "--export", tenant.parent / "export")
    assert pruned.exit_code == 0, pruned.output
    verified = run("audit", "--config", tenant, "verify")
    assert verified.exit_code == 0, verified.output
    since = tenant.parent / "since"
    since.write_bytes((tenant.parent / "state/audit/log/checkpoint").read_bytes())
    fill(tenant, 50, Kind.TOKEN)
    verified = run("audit", "--config", tenant, "verify", "--until", since)
    assert verified.exit_code == 0, verified.output
    size = since.read_text().split()[1]
    assert f"{size} entries" in verified.output
    database = apsw.Connection(str(tenant.parent / "state" / DATABASE))
    database.execute("UPDATE event SET leaf = ? WHERE position = 300", (b'{"v":1}',))
    database.close()
    verified = run("audit", "--config", tenant, "verify")
    assert verified.exit_code == 1
    assert "REJECTED the database is not the one" in verified.output


def refusing(monkeypatch, change):
    """Have the keeper take no event of that change, as on a full disk."""
    commit = SqliteKeeper.commit

    async def refused(self, changes, events):
        if any(event.change == change for event in events):
            return unavailable("keeper.disk", "database or disk is full")
        return await commit(self, changes, events)

    monkeypatch.setattr(SqliteKeeper, "commit", refused)


def test_what_could_not_be_declared_is_not_forgotten(tenant, tmp_path, monkeypatch):
    fill(tenant, 400)
    refusing(monkeypatch, "pruned")
    refused = run("audit", "--config", tenant, "prune", "--export", tmp_path / "bundle")
    assert refused.exit_code == 4, refused.output
    assert "nothing was forgotten" in refused.output
    assert "disk is full" in refused.output
    assert verify.verify_log(tmp_path / "state/audit/log", keys(tmp_path / "state")).size == 400


def test_a_reading_that_cannot_be_recorded_shows_nothing(tenant, monkeypatch):
    fill(tenant, 3)
    refusing(monkeypatch, "search")
    refused = run("audit", "--config", tenant, "search")
    assert refused.exit_code == 4, refused.output
    assert "could not be recorded" in refused.output
    assert "i1" not in refused.stdout


def test_what_a_crash_left_of_a_pruning_is_done_by_the_next(tenant, tmp_path, monkeypatch):
    """The entries stand beside what replaced them, as after a power cut; the index has not been told."""
    fill(tenant, 400)
    fill(tenant, 200, Kind.CONSENT)
    state = tmp_path / "state"
    run("audit", "--config", tenant, "search")
    bundle = state / "audit/log/tile/entries/000"
    content = bundle.read_bytes()

    async def killed(_index, _positions):
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Index, "drop", killed)
        assert run("audit", "--config", tenant, "prune", "--export", tmp_path / "a").exit_code == 4
    bundle.write_bytes(content)
    with pytest.raises(verify.RejectedError, match="stands beside"):
        verify.verify_log(state / "audit/log", keys(state))
    again = run("audit", "--config", tenant, "prune", "--export", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert (
        "400 entries were pruned, as declared"
        in verify.verify_log(state / "audit/log", keys(state)).remarks
    )
    index = apsw.Connection(str(state / FILE))
    assert index.execute("SELECT count(*) FROM entry WHERE position < 400").get == 0
    index.close()


def test_a_backup_of_the_moment_before_is_forgotten_by_the_next_pruning(
    tenant, tmp_path, monkeypatch
):
    """It was made when the declaration was durable and nothing forgotten yet: as new as the log, so it may be put back."""
    fill(tenant, 400)
    fill(tenant, 200, Kind.CONSENT)
    state, target = tmp_path / "state", tmp_path / "backup.db"
    act = retention.forget_events

    def copied(folder, hashes):
        copy_state(folder, target)
        act(folder, hashes)

    with monkeypatch.context() as patched:
        patched.setattr(retention, "forget_events", copied)
        done = run("audit", "--config", tenant, "prune", "--export", tmp_path / "a")
        assert done.exit_code == 0, done.output
    done = run("db", "restore", target, "--config", tenant)
    assert done.exit_code == 0, done.output
    for path in state.glob(f"{DATABASE}.before-*"):
        path.unlink()
    assert b'"i399"' in (state / DATABASE).read_bytes()
    again = run("audit", "--config", tenant, "prune", "--export", tmp_path / "b")
    assert again.exit_code == 0, again.output
    kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b'"i399"' not in kept
    assert b'"i401"' in kept
    assert check_backup(state / DATABASE).size == ReadLog.read(state).verify().size
    assert run("audit", "--config", tenant, "verify").exit_code == 0


def test_only_the_very_event_is_forgotten(tenant, tmp_path):
    fill(tenant, 3)
    state = tmp_path / "state"
    before = check_backup(state / DATABASE)
    database = apsw.Connection(str(state / DATABASE))
    first = leaf_hash(database.execute("SELECT leaf FROM event WHERE position = 0").get)
    database.close()
    for position in (1, 3):
        with pytest.raises(StoreError, match=f"event {position} is not the one"):
            forget_events(state, {0: first, position: leaf_hash(b"x")})
    assert check_backup(state / DATABASE) == before


def test_an_interaction_of_more_events_than_are_shown_is_told(tenant, tmp_path):
    """Who calls chooses its name: a thousand calls under one must not hide what came after them."""

    async def filled():
        async with open_keeper(
            tmp_path / "state", clock=FixedClock(NOW), limits=limits()
        ) as keeper:
            for _ in range(2):
                events = [Event(kind=Kind.CALL, time_ms=1, interaction_id="same")] * 500
                await keeper.commit((), events)

    trio.run(filled)
    hidden = "these are the oldest 1000"
    assert hidden in run("audit", "--config", tenant, "trace", "same").stderr
    fill(tenant, 3)
    assert hidden not in run("audit", "--config", tenant, "trace", "i1001").stderr


def test_an_event_of_a_newer_hub_is_one_line_for_whoever_reads_or_prunes(tenant, tmp_path):
    fill(tenant, 300)

    async def upgraded_for_a_while():
        newer = b'{"v":1,"kind":"of-tomorrow","time_ms":1}'
        async with open_keeper(
            tmp_path / "state", clock=FixedClock(NOW), limits=limits()
        ) as keeper:
            await keeper.commit_all([Commit((), (("i9", newer),))])

    trio.run(upgraded_for_a_while)
    fill(tenant, 256)
    for command in (
        ("search",), ("trace", "i9"), ("tail", "--from-index", "300"), ("reindex",), ("export", tmp_path / "all"),
        ("report", "volumes", "--from", "2017-07-01", "--to", "2017-07-31"), ("prune", "--export", tmp_path / "old"),
    ):  # fmt: skip
        done = run("audit", "--config", tenant, *command)
        assert (done.exit_code, "newer Hub" in done.output) == (4, True), (command, done.output)


def test_a_key_of_the_log_that_is_none_is_one_line_at_pruning(tenant, tmp_path):
    fill(tenant, 300)
    (tmp_path / "log.key").write_bytes(b"no PEM")
    done = run("audit", "--config", tenant, "prune", "--export", tmp_path / "old")
    assert (done.exit_code, "keys.log or [log]: " in done.output) == (4, True)
