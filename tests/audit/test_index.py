"""The index of the log: searching, sums, percentiles, availability; and that large logs stay quick."""

import random
import threading
from datetime import date

import apsw
import msgspec
import pytest
import trio

from hub.audit.histogram import Histogram
from hub.audit.index import FILE, open_index, party_of
from hub.audit.reports import (
    Operation,
    Period,
    availability,
    availability_rows,
    loads,
    performance_rows,
    table,
    volume_rows,
)
from hub.audit.search import Selection, search
from hub.model.event import Event, Kind, Verdict, leaf_bytes
from hub.model.terms import Face
from hub.state.memory import MemoryKeeper

NOW = 1_800_000_000
DUBAI = "Asia/Dubai"
DAY = 86_400
ROUTES = ("account-information.accounts", "account-information.balances", "payment.make")


def call(second, *, route=ROUTES[0], status=200, hub=5_000, bank=50_000, check="", **more):
    verdict = Verdict.ALLOWED if status < 400 else Verdict.REFUSED
    return Event(
        kind=Kind.CALL,
        time_ms=second * 1000,
        face=Face.TPP,
        route=route,
        status=status,
        hub_us=hub,
        bank_us=bank,
        check=check,
        verdict=verdict,
        **more,
    )


@pytest.fixture
async def index(tmp_path):
    opened = open_index(tmp_path, DUBAI)
    yield opened
    opened.close()


async def fill(keeper, index, *events):
    await keeper.commit((), events)
    await index.follow(keeper)


def picked(found):
    return [at for at, _ in found]


async def test_events_are_found_by_whatever_they_say(keeper, index):
    await fill(
        keeper,
        index,
        call(NOW, consent_id="c1", client_id="t1", organisation_id="o1"),
        call(NOW + 1, consent_id="c2", client_id="t1", organisation_id="o1", status=403),
        call(NOW + 2, consent_id="c1", client_id="t2", organisation_id="o2", route=ROUTES[1]),
        Event(kind=Kind.NODE, time_ms=NOW * 1000, change="started"),
    )
    for selection, expected in (
        (Selection(consent_id="c1"), [2, 0]),
        (Selection(consent_ids=frozenset({"c2", "c9"})), [1]),
        (Selection(tpp="t1"), [1, 0]),
        (Selection(tpp="o2"), [2]),
        (Selection(client_id="t2"), [2]),
        (Selection(route=ROUTES[1]), [2]),
        (Selection(status=403), [1]),
        (Selection(status=200), [2, 0]),
        (Selection(verdict="refused"), [1]),
        (Selection(start_ms=(NOW + 1) * 1000), [2, 1]),
        (Selection(end_ms=(NOW + 1) * 1000), [3, 0]),
        (Selection(tpp="t1", status=200, start_ms=NOW * 1000), [0]),
        (Selection(consent_id="nobody"), []),
    ):
        assert picked(await search(keeper, selection, index=index)) == expected
        assert picked(await search(keeper, selection)) == expected
    assert picked(await search(keeper, Selection(), index=index, limit=2, before=3)) == [2, 1]


async def test_an_index_made_anew_is_the_same(keeper, index, tmp_path):
    dice = random.Random(2)
    for _ in range(30):
        await fill(
            keeper,
            index,
            *(
                call(
                    NOW + dice.randrange(DAY),
                    status=dice.choice([200, 200, 404, 500]),
                    route=dice.choice(ROUTES),
                    hub=dice.randrange(1, 10_000),
                    client_id=dice.choice("ab"),
                )
                for _ in range(20)
            ),
        )
    before = await index.sums("2000-01-01", "2100-01-01"), await index.spans(0, 2**40)
    await index.forget()
    assert await index.sums("2000-01-01", "2100-01-01") == []
    await index.follow(keeper)
    after = await index.sums("2000-01-01", "2100-01-01"), await index.spans(0, 2**40)
    assert msgspec.to_builtins(before) == msgspec.to_builtins(after)
    assert sum(one.hub.total for one in before[0]) == 600


async def test_two_readers_of_one_log_do_not_count_twice(keeper, tmp_path):
    first, second = open_index(tmp_path, DUBAI), open_index(tmp_path, DUBAI)
    await keeper.commit((), [call(NOW)] * 50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.follow, keeper)
        nursery.start_soon(second.follow, keeper)
    await second.follow(keeper)
    [one] = await second.sums("2000-01-01", "2100-01-01")
    assert one.hub.total == 50
    first.close()
    second.close()


async def test_a_damaged_index_is_made_anew(keeper, tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/index.db").write_bytes(b"no database" * 100)
    index = open_index(tmp_path, DUBAI)
    await fill(keeper, index, call(NOW))
    assert index.size == 1
    index.close()


# Percentiles


@pytest.mark.parametrize("shape", ["uniform", "tail", "two humps", "one value"])
def test_percentiles_are_true_to_two_percent(shape):
    dice = random.Random(3)
    values = {
        "uniform": [dice.randrange(1, 1_000_000) for _ in range(5000)],
        "tail": [int(dice.paretovariate(1.2) * 1000) for _ in range(5000)],
        "two humps": [dice.choice([500, 60_000_000]) + dice.randrange(100) for _ in range(5000)],
        "one value": [250_000] * 100,
    }[shape]
    whole, halves = Histogram(), [Histogram(), Histogram()]
    for at, value in enumerate(values):
        whole.add(value)
        halves[at % 2].add(value)
    halves[0].join(halves[1])
    assert msgspec.to_builtins(halves[0]) == msgspec.to_builtins(whole)
    values.sort()
    for share in (0.01, 0.5, 0.9, 0.95, 0.99, 1.0):
        true = values[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]
        assert true * 0.999 <= whole.percentile(share) <= true * 1.0201 + 1


def test_an_empty_histogram_says_nothing():
    empty, other = Histogram(), Histogram()
    other.join(empty)
    assert (other.percentile(0.5), other.mean, other.least) == (0, 0, 0)


# Reports


async def test_hub_and_bank_time_are_told_apart(keeper, index):
    calls = [call(NOW + at, hub=2_000, bank=80_000) for at in range(95)]
    calls += [call(NOW + at, hub=40_000, bank=900_000) for at in range(5)]
    await fill(keeper, index, *calls)
    [row] = table(await index.sums("2000-01-01", "2100-01-01"), ("route",))
    assert row["calls"] == 100
    assert row["hubP50"] == pytest.approx(2, rel=0.021)
    assert row["hubP99"] == pytest.approx(40, rel=0.021)
    assert row["bankP95"] == pytest.approx(80, rel=0.021)
    assert row["bankP99"] == pytest.approx(900, rel=0.021)


async def test_days_are_the_tenants(keeper, index):
    base = NOW - NOW % DAY
    await fill(keeper, index, call(base + 19 * 3600), call(base + 21 * 3600))
    days = [one.day for one in await index.sums("2000-01-01", "2100-01-01")]
    assert len(set(days)) == 2, "20:00 UTC is midnight in Dubai"


async def test_silence_lasts_until_the_next_answer(keeper, index):
    route = ROUTES[0]
    await fill(
        keeper,
        index,
        call(NOW),
        call(NOW + 10, status=500, check="bank.timeout"),
        call(NOW + 20, status=500, check="bank.error"),
        call(NOW + 15, route=ROUTES[1]),
        call(NOW + 25, status=404),
        call(NOW + 40, status=500, check="keeper.disk", bank=0),
        call(NOW + 40),
        call(NOW + 50, status=400, bank=0, check="request.query"),
    )
    spans = await index.spans(0, 2**40)
    assert [(s.party, s.route, s.first - NOW, s.end - NOW) for s in spans] == [
        ("bank", route, 10, 25),
        ("hub", route, 40, 41),
    ]


async def test_a_call_that_never_reached_the_bank_says_nothing_of_it(keeper, index):
    await fill(
        keeper,
        index,
        call(NOW, status=500, check="bank.unreachable", bank=3000),
        call(NOW + 5, status=401, bank=0),
    )
    [span] = await index.spans(0, 2**40)
    assert (span.party, span.end) == ("bank", 0)
    assert party_of(call(NOW, status=404)) == ""


def test_planned_silence_counts_and_is_shown_apart():
    class Silence:
        def __init__(self, first, end):
            self.first, self.end = first, end

    spans = [Silence(100, 200), Silence(150, 260), Silence(900, 0), Silence(5000, 6000)]
    found = availability(spans, [(50, 120), (240, 400)], 0, 1000)
    assert (found.total, found.down, found.planned) == (1000, 160 + 100, 20 + 20)
    assert found.percent == pytest.approx(74.0)
    assert availability([], [], 0, 1000).percent == 100


async def test_the_reports_of_the_standard_follow_from_the_same_figures(keeper, index):
    await fill(
        keeper,
        index,
        *(call(NOW + at, client_id="me") for at in range(7)),
        call(NOW + 100, status=500, check="bank.timeout", client_id="me"),
        call(NOW + 190, client_id="other"),
    )
    operations = {ROUTES[0]: Operation("GET", "https://hub/accounts", "BankDataSharing")}
    lfi = {"LfiId": "org", "LfiName": "Bank"}
    sums = await index.sums("2000-01-01", "2100-01-01")
    mine = [one for one in sums if one.client == "me"]
    rows = volume_rows(mine, operations, lfi)
    assert [(r["HttpResponseCodeGroup"], r["TotalCalls"]) for r in rows] == [("2xx", 7), ("5xx", 1)]
    assert sum(load.calls for load in loads(sums, ("route",)).values()) == 9
    period = Period(date(2027, 1, 15), date(2027, 1, 15), DUBAI)
    begin, end = period.seconds(NOW + DAY)
    assert (begin <= NOW < end, end - begin) == (True, DAY)
    spans = await index.spans(begin, end)
    [row] = availability_rows("LFI", spans, [], operations, lfi, period, NOW + DAY)
    assert (row["TotalTimeMinutes"], row["TotalDowntimeMinutes"]) == (1440, 2)
    assert (row["UptimePercentage"], row["UnplannedDowntimePercentage"]) == (99, 1)
    assert period.seconds(NOW)[1] == NOW, "what has not been yet does not count"
    both = performance_rows("LFI", mine, operations, lfi, period)
    assert [row["ErrorRatePercentage"] for row in both] == [12, 12], "one of the operation's eight"
    assert both[0]["AverageResponseTimeMicroseconds"] == 50_000


def test_an_event_costs_less_than_four_hundred_octets():
    assert len(leaf_bytes(call(NOW, consent_id="c" * 36, client_id="t" * 36))) < 400


async def test_an_aggregate_of_refusals_counts_as_many_answers_as_it_stands_for(keeper, index):
    refused = call(NOW, route="par", status=401, bank=0)
    together = msgspec.structs.replace(refused, kind=Kind.REFUSED, count=70)
    await fill(keeper, index, refused, together, call(NOW, route="par"))
    rows = table(await index.sums("2000-01-01", "2100-01-01"), ("status",))
    assert {row["status"]: row["calls"] for row in rows} == {"200": 1, "401": 71}


@pytest.mark.parametrize("day", [date.min, date.max])
def test_a_period_of_the_first_or_last_day_there_is_has_seconds(day):
    begin, end = Period(day, day, DUBAI).seconds(NOW)
    assert begin <= end


async def test_the_next_page_of_an_interaction_is_of_older_events(keeper):
    await keeper.commit((), [call(NOW + at, interaction_id="i") for at in range(5)])
    chosen = Selection(interaction_id="i")
    assert [at for at, _ in await search(keeper, chosen, limit=2)] == [4, 3]
    assert [at for at, _ in await search(keeper, chosen, limit=2, before=3)] == [2, 1]


# Several processes, damage, another database


async def test_an_index_that_is_made_anew_beside_a_running_hub_finds_what_comes(keeper, tmp_path):
    """The Hub remembers the numbers of names; another process has given them anew."""
    running, other = open_index(tmp_path, DUBAI), open_index(tmp_path, DUBAI)
    await fill(keeper, running, *(call(NOW + at, client_id=f"c{at % 5}") for at in range(50)))
    await other.forget()
    await fill(keeper, running, call(NOW + 60, client_id="c3"))
    await other.follow(keeper)
    assert (await other.positions(Selection(client_id="c3"), 1, None)) == [50]
    assert len(await other.positions(Selection(client_id="c3"), 100, None)) == 11
    running.close()
    other.close()


@pytest.mark.parametrize("more", [0, 5, 30, 100])
async def test_an_index_of_another_database_is_made_anew(keeper, index, clock, more):
    """The database was restored from a backup, and may have grown beyond what the index has seen."""
    events = [call(NOW + at, client_id="old") for at in range(50)]
    await fill(keeper, index, *events)
    restored = MemoryKeeper(clock=clock)
    await restored.commit((), events[:20])
    newer = [call(NOW + 99 + at, client_id="new") for at in range(more)]
    await fill(restored, index, *newer)
    assert index.size == 20 + more
    assert len(await index.positions(Selection(client_id="old"), 1000, None)) == 20
    assert len(await index.positions(Selection(client_id="new"), 1000, None)) == more
    assert sum(one.hub.total for one in await index.sums("2000-01-01", "2100-01-01")) == 20 + more


async def test_an_index_whose_pages_are_damaged_is_made_anew_by_the_next_who_follows(
    keeper, tmp_path
):
    first = open_index(tmp_path, DUBAI)
    await fill(keeper, first, *(call(NOW + at, client_id=f"c{at}") for at in range(2000)))
    first.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    for page in range(2 * 4096, len(data), 4096):
        data[page : page + 16] = b"\xff" * 16
    (tmp_path / FILE).write_bytes(data)
    damaged, beside = open_index(tmp_path, DUBAI), open_index(tmp_path, DUBAI)
    with pytest.raises(apsw.CorruptError):
        await damaged.sums("2000-01-01", "2100-01-01")
    await damaged.follow(keeper)
    await fill(keeper, beside, call(NOW + 3000, client_id="c7"))
    for one in (damaged, beside):
        assert await one.positions(Selection(client_id="c7"), 9, None) == [2000, 7]
        one.close()


async def test_the_index_is_opened_by_many_at_once(keeper, tmp_path):
    """One makes the tables; nobody takes the file away from another, who would go on in a removed one."""
    await keeper.commit((), [call(NOW)])

    def start(folder, meeting, opened):
        meeting.wait()
        opened.append(open_index(folder, DUBAI))

    for turn in range(10):
        folder, meeting, opened = tmp_path / str(turn), threading.Barrier(8), []
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(trio.to_thread.run_sync, start, folder, meeting, opened)
        await opened[0].follow(keeper)
        for one in opened:
            assert await one.positions(Selection(), 9, None) == [0]
            one.close()


async def test_an_index_of_another_version_is_made_anew_once_by_many_who_open_it(keeper, tmp_path):
    """As at the first start after an upgrade: what one has made and filled, no other empties again."""
    await keeper.commit((), [call(NOW + at) for at in range(9)])

    def start(folder, meeting):
        meeting.wait()
        return open_index(folder, DUBAI)

    async def fill_one(folder, meeting):
        one = await trio.to_thread.run_sync(start, folder, meeting)
        await one.follow(keeper)
        assert len(await one.positions(Selection(), 99, None)) == 9
        one.close()

    for turn in range(30):
        folder, meeting = tmp_path / str(turn), threading.Barrier(4)
        (folder / FILE).parent.mkdir(parents=True)
        older = apsw.Connection(str(folder / FILE))
        older.pragma("journal_mode", "wal")
        older.execute("CREATE TABLE done (one, size); INSERT INTO done VALUES (1, 7)")
        older.pragma("user_version", 2)
        older.close()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(fill_one, folder, meeting)


async def test_sums_are_of_one_client_or_of_all(keeper, index):
    await fill(keeper, index, call(NOW, client_id="a"), call(NOW, client_id="b"))
    assert len(await index.sums("2000-01-01", "2100-01-01")) == 2
    [one] = await index.sums("2000-01-01", "2100-01-01", "b")
    assert one.client == "b"
