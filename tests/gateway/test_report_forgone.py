"""A bank's long answer that is not handed on to the TPP is ended, not left to hold a connection."""

from types import SimpleNamespace

import pytest

from hub.gateway import files
from hub.model.fault import Fault
from hub.upstream.bank import BankAnswer


class Stream:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


class Keeper:
    async def lookup(self, kind, key):
        kept = SimpleNamespace(client_id="c", payment_type=files.FILE_PAYMENT, consent_id="x")
        return (kept, 1) if kind.__name__ == "Payment" else None


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(files, "o3_headers", lambda *_: ())
    monkeypatch.setattr(files.msgspec.structs, "replace", lambda given, **_: given)
    route = SimpleNamespace(
        bank_path="/{paymentId}", bank_family="payment", scopes=(), deadline_ms=1, finds=True, success=200
    )  # fmt: skip
    call = SimpleNamespace(parameters={"PaymentId": "p"}, route=route)
    return call, SimpleNamespace(caller=SimpleNamespace(client_id="c"))


async def report_of(asked, answer):
    async def exchange(_call):
        return answer

    bank = SimpleNamespace(exchange=exchange)
    return await files.Files(keeper=Keeper(), bank=bank, provider_id="b").report(*asked)


@pytest.mark.parametrize(("status", "kind"), [(500, b"text/plain"), (200, b"x" * 4096)])
async def test_a_long_answer_that_is_refused_is_ended(asked, status, kind):
    stream = Stream()
    answer = BankAnswer(status=status, headers=((b"content-type", kind),), stream=stream)
    assert isinstance(await report_of(asked, answer), Fault)
    assert stream.closed


async def test_a_long_answer_that_is_handed_on_is_not_ended(asked):
    stream = Stream()
    reply = await report_of(asked, BankAnswer(status=200, headers=(), stream=stream))
    assert reply.stream is stream
    assert not stream.closed


async def test_a_report_that_the_bank_has_compressed_is_said_to_be(asked):
    coded = ((b"content-type", b"text/csv"), (b"content-encoding", b"gzip"))
    reply = await report_of(asked, BankAnswer(status=200, headers=coded, body=b"\x1f\x8b"))
    assert (reply.media, reply.headers) == (b"text/csv", ((b"content-encoding", b"gzip"),))
