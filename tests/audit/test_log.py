"""Publishing: tiles, checkpoints, receipts; and that any change in a copied log is found."""

import random
import shutil
import subprocess
import sys

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit import verify
from hub.audit.log import CHECKPOINT, Log
from hub.audit.note import COSIGNATURE, Signer
from hub.audit.open import ReadLog, open_log, origin_of
from hub.audit.publish import publish_forever
from hub.audit.receipt import export, receipts, verifier_source
from hub.audit.search import Selection, search, tail
from hub.audit.source import LogFailedError
from hub.audit.tiles import LogError, bundle_of, tile_path
from hub.model.event import Event, Kind
from hub.model.failpoint import Point
from hub.protocol.merkle import Frontier, leaf_hash
from hub.state.keeper import TreeHead
from hub.state.memory import MemoryKeeper
from hub.state.open import open_keeper, open_reader
from tests.state.keepers import limits
from tests.waiting import virtual

NOW = 1_800_000_000


async def append(keeper, count, **more):
    head = await keeper.head()
    events = [
        Event(kind=Kind.CALL, time_ms=NOW * 1000 + at, interaction_id=f"i{at}", **more)
        for at in range(head.size, head.size + count)
    ]
    await keeper.commit([], events)


def key_of(log):
    return [verify.Key.parse(log.vkey)]


@pytest.fixture
async def log(tmp_path, signer):
    return Log(tmp_path / "log", signer)


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (1, 5, 17, "tile/1/005.p/17"),
        (None, 1234067, 256, "tile/entries/x001/x234/067"),
        (None, 1000, 1, "tile/entries/x001/000.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(level, index, width, path):
    assert tile_path(level, index, width) == path


async def test_a_log_is_verified_after_each_publication(log, keeper):
    sizes = [1, 1, 3, 200, 50, 1, 1, 255, 256, 700]
    kept = []
    for count in sizes:
        await append(keeper, count)
        assert await log.publish(keeper)
        report = verify.verify_log(log.folder, key_of(log), older=kept)
        head = await keeper.head()
        assert (report.size, report.root) == (head.size, head.root)
        kept.append((f"at {head.size}", log.note.encode()))
    assert report.remarks == []
    assert not await log.publish(keeper)


async def test_an_empty_log_has_a_checkpoint(log, keeper):
    await log.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 0
    assert not await log.publish(keeper)


async def test_a_tree_of_three_levels_of_tiles_verifies(log, signer):
    """70,000 entries: 273 full tiles and one of 112, one full tile and one of 17, one of 1."""
    keeper = Many(70_000)
    await log.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 70_000
    for path in ("tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"):
        assert (log.folder / path).exists()
    again = Log(log.folder, signer)
    keeper.grow(70_300)
    await again.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 70_300


class Many:
    """A keeper of many events that are made when they are asked for."""

    def __init__(self, size):
        self._frontier = Frontier()
        self.grow(size)

    def grow(self, size):
        for at in range(self._frontier.size, size):
            self._frontier.append(leaf_hash(self._leaf(at)))

    def _leaf(self, at):
        return b'{"v":1,"kind":"call","time_ms":%d}' % at

    async def head(self):
        return TreeHead(self._frontier.size, self._frontier.root())

    async def events(self, start, limit):
        return tuple(self._leaf(at) for at in range(start, start + limit))


async def test_publication_goes_on_after_a_restart(log, keeper, signer):
    await append(keeper, 300)
    await log.publish(keeper)
    first = log.note.encode()
    again = Log(log.folder, signer)
    assert again.size == 300
    await append(keeper, 300)
    await again.publish(keeper)
    report = verify.verify_log(log.folder, key_of(log), older=[("first", first)])
    assert report.size == 600


async def test_full_tiles_replace_their_partial_ones(log, keeper):
    await append(keeper, 100)
    await log.publish(keeper)
    await append(keeper, 200)
    await log.publish(keeper)
    assert not (log.folder / "tile/0/000.p").exists()
    assert not (log.folder / "tile/entries/000.p").exists()
    assert (log.folder / "tile/0/001.p/44").exists()


class CrashError(Exception):
    pass


@pytest.mark.parametrize("point", [Point.BEFORE_CHECKPOINT, Point.AFTER_CHECKPOINT])
async def test_a_crash_around_signing_is_overcome(tmp_path, keeper, signer, point):
    def crash(reached):
        if reached is point:
            raise CrashError

    await append(keeper, 300)
    await Log(tmp_path / "log", signer).publish(keeper)
    await append(keeper, 300)
    with pytest.raises(CrashError):
        await Log(tmp_path / "log", signer, failpoint=crash).publish(keeper)
    await append(keeper, 300)
    log = Log(tmp_path / "log", signer)
    assert log.size == (300 if point is Point.BEFORE_CHECKPOINT else 600)
    await log.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 900


async def test_a_crash_in_the_middle_of_a_file_leaves_nothing_in_the_log(
    log, keeper, signer, monkeypatch
):
    await append(keeper, 300)
    await log.publish(keeper)
    await append(keeper, 300)

    def crash(_descriptor):
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr("hub.audit.tiles.os.fsync", crash)
        with pytest.raises(CrashError):
            await log.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 300
    await Log(log.folder, signer).publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 600


async def test_a_log_ahead_of_its_keeper_is_never_signed_again(log, keeper, clock):
    await append(keeper, 5)
    await log.publish(keeper)
    with pytest.raises(LogError, match="will not be signed"):
        await log.publish(MemoryKeeper(clock=clock))


async def test_a_keeper_with_another_history_is_never_signed(log, keeper, clock):
    """The newest bundle is the same; it differs in its first event."""
    await append(keeper, 260)
    await log.publish(keeper)
    before = (log.folder / CHECKPOINT).read_bytes()
    other = MemoryKeeper(clock=clock)
    await append(other, 1, route="other")
    await append(other, 270)
    with pytest.raises(LogError, match="root that was committed"):
        await log.publish(other)
    assert (log.folder / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("what", ["entries", "0/000"])
async def test_a_bit_that_flips_before_signing_is_found(log, keeper, monkeypatch, what):
    await append(keeper, 5)
    real = log.tiles._add

    def flip(path, data):
        real(path, data[:-1] + bytes([data[-1] ^ (what in path)]))

    monkeypatch.setattr(log.tiles, "_add", flip)
    with pytest.raises(LogError, match="entry 4 does not fit its hash"):
        await log.publish(keeper)
    assert not (log.folder / CHECKPOINT).exists()


@pytest.mark.parametrize("name", ["tile/0/000.p/5", "tile/entries/000.p/5"])
async def test_a_damaged_tail_is_never_built_upon(log, keeper, signer, name):
    await append(keeper, 5)
    await log.publish(keeper)
    file = log.folder / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    await append(keeper, 5)
    with pytest.raises(LogError):
        await Log(log.folder, signer).publish(keeper)


@pytest.mark.parametrize("older", [1, 255, 300, 511])
async def test_a_log_that_was_copied_while_it_was_written_goes_on(log, keeper, signer, older):
    await append(keeper, older)
    await log.publish(keeper)
    checkpoint = (log.folder / CHECKPOINT).read_bytes()
    await append(keeper, 700 - older)
    await log.publish(keeper)
    (log.folder / CHECKPOINT).write_bytes(checkpoint)
    copied = Log(log.folder, signer)
    assert copied.size == older
    assert await copied.publish(keeper)
    assert verify.verify_log(log.folder, key_of(log)).size == 700


async def test_a_log_of_another_key_is_refused(log, keeper):
    await append(keeper, 5)
    await log.publish(keeper)
    with pytest.raises(LogError, match="no trusted key"):
        Log(log.folder, Signer("other.example", log._signer._key))


# Receipts


async def receipts_now(log, keeper, interaction_id):
    await log.publish(keeper)
    return await receipts(log, keeper, interaction_id)


async def test_what_is_not_published_yet_has_no_receipt_yet(log, keeper):
    await append(keeper, 3)
    await log.publish(keeper)
    await append(keeper, 1)
    assert len(await receipts(log, keeper, "i2")) == 1
    assert await receipts(log, keeper, "i3") == []


async def test_each_event_of_an_interaction_has_a_receipt_that_verifies(log, keeper):
    await append(keeper, 300)
    await keeper.commit(
        [], [Event(kind=Kind.INTENT, time_ms=1, interaction_id="i7", consent_id="c")]
    )
    found = await receipts_now(log, keeper, "i7")
    results = [verify.verify_receipt(text.encode(), key_of(log)) for text in found]
    assert [index for index, _, _ in results] == [7, 300]
    assert b'"consent_id":"c"' in results[1][1]
    assert await receipts_now(log, keeper, "nobody") == []


async def test_every_entry_of_a_log_has_a_receipt(log, keeper):
    await append(keeper, 600)
    for at in (0, 1, 255, 256, 511, 512, 598, 599):
        (text,) = await receipts_now(log, keeper, f"i{at}")
        index, _, checkpoint = verify.verify_receipt(text.encode(), key_of(log))
        assert (index, checkpoint.size) == (at, 600)


async def test_a_changed_receipt_is_refused(log, keeper):
    await append(keeper, 300)
    (text,) = await receipts_now(log, keeper, "i7")
    key, good = key_of(log), text.encode()
    dice = random.Random(1)
    for _ in range(400):
        at, bit = dice.randrange(len(good)), 1 << dice.randrange(8)
        bad = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
        with pytest.raises(verify.RejectedError):
            verify.verify_receipt(bad, key)


async def test_an_export_is_verified_without_us(log, keeper, tmp_path):
    await append(keeper, 30)
    await append(keeper, 3, consent_id="c1")
    target = tmp_path / "export"
    await log.publish(keeper)
    assert await export(log, keeper, Selection(consent_id="c1"), target) == 3
    files = sorted(str(file) for file in (target / "receipts").iterdir())
    command = [sys.executable, "-I", str(target / "verify.py"), "receipt", *files]
    done = subprocess.run(
        [*command, "--key", str(target / "key")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is in the log") == 3
    assert len((target / "events.jsonl").read_text().splitlines()) == 3


async def test_a_search_gives_the_newest_first_in_pages(keeper):
    for route, count in (("a", 1500), ("b", 3), ("a", 2)):
        await append(keeper, count, route=route)
    newest = await search(keeper, Selection(route="a"), limit=3)
    assert [index for index, _ in newest] == [1504, 1503, 1499]
    more = await search(keeper, Selection(route="a"), limit=2, before=1499)
    assert [index for index, _ in more] == [1498, 1497]
    assert [index for index, _ in await search(keeper, Selection(route="b"))] == [1502, 1501, 1500]
    assert await search(keeper, Selection(route="c")) == []
    assert len(await search(keeper, Selection(), limit=2000)) == 1505


async def test_a_search_by_interaction_uses_the_rest_of_the_selection_too(keeper):
    for route in ("a", "b", "a"):
        await keeper.commit(
            [], [Event(kind=Kind.CALL, time_ms=5, interaction_id="x", route=route, status=403)]
        )
    both = Selection(interaction_id="x", route="a")
    assert [index for index, _ in await search(keeper, both)] == [2, 0]
    assert await search(keeper, Selection(interaction_id="x", status=200)) == []
    assert await search(keeper, Selection(interaction_id="x", start_ms=6)) == []
    assert len(await search(keeper, Selection(status=403, end_ms=6, verdict="allowed"))) == 3


async def test_the_tail_gives_events_as_they_come(keeper, autojump_clock):
    await append(keeper, 2)
    seen = []

    async def watch() -> None:
        async for index, event in tail(keeper):
            seen.append((index, event.interaction_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await virtual(1)
        await append(keeper, 2)
        await virtual(1)
        nursery.cancel_scope.cancel()
    assert seen == [(2, "i2"), (3, "i3")]


# Another process


async def test_another_process_reads_verifies_and_proves_while_the_keeper_runs(
    tmp_path, clock, signer
):
    pem = signer._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    origin = origin_of("https://hub.example/bank")
    async with open_keeper(tmp_path, clock=clock, limits=limits()) as keeper:
        log = open_log(tmp_path, origin=origin, pem=pem)
        await append(keeper, 300)
        await log.publish(keeper)
        await append(keeper, 10)
        published = ReadLog.read(tmp_path)
        with open_reader(tmp_path) as reader:
            assert await reader.head() == await keeper.head()
            (text,) = await receipts(published, reader, "i7")
        assert published.verify().size == 300
    assert verify.verify_receipt(text.encode(), key_of(log))[0] == 7
    assert origin == "hub.example/bank/log"
    assert (tmp_path / "audit" / "verify.py").read_bytes() == verifier_source()
    command = [sys.executable, "-I", "verify.py", "log", "log", "--key", "key"]
    folder = tmp_path / "audit"
    assert subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL).returncode == 0


def test_a_folder_without_a_log_says_so(tmp_path):
    with pytest.raises(LogError, match="no published log"):
        ReadLog.read(tmp_path)


# The stand-alone verifier


async def test_the_verifier_stands_alone(log, keeper, tmp_path):
    await append(keeper, 300)
    await log.publish(keeper)
    file = tmp_path / "verify.py"
    file.write_bytes(verifier_source())
    command = [sys.executable, "-I", str(file), "log", str(log.folder), "--key", log.vkey]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.count("everything holds")) == (0, 1)
    (log.folder / "tile/0/000").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "REJECTED tile/0/000: is missing\n")


def test_the_verifier_shares_no_code_with_the_hub():
    assert b"import hub" not in verifier_source()
    assert b"from hub" not in verifier_source()
    assert verifier_source().count(b"\n") <= 500


async def test_a_witness_that_must_have_signed_must_have_signed(log, keeper, signer):
    witness = Signer("witness.example/w", signer._key, COSIGNATURE)
    key = verify.Key.parse(witness.verifier.vkey())
    await append(keeper, 3)
    await log.publish(keeper)
    with pytest.raises(verify.RejectedError, match="not signed by witness"):
        verify.verify_log(log.folder, key_of(log), witnesses=[key])
    (log.folder / CHECKPOINT).write_text(witness.cosign(log.note, NOW))
    assert verify.verify_log(log.folder, key_of(log), witnesses=[key]).size == 3


async def test_newest_entries_that_were_cut_off_are_missed_with_a_later_checkpoint(
    log, keeper, tmp_path, signer
):
    await append(keeper, 300)
    await log.publish(keeper)
    shutil.copytree(log.folder, tmp_path / "older")
    await append(keeper, 10)
    await log.publish(keeper)
    kept = [("kept", log.note.encode())]
    assert verify.verify_log(tmp_path / "older", key_of(log)).size == 300
    with pytest.raises(verify.RejectedError, match="kept had 310"):
        verify.verify_log(tmp_path / "older", key_of(log), older=kept)


async def test_a_log_that_was_rewritten_and_signed_again_is_found_by_a_kept_checkpoint(
    log, keeper, tmp_path, signer, clock
):
    await append(keeper, 30)
    await log.publish(keeper)
    kept = [("kept", log.note.encode())]
    other = MemoryKeeper(clock=clock)
    await append(other, 40, route="rewritten")
    rewritten = Log(tmp_path / "rewritten", signer)
    await rewritten.publish(other)
    assert verify.verify_log(rewritten.folder, key_of(log)).size == 40
    with pytest.raises(verify.RejectedError, match="kept: the first 30"):
        verify.verify_log(rewritten.folder, key_of(log), older=kept)


async def test_swapped_entries_are_found(log, keeper):
    await append(keeper, 5)
    await log.publish(keeper)
    leaves = list(await keeper.events(0, 5))
    leaves[1], leaves[2] = leaves[2], leaves[1]
    (log.folder / "tile/entries/000.p/5").write_bytes(bundle_of(leaves))
    with pytest.raises(verify.RejectedError, match="hash 1 does not fit the entries from 1 on"):
        verify.verify_log(log.folder, key_of(log))


# Keeping up


class Notes:
    def __init__(self):
        self.notes = []
        self.three = trio.Event()

    def note(self, name, **_fields):
        self.notes.append(name)

    def gauge(self, _name, _help, value):
        if value == 3:
            self.three.set()


async def test_a_full_disk_is_waited_out(log, keeper, monkeypatch):
    notes, real = Notes(), log.tiles.replace
    await append(keeper, 3)

    def full(_path, _data):
        monkeypatch.setattr(log.tiles, "replace", real)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.tiles, "replace", full)
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: publish_forever(log, keeper, notes, every_s=0.01))
            await notes.three.wait()
            nursery.cancel_scope.cancel()
    assert notes.notes == ["audit_log_waiting"]
    assert verify.verify_log(log.folder, key_of(log)).size == 3


async def test_a_broken_disk_ends_the_process(log, keeper, monkeypatch):
    def broken(_path, _data):
        raise OSError(5, "Input/output error")

    await append(keeper, 3)
    monkeypatch.setattr(log.tiles, "replace", broken)
    with pytest.raises(LogFailedError):
        await publish_forever(log, keeper, Notes())


async def test_a_log_that_does_not_fit_is_left_alone_for_good(log, keeper, clock):
    await append(keeper, 3)
    await log.publish(keeper)
    notes = Notes()
    await publish_forever(log, MemoryKeeper(clock=clock), notes)
    assert notes.notes == ["audit_log_refused"]
