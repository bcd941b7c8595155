"""What the verifier remarks although every hash holds: intents that nobody settled, entries that are no events."""

import pytest

from hub.audit import verify
from hub.audit.log import Log
from hub.model.event import Event, Kind, Verdict
from hub.protocol.merkle import Frontier
from hub.state.keeper import TreeHead


async def test_intents_without_outcomes_are_remarked_until_they_are_settled(
    tmp_path, signer, keeper
):
    log = Log(tmp_path / "log", signer)
    keys = [verify.Key.parse(log.vkey)]

    async def remarks(*events):
        for kind, name, more in events:
            event = Event(kind=kind, time_ms=1, interaction_id=name, **more)
            await keeper.commit([], [event])
        await log.publish(keeper)
        return verify.verify_log(log.folder, keys).remarks

    intent, outcome = Kind.INTENT, Kind.OUTCOME
    alone = "entry %d: an intent without an outcome that is known"
    begun = [(intent, "a", {}), (intent, "b", {}), (intent, "b", {}), (outcome, "a", {})]
    assert await remarks(*begun) == [alone % 1, alone % 2]
    lost = (outcome, "b", {"verdict": Verdict.UNKNOWN})
    assert await remarks(lost) == [alone % 1, alone % 2], "it waits for another outcome"
    later = (outcome, "bank", {"change": "Pending>Rejected"})
    assert await remarks((outcome, "b", {}), later) == [alone % 2]
    assert await remarks((outcome, "b", {}), (outcome, "b", {})) == [
        "entry 8: an outcome without an intent"
    ]


class Entries:
    """A keeper of entries that are no events of ours."""

    def __init__(self, *entries):
        self.entries, self.frontier = entries, Frontier()
        self.frontier.extend(entries)

    async def head(self):
        return TreeHead(len(self.entries), self.frontier.root())

    async def events(self, start, limit):
        return self.entries[start : start + limit]


async def test_entries_that_are_no_events_are_remarked_whatever_they_are(tmp_path, signer):
    log, depth = Log(tmp_path / "log", signer), 20_000
    begin = b'{"v":1,"kind":"call","time_ms":'
    deep = begin + b'1,"x":' + b"[" * depth + b"]" * depth + b"}"
    strange = [deep, begin + b"9" * 5000 + b"}", begin + b"[]}", b"\xff", b"[]", b"null"]
    await log.publish(Entries(begin + b"1}", *strange))
    report = verify.verify_log(log.folder, [verify.Key.parse(log.vkey)])
    wanted = [f"entry {at}: is no event of version 1" for at in range(1, 1 + len(strange))]
    assert report.remarks == wanted


@pytest.mark.parametrize("name", ["tile/0/x.p/1", "tile/0//.p/1", "tile/0/x001/x.p/1", "tile/x"])
async def test_files_under_strange_names_are_refused_by_name(tmp_path, signer, name):
    log = Log(tmp_path / "log", signer)
    await log.publish(Entries(b'{"v":1,"kind":"call","time_ms":1}'))
    stray = log.folder / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"x")
    with pytest.raises(verify.RejectedError, match="does not belong to this log"):
        verify.verify_log(log.folder, [verify.Key.parse(log.vkey)])
