"""Each stage of the hot path alone, in microseconds: the best of several groups, since noise only ever adds."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bench.client import literals
from bench.consents import ProofKey
from bench.exchange import least
from bench.mixes import uuid
from bench.upstream import balances
from bench.world import LOAD_CORE
from hub.config import config_folder, load
from hub.contract import Context, Contract, load_contract
from hub.gateway.enrich import ask, bank_call
from hub.gateway.values import Access, Call
from hub.model.event import Event, Kind
from hub.model.records import AccessToken, digest_of
from hub.model.route import Route
from hub.node.wall import WallClock
from hub.protocol.dpop import check_proof
from hub.protocol.hpack import Decoder, huffman
from hub.protocol.peer import read_peer
from hub.state.cache import Cache
from hub.state.open import SqliteKeeper, open_keeper
from tests.gateway.world import (
    AIS,
    BASE,
    CLIENT,
    ORGANISATION,
    PEER,
    Caller,
    Face,
    Put,
    Request,
    consent_of,
    token_of,
)

GROUPS = 7
TOKEN = "A" * 43


def per_call(act: Callable[[], object], count: int = 2000) -> float:
    """Return the CPU microseconds of one call."""
    best = float("inf")
    for _ in range(GROUPS):
        began = time.process_time()
        for _ in range(count):
            act()
        best = min(best, time.process_time() - began)
    return round(best / count * 1e6, 2)


def stages(certificate: Path) -> dict[str, float]:
    """Measure every stage that does not wait; ``certificate`` is a TPP's transport certificate, PEM."""
    contract = load_contract(config_folder() / "contract", None)
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(
        serialization.Encoding.DER
    )
    found = contract.match("GET", f"{AIS}/accounts/acc-1/balances")
    assert found is not None
    call, access = _call(*found), _access()
    asked = ask(call, access, BASE, contract.query_names(call.route.id))
    context: Context = asked.context  # type: ignore[union-attr]
    answer = orjson.dumps(balances())
    given = orjson.loads(answer)
    mapper = contract.mapper(call.route.mapper)
    key = ProofKey()
    url = f"{BASE}{AIS}/accounts/acc-1/balances"
    moment = int(time.time())
    proofs = iter([key.proof("GET", url, TOKEN).encode() for _ in range(GROUPS * 300)])

    def proof() -> object:
        return check_proof([next(proofs)], method="GET", url=url, now=moment, access_token=TOKEN)

    return {
        "header block, 9 literal fields": per_call(_header_block()),
        "Huffman, 500 octets": per_call(lambda: huffman(_CODED)),
        "route and parameters": per_call(
            lambda: contract.match("GET", f"{AIS}/accounts/acc-1/balances")
        ),
        "token's digest": per_call(lambda: digest_of(TOKEN)),
        "DPoP proof, verified": per_call(proof, 300),
        "certificate to identity": per_call(
            lambda: read_peer(der, address="127.0.0.1", tls_version="TLSv1.3"), 500
        ),
        "query and paging": per_call(
            lambda: ask(call, access, BASE, contract.query_names(call.route.id))
        ),
        "the bank's request": per_call(lambda: bank_call(call, access, asked, "bank")),  # type: ignore[arg-type]
        "bank's answer, 1 KB, decoded": per_call(lambda: orjson.loads(answer)),
        "schema of the bank's answer": per_call(
            lambda: contract.check_bank_answer(call.route.id, given)
        ),
        "mapper, 1 KB": per_call(lambda: mapper(given, context, strip=True)),
        "schema of a payment consent": _consent_schema(contract),
    }


_CODED = bytes((0b00011_000, 0b11_00011_0, 0b0011_0001, 0b1_00011_00, 0b011_00011)) * 100


def _header_block() -> Callable[[], object]:
    fields = [
        (":method", "GET"), (":authority", "localhost:8400"), (":path", f"{AIS}/accounts/acc-1/balances"),
        ("authorization", f"Bearer {TOKEN}"), ("accept", "application/json"), ("user-agent", "bench"),
        ("x-fapi-customer-ip-address", "192.0.2.17"), ("x-fapi-interaction-id", uuid()), (":scheme", "https"),
    ]  # fmt: skip
    block, decoder = literals(fields), Decoder(32768)
    return lambda: decoder.decode(block)


def _consent_schema(contract: Contract) -> float:
    from bench.consents import any_payments  # noqa: PLC0415

    detail = any_payments("a.b.c.d.e")
    return per_call(lambda: contract.check_authorization_details(detail["type"], detail), 500)


def _call(route: Route, parameters: dict[str, str]) -> Call:
    interaction_id = uuid()
    request = Request(
        face=Face.TPP, method="GET", authority="hub.example", path=f"{AIS}/accounts/acc-1/balances",
        peer=PEER, headers=((b"x-fapi-interaction-id", interaction_id.encode()),),
    )  # fmt: skip
    return Call(
        request=request, route=route, parameters=parameters, now_ms=int(time.time() * 1000),
        interaction_id=interaction_id, sent_id=True, fields=dict(request.headers),
    )  # fmt: skip


def _access() -> Access:
    caller = Caller(
        client_id=CLIENT, organisation_id=ORGANISATION, software_statement_id=CLIENT, tpp_id="t",
        tpp_name="A TPP", roles=("BDSP",), redirect_uris=(), x5t_s256=PEER.x5t_s256,
    )  # fmt: skip
    return Access(caller=caller, token=token_of(), consent=consent_of(), version=1)


async def keeping(folder: Path) -> dict[str, float]:
    """Measure what the store does for each request: cache, lookup, durable events."""
    settings = load(config_folder() / "hub.production.toml", {}).settings
    clock = WallClock()
    async with open_keeper(folder, clock=clock, limits=settings.limits) as keeper:
        token = token_of()
        await keeper.commit([Put(token)], [_event()])
        cache = Cache(keeper, {AccessToken: 1000})
        hit = await _awaited(lambda: cache.lookup(AccessToken, token.key), 2000)
        miss = await _awaited(lambda: keeper.lookup(AccessToken, token.key), 500)
        one = [await _timed(keeper, 1) for _ in range(60)]
        many = [await _timed(keeper, 320) / 320 for _ in range(8)]
        cache.close()
    one.sort()
    return {
        "token from the cache": hit,
        "token from the database": miss,
        "one durable event, alone (p50)": round(one[len(one) // 2] * 1e6, 1),
        "one durable event, alone (p99)": round(one[-1] * 1e6, 1),
        "one durable event of 320 at once": round(min(many) * 1e6, 2),
    }


async def _awaited(act: Callable[[], Any], count: int) -> float:
    best = float("inf")
    for _ in range(GROUPS):
        began = time.process_time()
        for _ in range(count):
            await act()
        best = min(best, time.process_time() - began)
    return round(best / count * 1e6, 2)


async def _timed(keeper: SqliteKeeper, count: int) -> float:
    async def one() -> None:
        await keeper.commit((), (_event(),))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return time.perf_counter() - began


def _event() -> Event:
    return Event(
        kind=Kind.CALL, time_ms=int(time.time() * 1000), interaction_id=uuid(), face=Face.TPP, client_id=CLIENT,
        organisation_id=ORGANISATION, x5t_s256=PEER.x5t_s256, consent_id=uuid(), status=200,
        route="account-information.balances", octets_out=865, hub_us=1000, bank_us=500,
    )  # fmt: skip


def run(certificate: Path) -> dict[str, float]:
    """Measure all."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        kept = trio.run(keeping, Path(folder) / "state")
        (bank := Path(folder) / "bank").mkdir()
        return stages(certificate) | kept | least(bank, rounds=GROUPS, core=LOAD_CORE)
