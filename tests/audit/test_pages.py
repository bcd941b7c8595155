"""Page counts per customer and day, derived from the events of reads."""

from zoneinfo import ZoneInfo

from hub.audit.pages import ATTENDED, UNATTENDED, count_pages, pages_between
from hub.model.event import Event, Kind, Verdict

ZONE = ZoneInfo("Asia/Dubai")
NOON = 1_780_041_600_000


def read(kind=ATTENDED, consent="c-1", time_ms=NOON, verdict=Verdict.ALLOWED):
    return Event(kind=Kind.CALL, time_ms=time_ms, consent_id=consent, change=kind, verdict=verdict)


def test_pages_of_all_consents_of_a_customer_count_together():
    events = [read()] * 9 + [read(consent="c-2")] * 8
    (row,) = count_pages(events, {"c-1": "u-1", "c-2": "u-1"}, ZONE)
    assert (row.customer, row.kind, row.pages, row.over) == ("u-1", ATTENDED, 17, 2)


def test_attended_and_unattended_are_counted_apart():
    rows = count_pages([read(), *[read(UNATTENDED)] * 6], {}, ZONE)
    assert [(r.customer, r.kind, r.pages, r.over) for r in rows] == [
        ("c-1", ATTENDED, 1, 0),
        ("c-1", UNATTENDED, 6, 1),
    ]


def test_a_day_ends_at_the_zones_midnight():
    midnight = NOON + 12 * 3_600_000
    rows = count_pages([read(time_ms=midnight - 1), read(time_ms=midnight)], {}, ZONE)
    assert [row.day for row in rows] == ["2026-05-29", "2026-05-30"]


def test_what_was_refused_or_is_no_page_does_not_count():
    other = Event(kind=Kind.CONSENT, time_ms=NOON, consent_id="c-1", change="Authorized>Revoked")
    assert count_pages([read(verdict=Verdict.REFUSED), other, read(kind="")], {}, ZONE) == ()


async def test_the_pages_of_a_time_are_read_from_the_whole_log(keeper):
    await keeper.commit((), [read(time_ms=NOON + at) for at in range(2500)])
    (row,) = await pages_between(keeper, NOON + 100, NOON + 2400, ZONE)
    assert (row.pages, row.over) == (2300, 2285)
