"""The conformance suite of the keeper's protocol: every keeper passes every sentence of it."""

import msgspec
import pytest
import trio

from hub.model.consent import Consent, Status
from hub.model.event import leaf_bytes
from hub.model.records import AccessToken, Code, Grant, Seen, Setting
from hub.protocol.merkle import EMPTY_ROOT, Frontier, leaf_hash
from hub.state.keeper import Conflict, Drop, Granted, Invalidation, Once, Put, Query, Take, Takes
from tests.state.keepers import NOW, consent, event


def setting(name: str, value: bytes = b"v") -> Setting:
    return Setting(name=name, value=value)


async def put(keeper, *records) -> None:
    done = await keeper.commit([Put(record) for record in records], [event()])
    assert isinstance(done, tuple)


async def test_what_was_never_written_is_not_found(keeper):
    assert await keeper.lookup(Setting, "a") is None


async def test_a_written_record_comes_back_with_version_one(keeper):
    await put(keeper, setting("a", b"\x00\xff"))
    assert await keeper.lookup(Setting, "a") == (setting("a", b"\x00\xff"), 1)


async def test_a_consent_comes_back_whole(keeper):
    record = consent("c", user="u", accounts=["1", "2"], supplementary={"deep": [{"x": 1.5}]})
    await put(keeper, record)
    assert await keeper.lookup(Consent, "c") == (record, 1)


async def test_each_write_adds_one_to_the_version(keeper):
    for number in range(3):
        await put(keeper, setting("a", bytes([number])))
    assert await keeper.lookup(Setting, "a") == (setting("a", b"\x02"), 3)


async def test_kinds_do_not_share_keys(keeper):
    await put(keeper, setting("a"), Grant(id="a", client_id="c", consent_id="k", created=1))
    await keeper.commit([Drop("setting", "a")], [event()])
    assert await keeper.lookup(Setting, "a") is None
    assert (await keeper.lookup(Grant, "a"))[1] == 1


async def test_a_record_that_must_not_exist_but_does_is_a_conflict(keeper):
    await put(keeper, setting("a"))
    assert await keeper.commit([Put(setting("a", b"x"), 0)], [event()]) == Conflict(0)
    assert await keeper.lookup(Setting, "a") == (setting("a"), 1)


async def test_an_expected_version_that_holds_is_written(keeper):
    assert await keeper.commit([Put(setting("a"), 0)], [event()]) == (0,)
    assert await keeper.commit([Put(setting("a", b"2"), 1)], [event()]) == (1,)
    assert await keeper.lookup(Setting, "a") == (setting("a", b"2"), 2)


async def test_a_conflict_names_the_change_and_writes_nothing_at_all(keeper):
    await put(keeper, setting("a"))
    before = await keeper.head()
    changes = [Put(setting("b")), Drop("setting", "a", 1), Put(setting("c"), 7)]
    assert await keeper.commit(changes, [event("x")]) == Conflict(2)
    assert await keeper.head() == before
    assert await keeper.trace("x") == ()
    assert await keeper.lookup(Setting, "b") is None
    assert (await keeper.lookup(Setting, "a"))[1] == 1


async def test_a_later_change_of_one_commit_sees_the_earlier_one(keeper):
    changes = [
        Put(setting("a", b"1"), 0),
        Put(setting("a", b"2"), 1),
        Drop("setting", "a", 2),
        Put(setting("a", b"3"), 0),
    ]
    assert await keeper.commit(changes, [event()]) == (0,)
    assert await keeper.lookup(Setting, "a") == (setting("a", b"3"), 1)


async def test_dropping_what_is_not_there_is_fine_unless_expected(keeper):
    assert await keeper.commit([Drop("setting", "a")], [event()]) == (0,)
    assert await keeper.commit([Drop("setting", "a", 0)], [event()]) == (1,)
    assert await keeper.commit([Drop("setting", "a", 1)], [event()]) == Conflict(0)


async def test_a_dropped_record_is_found_by_nothing(keeper):
    await put(keeper, consent("c", user="u"))
    await keeper.commit([Drop("consent", "c", 1)], [event()])
    assert await keeper.lookup(Consent, "c") is None
    assert (await keeper.search(Query(kind="consent", where=(("psu", "u"),)))).items == ()


async def test_changes_without_an_event_are_a_bug(keeper):
    with pytest.raises(ValueError, match="no audit, no effect"):
        await keeper.commit([Put(setting("a"))], [])
    assert await keeper.lookup(Setting, "a") is None


async def test_nothing_to_do_is_done_at_once(keeper):
    assert await keeper.commit([], []) == ()
    assert await keeper.claim([]) == ()


async def test_indices_of_events_are_dense_and_start_at_zero(keeper):
    assert await keeper.commit([], [event("a"), event("b")]) == (0, 1)
    assert await keeper.commit([], [event("c")]) == (2,)
    assert await keeper.events(0, 1000) == tuple(leaf_bytes(event(n)) for n in "abc")
    assert await keeper.events(1, 1) == (leaf_bytes(event("b")),)
    assert await keeper.events(3, 10) == ()


async def test_the_head_is_the_root_over_the_leaves(keeper):
    head = await keeper.head()
    assert (head.size, head.root) == (0, EMPTY_ROOT)
    frontier = Frontier()
    for size in range(1, 12):
        await keeper.commit([], [event(str(size))])
        frontier.append(leaf_hash(leaf_bytes(event(str(size)))))
        head = await keeper.head()
        assert (head.size, head.root) == (size, frontier.root())


async def test_no_more_events_are_given_than_are_asked_for(keeper):
    await keeper.commit([], [event(str(n)) for n in range(10)])
    for start, limit, count in (
        (0, 3, 3),
        (8, 3, 2),
        (0, 0, 0),
        (0, -1, 0),
        (-5, 3, 3),
        (99, 1, 0),
    ):
        assert len(await keeper.events(start, limit)) == count, (start, limit)


async def test_the_events_of_an_interaction_are_found_in_order(keeper):
    await keeper.commit([], [event("x"), event("y"), event("x")])
    await keeper.commit([], [event("x")])
    leaf = leaf_bytes(event("x"))
    assert await keeper.trace("x") == ((0, leaf), (2, leaf), (3, leaf))
    assert await keeper.trace("z") == ()
    assert await keeper.trace("") == ()


async def test_many_who_expect_the_same_version_have_one_winner(keeper):
    code = Code(
        digest="d",
        client_id="c",
        consent_id="k",
        grant_id="g",
        redirect_uri="r",
        code_challenge="x",
        scope="s",
    )
    await put(keeper, code)
    used = msgspec.structs.replace(code, used=True)
    results = []

    async def redeem() -> None:
        results.append(await keeper.commit([Put(used, 1)], [event()]))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(redeem)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert results.count(Conflict(0)) == 19
    assert (await keeper.head()).size == 2


async def test_many_commits_at_once_get_different_indices(keeper):
    indices = []

    async def append(number: int) -> None:
        done = await keeper.commit([Put(setting(str(number)), 0)], [event(str(number))])
        indices.append((number, done[0]))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(append, number)
    assert sorted(index for _, index in indices) == list(range(50))
    leaves = await keeper.events(0, 1000)
    assert all(leaves[index] == leaf_bytes(event(str(number))) for number, index in indices)


# Searches


async def found(keeper, **query) -> list[str]:
    page = await keeper.search(Query(kind="consent", **query))
    return [item.record.id for item in page.items]


async def test_all_conditions_must_hold(keeper):
    await put(
        keeper,
        consent("a", user="u", accounts=["1", "2"]),
        consent("b", user="u", accounts=["2"], status=Status.AUTHORIZED),
        consent("c", user="v", accounts=["2"]),
    )
    assert await found(keeper) == ["a", "b", "c"]
    assert await found(keeper, where=(("psu", "u"),)) == ["a", "b"]
    assert await found(keeper, where=(("psu", "u"), ("account", "1"))) == ["a"]
    assert await found(keeper, where=(("account", "2"), ("status", "Authorized"))) == ["b"]
    assert await found(keeper, where=(("account", "1"), ("account", "2"))) == ["a"]
    assert await found(keeper, where=(("psu", "w"),)) == []
    assert await found(keeper, where=(("nothing", "u"),)) == []


async def test_an_index_follows_its_record(keeper):
    await put(keeper, consent("a", user="u", accounts=["1", "2"], updated=5))
    await put(keeper, consent("a", user="v", accounts=["2", "3"], updated=6))
    assert await found(keeper, where=(("account", "1"),)) == []
    assert await found(keeper, where=(("account", "2"),)) == ["a"]
    assert await found(keeper, where=(("account", "3"), ("psu", "v"))) == ["a"]
    assert await found(keeper, where=(("psu", "u"),)) == []
    assert await found(keeper, at_most=(("updated", 5),)) == []


async def test_ranges_hold_their_ends(keeper):
    await put(keeper, *(consent(f"c{n}", updated=n) for n in range(1, 6)))
    assert await found(keeper, at_least=(("updated", 4),)) == ["c4", "c5"]
    assert await found(keeper, at_most=(("updated", 2),)) == ["c1", "c2"]
    both = {"at_least": (("updated", 2),), "at_most": (("updated", 3),)}
    assert await found(keeper, **both) == ["c2", "c3"]
    assert await found(keeper, **both, where=(("client", "other"),)) == []
    assert await found(keeper, at_least=(("status", 0),)) == []
    assert await found(keeper, at_most=(("status", 0),)) == []


async def test_a_number_is_not_its_text(keeper):
    await put(keeper, consent("a", updated=5, user="5"))
    assert await found(keeper, where=(("updated", "5"),)) == []
    assert await found(keeper, where=(("psu", 5),)) == []


async def test_results_are_ordered_paged_and_counted(keeper):
    await put(keeper, *(consent(f"c{n}", updated=9 - n // 2) for n in range(6)))
    assert await found(keeper, order="updated") == ["c4", "c5", "c2", "c3", "c0", "c1"]
    assert await found(keeper, order="updated", descending=True) == [
        "c1",
        "c0",
        "c3",
        "c2",
        "c5",
        "c4",
    ]
    assert await found(keeper, descending=True, limit=2) == ["c5", "c4"]
    assert await found(keeper, order="updated", offset=1, limit=3) == ["c5", "c2", "c3"]
    page = await keeper.search(
        Query(kind="consent", where=(("client", "tpp"),), offset=5, limit=3, count=True)
    )
    assert [item.record.id for item in page.items] == ["c5"]
    assert page.total == 6
    assert (await keeper.search(Query(kind="consent"))).total == -1


async def test_records_without_a_value_in_the_order_are_left_out(keeper):
    await put(
        keeper,
        consent("a", expires=9),
        consent("b", status=Status.REVOKED),
        consent("c", expires=3),
    )
    assert await found(keeper, order="due") == ["c", "a"]
    page = await keeper.search(Query(kind="consent", order="due", count=True))
    assert page.total == 2


async def test_items_carry_their_version(keeper):
    await put(keeper, consent("a"))
    await put(keeper, consent("a", updated=2))
    page = await keeper.search(Query(kind="consent"))
    assert [item.version for item in page.items] == [2]


@pytest.mark.parametrize(
    "query",
    [
        Query(kind="nothing"),
        Query(kind="consent", limit=0),
        Query(kind="consent", limit=1001),
        Query(kind="consent", offset=-1),
    ],
)
async def test_a_question_that_cannot_be_asked_is_a_bug(keeper, query):
    with pytest.raises(ValueError, match=r"kind|range"):
        await keeper.search(query)


async def test_a_large_answer_comes_whole(keeper):
    await put(keeper, *(consent(f"{n:04}", accounts=["1"]) for n in range(1100)))
    page = await keeper.search(
        Query(kind="consent", where=(("account", "1"),), offset=200, limit=1000, count=True)
    )
    assert [item.record.id for item in page.items] == [f"{n:04}" for n in range(200, 1100)]
    assert page.total == 1100
    assert await found(keeper, where=(("client", "tpp"),), limit=2, order="updated") == [
        "0000",
        "0001",
    ]


# Claims


async def test_a_single_use_value_is_granted_once(keeper):
    once = Once(space="jti", value="a", until=NOW + 10)
    assert await keeper.claim([once]) == (Granted(granted=True),)
    assert await keeper.claim([once]) == (Granted(granted=False),)


async def test_one_value_twice_in_a_batch_is_granted_once(keeper):
    once = Once(space="jti", value="a", until=NOW + 10)
    assert [one.granted for one in await keeper.claim([once, once])] == [True, False]


async def test_spaces_are_apart(keeper):
    first = Once(space="jti", value="a", until=NOW + 10)
    second = Once(space="dpop", value="a", until=NOW + 10)
    assert [one.granted for one in await keeper.claim([first, second])] == [True, True]


async def test_a_value_is_free_again_from_the_second_it_ends(keeper, clock):
    once = Once(space="jti", value="a", until=NOW + 10)
    await keeper.claim([once])
    clock.advance(9.999)
    assert not (await keeper.claim([once]))[0].granted
    clock.advance(0.001)
    again = Once(space="jti", value="a", until=NOW + 20)
    assert (await keeper.claim([again]))[0].granted
    assert not (await keeper.claim([again]))[0].granted


async def test_claims_at_once_have_one_winner(keeper):
    once = Once(space="jti", value="a", until=NOW + 10)
    granted = []

    async def ask() -> None:
        granted.append((await keeper.claim([once]))[0].granted)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert granted.count(True) == 1


async def test_a_claimed_value_is_a_record(keeper):
    await keeper.claim([Once(space="jti", value="a", until=NOW + 10)])
    assert await keeper.lookup(Seen, "jti\x00a") == (
        Seen(space="jti", value="a", until=NOW + 10),
        1,
    )


async def test_a_bucket_gives_its_burst_and_then_its_rate(keeper, clock):
    take = Take(bucket="tpp", rate=2.0, burst=3)
    assert [one.granted for one in await keeper.claim([take] * 4)] == [True, True, True, False]
    clock.advance(0.5)
    assert (await keeper.claim([take, take])) == (
        Granted(granted=True),
        Granted(granted=False, retry_after=1),
    )
    clock.advance(100)
    assert sum(one.granted for one in await keeper.claim([take] * 5)) == 3


async def test_buckets_are_apart_and_tell_when_to_come_back(keeper):
    slow = Take(bucket="slow", rate=0.1, burst=1)
    other = Take(bucket="other", rate=0.1, burst=1)
    first, second, third = await keeper.claim([slow, slow, other])
    assert (first.granted, second.granted, third.granted) == (True, False, True)
    assert second.retry_after == 10


async def test_several_buckets_give_a_token_each_or_none(keeper, clock):
    small, large = Take("small", 0.1, 1), Take("large", 1.0, 3)
    both = Takes((large, small))
    assert await keeper.claim([both]) == (Granted(granted=True),)
    for _ in range(5):
        assert await keeper.claim([both]) == (Granted(granted=False, retry_after=10, at=1),)
    assert sum(one.granted for one in await keeper.claim([large] * 3)) == 2
    clock.advance(10)
    assert (await keeper.claim([both, both]))[0].granted


async def test_a_clock_that_goes_back_refills_nothing(keeper, clock):
    take = Take(bucket="tpp", rate=1.0, burst=1)
    await keeper.claim([take])
    clock.advance(-5)
    assert not (await keeper.claim([take]))[0].granted
    clock.advance(1)
    assert (await keeper.claim([take]))[0].granted


# Watching


async def test_a_watcher_hears_of_a_change_before_it_is_acknowledged(keeper):
    heard: list[Invalidation] = []
    order: list[str] = []

    def forget(one: Invalidation) -> None:
        heard.append(one)
        order.append("heard")

    end = keeper.watch(forget)
    await put(keeper, setting("a"), setting("b"))
    order.append("acknowledged")
    assert heard == [Invalidation("setting", "a"), Invalidation("setting", "b")]
    assert order == ["heard", "heard", "acknowledged"]
    end()
    end()
    await put(keeper, setting("c"))
    assert len(heard) == 2


async def test_a_watcher_sees_the_new_record_from_then_on(keeper):
    await put(keeper, setting("a", b"old"))
    seen = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            seen.append((await keeper.lookup(Setting, "a"))[0].value)

        end = keeper.watch(lambda _one: nursery.start_soon(read))
        await put(keeper, setting("a", b"new"))
    end()
    assert seen == [b"new"]


async def test_a_conflict_is_not_announced(keeper):
    heard = []
    end = keeper.watch(heard.append)
    await keeper.commit([Put(setting("a"), 5)], [event()])
    end()
    assert heard == []


async def test_a_drop_is_announced(keeper):
    await put(keeper, setting("a"))
    heard = []
    end = keeper.watch(heard.append)
    await keeper.commit([Drop("setting", "a")], [event()])
    end()
    assert heard == [Invalidation("setting", "a")]


async def test_an_access_token_is_found_by_its_consent(keeper):
    token = AccessToken(
        digest="d", client_id="c", scope="s", x5t_s256="x", issued=1, expires=2, consent_id="k"
    )
    await put(keeper, token, msgspec.structs.replace(token, digest="e", consent_id=""))
    page = await keeper.search(Query(kind="access", where=(("consent", "k"),)))
    assert [item.record for item in page.items] == [token]
