"""Exports: whose the folder is, and what an empty selection gives."""

import stat

from hub.audit.log import Log
from hub.audit.receipt import export
from hub.audit.search import Selection
from hub.model.event import Event, Kind


async def test_an_export_is_its_owners_alone_whatever_it_selects(tmp_path, signer, keeper):
    log = Log(tmp_path / "log", signer)
    await keeper.commit((), [Event(kind=Kind.CALL, time_ms=at) for at in range(3)])
    await log.publish(keeper)
    for selection, count in ((Selection(), 3), (Selection(start_ms=9), 0)):
        target = tmp_path / "exports" / str(count)
        assert await export(log, keeper, selection, target) == count
        assert stat.S_IMODE(target.stat().st_mode) == 0o700
        assert stat.S_IMODE((target / "receipts").stat().st_mode) == 0o700
        assert len((target / "events.jsonl").read_text().splitlines()) == count
        assert len(list((target / "receipts").iterdir())) == count
