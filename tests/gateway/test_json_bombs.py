"""JSON that is made to hurt (D5), and JSON that parsers differ about (D2): from the TPP, and from the bank."""

import time

import orjson
import pytest

from hub.config import config_folder
from hub.contract.tables import read_rows
from hub.upstream.bank import BankAnswer
from tests.gateway.test_other_families import IP, PRODUCT, client_world, lead_body
from tests.gateway.world import World, answer_of

LIMIT = 65_536
CPU_S = 0.02
MEGABYTE = 1_000_000
NESTED = b"[" * (LIMIT - 1)
BOMBS = {
    "brackets": NESTED,
    "braces": b'{"a":' * (LIMIT // 5),
    "closed brackets": b"[" * (LIMIT // 2) + b"]" * (LIMIT // 2),
    "keys": b"{" + b",".join(b'"%d":0' % n for n in range(6_000)) + b"}",
    "long text": b'{"Data":{"Email":"' + b"x" * 60_000 + b'"}}',
    "surrogate": b'{"Data":"\\ud800"}',
    "overlong": b'{"Data":"\xc0\xaf"}',
    "latin-1": b'{"Data":"\xe9"}',
    "exponent": b'{"Data":1e' + b"9" * 400 + b"}",
    "digits": b'{"Data":' + b"9" * 60_000 + b"}",
    "not a number": b'{"Data":NaN}',
    "infinite": b'{"Data":-Infinity}',
    "two values": b"{}{}",
    "nothing": b"",
    "nul": b"\0",
    "byte order mark": b"\xef\xbb\xbf{}",
    "trailing comma": b'{"Data":{},}',
    "comment": b'{"Data":{}/**/}',
}

DEEP = b'{"data":[{"supplementaryData":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}]}"


def shortest(spent: list[float]) -> float:
    """Return the least CPU time: what others on the machine cost is left out."""
    return min(spent)


@pytest.mark.parametrize("name", BOMBS)
async def test_a_body_made_to_hurt_is_refused_at_little_cost(name):
    world = await client_world("products")
    spent = []
    for _ in range(3):
        began = time.thread_time()
        answer = await world.send(
            "POST",
            f"{PRODUCT}/leads",
            headers=IP | {b"content-type": b"application/json"},
            body=BOMBS[name],
        )
        spent.append(time.thread_time() - began)
        assert answer.status == 400
        assert orjson.loads(answer.body)["Errors"][0]["Code"] == "Body.InvalidFormat"
    assert shortest(spent) < CPU_S
    assert world.bank.calls == []


async def test_a_member_that_stands_twice_reaches_the_bank_once_and_as_it_was_judged():
    world = await client_world("products")
    world.bank.answer = answer_of({"data": {}}, 500)
    good = lead_body()
    twice = good.replace(b'"Data":{', b'"Data":{"Email":"not an address",', 1)
    assert twice.count(b'"Email"') == 2
    for body, reached in ((twice, 1), (good[:-1] + b',"Data":{}}', 1)):
        await world.send(
            "POST",
            f"{PRODUCT}/leads",
            headers=IP | {b"content-type": b"application/json"},
            body=body,
        )
        assert len(world.bank.calls) == reached, "the last one counts, for the judgement too"
    assert orjson.loads(world.bank.calls[0].body) == {"data": orjson.loads(good)["Data"]}


def test_no_body_but_a_file_may_be_large():
    rows = read_rows(config_folder() / "contract/routes")
    large = {row.route.id for row in rows if row.route.body_limit > LIMIT}
    assert large == {"payment.file"}


async def test_the_bound_is_told_before_a_body_is_read():
    world = await World().start()
    request = type("R", (), {"method": "POST", "path": f"{PRODUCT}/leads"})
    assert world.gateway.admit(request).limit == LIMIT


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MEGABYTE,
        b'{"data":' + b"[" * MEGABYTE,
        b'{"data":1e999}',
        b'{"data":[{"id":"\\ud800"}]}',
        b'{"data":[' + b"null," * 100_000 + b"null]}",
        DEEP,
    ],
    ids=["brackets", "nested data", "exponent", "surrogate", "nulls", "deeper than can be written"],
)
async def test_a_bank_that_says_such_things_is_answered_for_with_500(body):
    world = await World().start()
    world.bank.answer = BankAnswer(status=200, headers=(), body=body)
    path = "/accounts/acc-1/transactions" if body is DEEP else "/accounts"
    answer = await world.get(path)
    assert answer.status == 500
    assert orjson.loads(answer.body)["Errors"][0]["Code"] == "GenericError"
    assert (await world.events())[-1]["status"] == 500
