"""Any change in a copied log is found, by ``hub audit verify``'s verifier and by the file that stands alone."""

import random
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.evidence import append as record
from hub.audit import verify
from hub.audit.log import Log
from hub.audit.months import close_month
from hub.audit.note import COSIGNATURE, Signer
from hub.audit.prune import forget, plan
from hub.audit.receipt import verifier_source
from hub.model.event import Event, Kind

NOW_MS = 1_800_000_000_000
KINDS = ["flip", "insert", "delete", "truncate", "swap", "remove", "add", "rename", "cut"]


@pytest.fixture
async def whole(tmp_path, signer, keeper):
    """A log with everything there is: a closed month, pruned entries, partial tiles, a witness."""
    log = Log(tmp_path / "log", signer)

    async def fill(count, **more):
        for _ in range(count):
            at = (await keeper.head()).size
            event = Event(kind=Kind.CALL, time_ms=NOW_MS + at, interaction_id=f"i{at}", **more)
            await keeper.commit((), (event,))
        await log.publish(keeper)

    await fill(255)
    month = close_month(log, "2027-01", NOW_MS)
    await keeper.commit((), (month,))
    await fill(420, route="account-information.accounts")
    planned = plan(log.tiles, log.size, {"call": 0}, NOW_MS + 100)
    await keeper.commit((), (planned.event(NOW_MS + 700),))
    await fill(100)
    forget(log.tiles, sorted(planned.now))
    witness = Signer("witness.example/w", Ed25519PrivateKey.generate(), COSIGNATURE)
    (log.folder / "checkpoint").write_text(witness.cosign(log.note, NOW_MS // 1000))
    return log, witness.verifier.vkey()


def spoil(root, dice) -> str:
    """Change one thing in a copied log; say what."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    file, what = dice.choice(files), dice.choice(KINDS)
    if what == "remove" and is_replaced(file):
        return ""
    good = file.read_bytes()
    at = dice.randrange(len(good))
    match what:
        case "flip":
            bad = good[:at] + bytes([good[at] ^ (1 << dice.randrange(8))]) + good[at + 1 :]
        case "insert":
            bad = good[:at] + bytes([dice.randrange(256)]) + good[at:]
        case "delete":
            bad = good[:at] + good[at + 1 :]
        case "truncate":
            bad = good[:at]
        case "swap":
            middle = dice.randrange(1, len(good))
            bad = good[middle:] + good[:middle]
        case "remove":
            file.unlink()
            return f"remove {file.name}"
        case "rename":
            file.rename(file.with_name(file.name + "1"))
            return f"rename {file.name}"
        case "cut":
            bad = good[: len(good) // 2]
        case _:
            file.with_name(file.name + ".extra").write_bytes(good)
            return f"add {file.name}"
    if bad == good:
        return ""
    file.write_bytes(bad)
    return f"{what} {file.name} at {at}"


def is_replaced(file) -> bool:
    """Tell whether a wider tile has replaced this one: it may be there still, and need not."""
    beside = [int(other.name) for other in file.parent.iterdir() if other.name.isdigit()]
    return file.parent.suffix == ".p" and int(file.name) < max(beside)


def judged(root, keys, witness) -> str:
    try:
        verify.verify_log(root, keys, witnesses=witness)
    except verify.RejectedError as error:
        return str(error)
    return ""


def mutate(whole, tmp_path, seed, count) -> int:
    """Make that many copies with one change each; return how many were changed, all of them found, each with its place."""
    log, vkey = whole
    keys, witness = [verify.Key.parse(log.vkey)], [verify.Key.parse(vkey)]
    dice, copied, changed = random.Random(seed), tmp_path / "copied", 0
    assert judged(log.folder, keys, witness) == ""
    for _ in range(count):
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(log.folder, copied)
        what = spoil(copied, dice)
        if not what:
            continue
        changed += 1
        said = judged(copied, keys, witness)
        assert said, f"seed {seed}: not found: {what}"
        assert ": " in said, f"no place: {said}"
    return changed


async def test_any_change_in_a_copied_log_is_found(whole, tmp_path):
    assert mutate(whole, tmp_path, 8, 300) > 270


@pytest.mark.nightly
async def test_ten_thousand_changes_are_found(whole, tmp_path):
    changed = mutate(whole, tmp_path, 9, 10_200)
    assert changed >= 10_000
    record("audit-mutations", {"changed": changed, "found": changed}, [9], "passed")


async def test_the_file_that_stands_alone_says_the_same(whole, tmp_path):
    """The same module as a file of its own, in an interpreter that cannot see the Hub."""
    log, vkey = whole
    file = tmp_path / "verify.py"
    file.write_bytes(verifier_source())
    command = [sys.executable, "-I", str(file), "log"]
    options = ["--key", log.vkey, "--witness", vkey]
    done = subprocess.run(
        [*command, str(log.folder), *options], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.count("everything holds")) == (0, 1)
    dice, keys, witness = random.Random(3), [verify.Key.parse(log.vkey)], [verify.Key.parse(vkey)]
    for at in range(8):
        copied = tmp_path / f"copied{at}"
        shutil.copytree(log.folder, copied)
        if not spoil(copied, dice):
            continue
        done = subprocess.run(
            [*command, str(copied), *options], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert done.stdout == f"REJECTED {judged(copied, keys, witness)}\n"


async def test_reading_from_a_kept_checkpoint_on_says_the_same_of_what_follows(whole, tmp_path):
    log, _ = whole
    keys = [verify.Key.parse(log.vkey)]
    since = (log.folder / "months/2027-01").read_bytes()
    assert verify.verify_log(log.folder, keys, since=since).size == log.size
    copied = tmp_path / "copied"
    shutil.copytree(log.folder, copied)
    bundle = copied / "tile/entries/001"
    bundle.write_bytes(bundle.read_bytes().replace(b"accounts", b"accountz", 1))
    with pytest.raises(verify.RejectedError, match="tile/0/001: hash"):
        verify.verify_log(copied, keys, since=since)
