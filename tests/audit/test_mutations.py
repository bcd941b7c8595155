"""Any change in a copied log is found, by ``hub audit verify``'s verifier and by the file that stands alone."""

import itertools
import random
import shutil
import subprocess
import sys
from base64 import b64encode

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


def spoil(root, dice) -> tuple[str, str]:
    """Change one thing in a copied log; return what, and the file."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    file, what = dice.choice(files), dice.choice(KINDS)
    name = file.relative_to(root).as_posix()
    if what == "remove" and is_replaced(file):
        return "", name
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
            return what, name
        case "rename":
            file.rename(file.with_name(file.name + "1"))
            return what, name
        case "cut":
            bad = good[: len(good) // 2]
        case _:
            file.with_name(file.name + ".extra").write_bytes(good)
            return what, f"{name}.extra"
    if bad == good:
        return "", name
    file.write_bytes(bad)
    return f"{what} at {at}", name


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


class Alone:
    """The file that stands alone, in an interpreter that cannot see the Hub, asked again and again."""

    _LOOP = (
        "import sys; sys.path.insert(0, sys.argv[1]); import verify\n"
        "for line in sys.stdin:\n"
        "    print(verify.main(line.split()), flush=True)\n"
    )

    def __init__(self, folder, *options):
        folder.mkdir()
        (folder / "verify.py").write_bytes(verifier_source())
        self._options = options
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", self._LOOP, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(10) == 0

    def judged(self, root) -> str:
        """Return what it says is wrong; empty where everything holds."""
        self._process.stdin.write(" ".join(["log", str(root), *self._options]) + "\n")
        self._process.stdin.flush()
        said, ended = self._process.stdout.readline(), ""
        while not ended.isdigit():
            ended = self._process.stdout.readline().strip()
        assert said.startswith("REJECTED ") == (ended == "1")
        return said.removeprefix("REJECTED ").strip() if ended == "1" else ""


def is_there(said: str, changed: str) -> bool:
    """Tell whether a verdict names the place of a change: the file, or the row that must fit it."""
    named = said.partition(": ")[0].partition(".p/")[0]
    place = changed.partition(".p/")[0]
    row = place.replace("tile/entries/", "tile/0/").replace("tile/kept/", "tile/0/")
    return (named in {place, row, f"{place}1"} or said.endswith(f"does not fit {changed}")) or (
        place.startswith("tile/kept/") and named.startswith(("entry ", "tile/entries/"))
    )


def mutate(whole, tmp_path, seed, count) -> int:
    """Make that many copies with one change each; return how many were changed: all are found, and where, by both."""
    log, vkey = whole
    keys, witness = [verify.Key.parse(log.vkey)], [verify.Key.parse(vkey)]
    dice, copied, changed = random.Random(seed), tmp_path / "copied", 0
    assert judged(log.folder, keys, witness) == ""
    with Alone(tmp_path / "alone", "--key", log.vkey, "--witness", vkey) as alone:
        assert alone.judged(log.folder) == ""
        for _ in range(count):
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(log.folder, copied)
            what, name = spoil(copied, dice)
            if not what:
                continue
            changed += 1
            said = judged(copied, keys, witness)
            assert said, f"seed {seed}: not found: {what} {name}"
            assert is_there(said, name), f"seed {seed}: {what} {name}, said {said}"
            assert alone.judged(copied) == said
    return changed


async def test_any_change_in_a_copied_log_is_found(whole, tmp_path):
    assert mutate(whole, tmp_path, 8, 200) > 170


@pytest.mark.nightly
async def test_ten_thousand_changes_are_found(whole, tmp_path):
    changed = mutate(whole, tmp_path, 9, 10_300)
    assert changed >= 10_000
    counts = {
        "changed": changed,
        "found and located by verify": changed,
        "and standing alone": changed,
    }
    record("audit-mutations", counts, [9], "passed")


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
        if not spoil(copied, dice)[0]:
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


async def test_reading_up_to_a_kept_checkpoint_says_nothing_of_what_follows(
    tmp_path, signer, keeper
):
    log, notes = Log(tmp_path / "log", signer), {}
    for size in (0, 1, 255, 256, 300, 511, 512, 700, 900):
        more = [Event(kind=Kind.CALL, time_ms=NOW_MS + at) for at in range(log.size, size)]
        await keeper.commit((), more)
        await log.publish(keeper)
        notes[size] = log.note.encode()
    keys = [verify.Key.parse(log.vkey)]
    for since, until in itertools.combinations_with_replacement(notes, 2):
        for live in (False, True):
            report = verify.verify_log(
                log.folder, keys, since=notes[since], until=notes[until], live=live
            )
            assert (report.size, report.remarks) == (until, [])
    for name, first_seen in (("tile/entries/000", 1), ("tile/entries/001", 300)):
        file = log.folder / name
        good = file.read_bytes()
        file.write_bytes(good.replace(b"call", b"cell", 1))
        for until, note in notes.items():
            if until < first_seen:
                assert verify.verify_log(log.folder, keys, until=note).size == until
            else:
                with pytest.raises(verify.RejectedError, match=f"{name[-3:]}: hash 0"):
                    verify.verify_log(log.folder, keys, until=note)
        file.write_bytes(good)
    with pytest.raises(verify.RejectedError, match="--since: is not between"):
        verify.verify_log(log.folder, keys, since=notes[700], until=notes[300])
    older = [("kept", notes[300])]
    with pytest.raises(verify.RejectedError, match="kept: is not between"):
        verify.verify_log(log.folder, keys, older=older, until=notes[256])


async def test_what_the_last_checkpoint_of_a_reading_signed_is_compared(whole, tmp_path, signer):
    log, _ = whole
    keys = [verify.Key.parse(log.vkey)]
    until = (log.folder / "months/2027-01").read_bytes()
    assert verify.verify_log(log.folder, keys, until=until).size == 255
    other = signer.sign(f"{log.origin}\n255\n{b64encode(bytes(32)).decode()}\n").encode()
    with pytest.raises(verify.RejectedError, match="--until: the first 255 entries are not"):
        verify.verify_log(log.folder, keys, until=other)
    larger = signer.sign(f"{log.origin}\n9999\n{b64encode(bytes(32)).decode()}\n").encode()
    with pytest.raises(verify.RejectedError, match="--until had 9999 entries"):
        verify.verify_log(log.folder, keys, until=larger)
