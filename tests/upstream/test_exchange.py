"""What a bank may do to an exchange, and what the caller gets: the answer, or one Fault within the deadline."""

from datetime import UTC, datetime
from functools import partial

import pytest
import trio

from hub.model.fault import Fault
from hub.upstream.bank import BankAnswer
from tests.upstream.scripted import OK, Identity, answering, bank, connections, get, limits, post
from tests.waiting import pause_of_a_peer


async def test_a_call_is_answered_and_its_connection_used_again(tmp_path):
    async with bank(answering(OK), tmp_path) as (peer, hub):
        for _ in range(3):
            answer = await hub.exchange(get(query="page=1"))
            assert isinstance(answer, BankAnswer)
            assert (answer.status, answer.body) == (200, b"{}")
            assert answer.header(b"content-type") == b"application/json"
        assert peer.connections == 1


async def test_the_request_carries_host_target_headers_and_body(tmp_path):
    seen = []

    async def script(line):
        seen.append(await line.request())
        await line.say(OK)

    async with bank(script, tmp_path, base_paths={"data-sharing": "/ds"}) as (peer, hub):
        headers = ((b"o3-consent-id", b"c1"), (b"content-type", b"application/json"))
        assert (await hub.exchange(post(b'{"a":1}', headers=headers))).status == 200
        head, _, body = seen[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /ds/payments HTTP/1.1"
        assert f"host: localhost:{peer.port}".encode() in lines
        assert b"o3-consent-id: c1" in lines
        assert b"content-length: 7" in lines
        assert body == b'{"a":1}'


async def nothing(line):
    await line.request()
    await trio.sleep_forever()


async def drop(line):
    await line.request()
    line.reset()


def half(octets):
    async def script(line):
        await line.request()
        await line.say(octets)
        line.reset()

    return script


def whole(octets):
    async def script(line):
        await line.request()
        await line.say(octets)
        await trio.sleep_forever()

    return script


async def drip(line):
    await line.request()
    for at in range(len(OK)):
        await line.say(OK[at : at + 1])
        await pause_of_a_peer(0.05)


async def endless_head(line):
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await line.say(b"x: " + b"a" * 60_000 + b"\r\n")


async def endless_body(line):
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await line.say(b"10000\r\n" + b"b" * 65536 + b"\r\n")


BROKEN = {
    "one octet at a time": (drip, "bank.timeout"),
    "endless head": (endless_head, "bank.malformed"),
    "endless body": (endless_body, "bank.malformed"),
    "hang": (nothing, "bank.timeout"),
    "reset": (drop, "bank.reset"),
    "half a head": (half(b"HTTP/1.1 200 OK\r\ncont"), None),
    "half a body": (half(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"), None),
    "body hangs": (
        whole(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"),
        "bank.timeout",
    ),
    "two answers": (whole(OK + OK), "bank.malformed"),
    "octets after the answer": (whole(OK + b"xyz"), "bank.malformed"),
    "two lengths": (
        whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
        "bank.malformed",
    ),
    "length and coding": (
        whole(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        "bank.malformed",
    ),
    "unknown coding": (
        whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        "bank.malformed",
    ),
    "bad chunk": (
        whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n"),
        "bank.malformed",
    ),
    "protocol switch": (
        whole(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
        "bank.malformed",
    ),
    "interim storm": (whole(b"HTTP/1.1 103 Early\r\n\r\n" * 20 + OK), "bank.malformed"),
    "nonsense": (whole(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "bank.malformed"),
    "huge head": (whole(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000), "bank.malformed"),
    "control character": (
        whole(b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}"),
        "bank.malformed",
    ),
    "announced too long": (
        whole(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"),
        "bank.malformed",
    ),
    "status 700": (
        whole(b"HTTP/1.1 700 X\r\ncontent-length: 0\r\n\r\n"),
        "bank.malformed",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_one_fault_within_the_deadline(name, tmp_path):
    script, check = BROKEN[name]
    async with bank(script, tmp_path) as (peer, hub):
        began = trio.current_time()
        fault = await hub.exchange(post(deadline_ms=400))
        assert isinstance(fault, Fault), fault
        assert fault.check in ({check} if check else {"bank.reset", "bank.malformed"})
        assert fault.status == 500
        assert fault.code == "GenericRecoverableError"
        assert fault.private.endswith("(sent=yes)")
        assert trio.current_time() - began < 0.9
        assert hub.idle == 0, "its connection is never used again"
        assert peer.connections == 1, "a POST is never sent twice"


async def test_a_chunked_answer_is_put_together(tmp_path):
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    async with bank(answering(raw), tmp_path) as (_, hub):
        assert (await hub.exchange(get())).body == b"[1,2]"


async def test_an_interim_answer_is_passed_over(tmp_path):
    async with bank(answering(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK), tmp_path) as (_, hub):
        answer = await hub.exchange(get())
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.header(b"link") is None


async def test_a_body_without_length_ends_with_a_clean_close_only(tmp_path):
    async def clean(line):
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\n\r\n{}")

    async with bank(clean, tmp_path) as (_, hub):
        assert (await hub.exchange(get())).body == b"{}"
    async with bank(half(b"HTTP/1.1 200 OK\r\n\r\n{}"), tmp_path) as (_, hub):
        assert (await hub.exchange(post())).check in {"bank.reset", "bank.malformed"}


async def test_no_content_has_no_body_and_keeps_the_connection(tmp_path):
    async with bank(answering(b"HTTP/1.1 204 No Content\r\n\r\n"), tmp_path) as (peer, hub):
        for _ in range(2):
            answer = await hub.exchange(post())
            assert (answer.status, answer.body) == (204, b"")
        assert peer.connections == 1


async def test_connection_close_is_obeyed(tmp_path):
    raw = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with bank(answering(raw), tmp_path) as (peer, hub):
        for _ in range(2):
            assert (await hub.exchange(get())).status == 200
        assert peer.connections == 2


async def once_then_close(line):
    await line.request()
    await line.say(OK)
    if line.number == 1:
        await line.request()
        line.reset()
    else:
        while await line.request():
            await line.say(OK)


async def test_a_get_is_sent_again_if_its_used_connection_ended_before_any_octet(tmp_path):
    async with bank(once_then_close, tmp_path) as (peer, hub):
        assert (await hub.exchange(get())).status == 200
        assert (await hub.exchange(get())).status == 200
        assert peer.connections == 2


async def test_a_post_is_not_sent_again_over_another_connection(tmp_path):
    async with bank(once_then_close, tmp_path) as (peer, hub):
        assert (await hub.exchange(post())).status == 200
        fault = await hub.exchange(post(repeatable=True))
        assert fault.check == "bank.reset"
        assert peer.connections == 1


async def test_a_get_is_sent_at_most_twice(tmp_path):
    async def script(line):
        await line.request()
        if line.number == 1:
            await line.say(OK)
            await line.request()
        line.reset()

    async with bank(script, tmp_path) as (peer, hub):
        assert (await hub.exchange(get())).status == 200
        assert (await hub.exchange(get())).check == "bank.reset"
        assert peer.connections == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used(tmp_path):
    closed = trio.Event()

    async def script(line):
        await line.request()
        await line.say(OK)
        if line.number == 1:
            await line.stream.aclose()
            closed.set()
            return
        await trio.sleep_forever()

    async with bank(script, tmp_path) as (peer, hub):
        assert (await hub.exchange(post())).status == 200
        await closed.wait()
        assert (await hub.exchange(post())).status == 200, "the POST went over a new connection"
        assert peer.connections == 2


async def test_octets_that_nobody_asked_for_never_reach_the_next_caller(tmp_path):
    spoke = trio.Event()

    async def script(line):
        await line.request()
        await line.say(OK)
        if line.number == 1:
            await line.say(OK.replace(b"{}", b"[]"))
            spoke.set()
        await line.request()
        await line.say(OK)

    async with bank(script, tmp_path) as (_, hub):
        await hub.exchange(post())
        await spoke.wait()
        answer = await hub.exchange(get())
        assert answer.body == b"{}"


async def test_a_peer_that_is_not_there_is_unreachable(tmp_path):
    async with bank(answering(OK), tmp_path) as (_, hub):
        pass
    fault = await hub.exchange(get())
    assert fault.check == "bank.unreachable"
    assert fault.private.endswith("(sent=no)")


async def test_a_server_of_another_name_or_ca_is_refused(tmp_path):
    async with bank(answering(OK), tmp_path, identity=Identity(tmp_path, "other.example")) as (
        _,
        h,
    ):
        assert (await h.exchange(get())).check == "bank.tls"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    stranger = Identity(foreign)
    Identity(tmp_path)
    async with bank(answering(OK), tmp_path, identity=stranger) as (_, hub):
        fault = await hub.exchange(get())
        assert fault.check == "bank.tls"
        assert fault.private.endswith("(sent=no)")


async def test_a_bank_that_refuses_our_certificate_is_a_tls_fault(tmp_path):
    identity = Identity(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    Identity(other)
    over = {"certificate": other / "c.pem", "key": other / "k.pem"}
    async with bank(answering(OK), tmp_path, identity=identity, **over) as (_, hub):
        assert (await hub.exchange(get())).check in {"bank.tls", "bank.reset"}


async def test_a_server_whose_certificate_has_expired_is_refused(tmp_path):
    identity = Identity(tmp_path)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    identity.server = identity.ca.issue_cert("localhost", not_after=long_ago)
    async with bank(answering(OK), tmp_path, identity=identity) as (_, hub):
        assert (await hub.exchange(get())).check == "bank.tls"


async def test_a_peer_that_accepts_and_says_nothing_is_unreachable_in_time(tmp_path):
    async def say_nothing(_stream):
        await trio.sleep_forever()

    Identity(tmp_path)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, say_nothing, 0, host="localhost")
        (listener, *_) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        hub = connections(tmp_path, port, bounds=limits(bank_connect_s=0.2))
        began = trio.current_time()
        fault = await hub.exchange(get())
        assert fault.check == "bank.unreachable"
        assert fault.private.endswith("(sent=no)")
        assert trio.current_time() - began < 0.5
        assert hub.busy == 0
        nursery.cancel_scope.cancel()


async def test_a_network_that_swallows_everything_is_unreachable_in_time(
    tmp_path, monkeypatch, autojump_clock
):
    async def swallowed(*_args):
        await trio.sleep_forever()

    Identity(tmp_path)
    monkeypatch.setattr(trio, "open_tcp_stream", swallowed)
    hub = connections(tmp_path, 1)
    for deadline_ms, most in ((10_000, 3.0), (500, 0.5)):
        began = trio.current_time()
        fault = await hub.exchange(get(deadline_ms=deadline_ms))
        assert fault.check == "bank.unreachable"
        assert trio.current_time() - began == pytest.approx(most)


async def test_more_calls_than_connections_wait_and_too_many_are_refused(tmp_path):
    go = trio.Event()

    async def script(line):
        while await line.request():
            await go.wait()
            await line.say(OK)

    bounds = limits(bank_connections=2, bank_waiting=2)
    results = []
    async with bank(script, tmp_path, bounds=bounds) as (peer, hub):

        async def one():
            results.append(await hub.exchange(get()))
            if isinstance(results[-1], Fault):
                go.set()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert sorted(getattr(r, "check", "answer") for r in results) == ["answer"] * 4 + [
            "bank.busy"
        ]
        assert peer.connections == 2
        assert hub.busy == 0


async def test_a_cancelled_exchange_closes_its_connection_and_frees_its_slot(tmp_path):
    asked = trio.Event()

    async def script(line):
        await line.request()
        asked.set()
        await trio.sleep_forever()

    async with bank(script, tmp_path) as (_, hub):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.exchange, get())
            await asked.wait()
            assert hub.busy == 1
            nursery.cancel_scope.cancel()
        assert (hub.busy, hub.idle) == (0, 0)


async def test_the_tenants_bound_is_kept_whatever_the_operation_allows(tmp_path):
    async def script(line):
        await line.request()
        await trio.sleep_forever()

    async with bank(script, tmp_path, bounds=limits(bank_exchange_s=0.2)) as (_, hub):
        began = trio.current_time()
        fault = await hub.exchange(get(deadline_ms=20_000))
        assert fault.check == "bank.timeout"
        assert trio.current_time() - began < 2
