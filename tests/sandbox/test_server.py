"""The sandbox's server: both HTTP versions over mTLS, bounds, containment, and each fault knob."""

import ssl
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from hub.sandbox.server import Bounds, FaultPlan, Faults, SiteRequest, SiteResponse, serve_site
from hub.sandbox.tls import client_context, server_context


class Keys:
    """A small PKI on disk: a server, a client and somebody else's client."""

    def __init__(self, folder: Path) -> None:
        ca, other = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(self.ca)
        self.server = self._issue(ca, folder, "server")
        self.client = self._issue(ca, folder, "client")
        self.stranger = self._issue(other, folder, "stranger")

    @staticmethod
    def _issue(ca: trustme.CA, folder: Path, name: str) -> tuple[Path, Path]:
        leaf = ca.issue_cert("localhost", "127.0.0.1", common_name=name)
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        return cert, key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("pki"))


async def echo(request: SiteRequest) -> SiteResponse:
    if request.path == "/raise":
        raise ValueError("a bug")
    if request.path == "/empty":
        return SiteResponse(status=204)
    if request.path == "/sleep":
        await trio.sleep_forever()
    if request.path == "/big":
        return SiteResponse(body=b"x" * 300_000)
    if request.path == "/certificate":
        return SiteResponse(body=request.certificate)
    body = f"{request.method} {request.path}?{request.query} {request.header('x-a')}".encode()
    return SiteResponse(headers=(("content-type", "text/plain"),), body=body + request.body)


async def start(
    nursery: trio.Nursery,
    keys: Keys,
    *,
    faults: Faults | None = None,
    bounds: Bounds | None = None,
    client_cert: str = "required",
) -> int:
    tls = server_context(*keys.server, keys.ca, client_cert)

    async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        await serve_site(
            echo,
            host="127.0.0.1",
            port=0,
            tls=tls,
            faults=faults,
            bounds=bounds,
            task_status=task_status,
        )

    return await nursery.start(serve)


def client(keys: Keys, port: int, *, http2: bool, identity: str = "client") -> httpx.AsyncClient:
    pair = getattr(keys, identity) if identity else (None, None)
    context = client_context(keys.ca, *pair)
    return httpx.AsyncClient(
        verify=context, http2=http2, http1=not http2, base_url=f"https://localhost:{port}"
    )


both = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@both
async def test_request_arrives_whole_and_answer_comes_back(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    port = await start(nursery, keys)
    async with client(keys, port, http2=http2) as http:
        answer = await http.post("/a/b?c=d", headers={"X-A": "v"}, content=b"!" * 100_000)
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.content == b"POST /a/b?c=d v" + b"!" * 100_000
        again = await http.get("/empty")
        assert (again.status_code, again.content) == (204, b"")


@both
async def test_client_certificate_is_passed_on(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    port = await start(nursery, keys)
    async with client(keys, port, http2=http2) as http:
        answer = await http.get("/certificate")
    assert answer.content == ssl.PEM_cert_to_DER_cert(keys.client[0].read_text())


@both
async def test_answer_larger_than_the_window_arrives(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    port = await start(nursery, keys)
    async with client(keys, port, http2=http2) as http:
        assert len((await http.get("/big")).content) == 300_000


async def test_many_streams_of_one_connection_are_answered_together(
    keys: Keys, nursery: trio.Nursery
) -> None:
    port = await start(nursery, keys)
    answers: list[int] = []
    async with client(keys, port, http2=True) as http, trio.open_nursery() as calls:

        async def one(number: int) -> None:
            answers.append(int((await http.get(f"/?n={number}")).text.split("=")[1]))

        for number in range(20):
            calls.start_soon(one, number)
    assert sorted(answers) == list(range(20))


@both
async def test_handler_that_raises_is_500_and_the_connection_goes_on(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    port = await start(nursery, keys)
    async with client(keys, port, http2=http2) as http:
        assert (await http.get("/raise")).status_code == 500
        assert (await http.get("/")).status_code == 200


@both
async def test_handler_that_overruns_is_500(keys: Keys, nursery: trio.Nursery, http2: bool) -> None:
    port = await start(nursery, keys, bounds=Bounds(handler_s=0.05))
    async with client(keys, port, http2=http2) as http:
        assert (await http.get("/sleep")).status_code == 500


@pytest.mark.parametrize("identity", ["", "stranger"])
async def test_caller_without_a_trusted_certificate_gets_no_answer(
    keys: Keys, nursery: trio.Nursery, identity: str
) -> None:
    port = await start(nursery, keys)
    async with client(keys, port, http2=False, identity=identity) as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/")
    async with client(keys, port, http2=False) as http:
        assert (await http.get("/")).status_code == 200


async def test_optional_certificate_may_be_absent_but_not_strange(
    keys: Keys, nursery: trio.Nursery
) -> None:
    port = await start(nursery, keys, client_cert="optional")
    async with client(keys, port, http2=False, identity="") as http:
        assert (await http.get("/certificate")).content == b""
    async with client(keys, port, http2=False, identity="stranger") as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/certificate")


async def test_body_over_the_bound_is_413(keys: Keys, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys, bounds=Bounds(body=10))
    async with client(keys, port, http2=False) as http:
        assert (await http.post("/", content=b"x" * 11)).status_code == 413
    async with client(keys, port, http2=True) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/", content=b"x" * 11)


async def test_bytes_that_are_not_http_are_400_and_nobody_else_notices(
    keys: Keys, nursery: trio.Nursery
) -> None:
    port = await start(nursery, keys)
    context = client_context(keys.ca, *keys.client)
    raw = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context)
    async with raw:
        await raw.send_all(b"\x00\x01 nonsense\r\n\r\n")
        assert (await raw.receive_some()).startswith(b"HTTP/1.1 400 ")
    async with client(keys, port, http2=False) as http:
        assert (await http.get("/")).status_code == 200


async def test_connection_that_says_nothing_is_closed(keys: Keys, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys, bounds=Bounds(handshake_s=0.05))
    async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
        assert await raw.receive_some() == b""


async def test_connections_over_the_bound_are_closed(keys: Keys, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys, bounds=Bounds(connections=1))
    async with client(keys, port, http2=False) as http:
        assert (await http.get("/")).status_code == 200
        async with client(keys, port, http2=False) as second:
            with pytest.raises(httpx.TransportError):
                await second.get("/")
        assert (await http.get("/")).status_code == 200


async def test_cancelling_the_site_ends_requests_under_way(keys: Keys) -> None:
    under_way = trio.Event()

    async def broken_off(http: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.TransportError):
            await http.get("/sleep")

    async def call(port: int) -> None:
        async with client(keys, port, http2=True) as http, trio.open_nursery() as pair:
            pair.start_soon(broken_off, http)
            assert (await http.get("/")).status_code == 200
            under_way.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as callers, trio.open_nursery() as site:
            callers.start_soon(call, await start(site, keys))
            await under_way.wait()
            site.cancel_scope.cancel()


@both
async def test_status_knob_answers_in_the_place_of_the_handler_for_so_many_requests(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    faults = Faults()
    port = await start(nursery, keys, faults=faults)
    faults.set(FaultPlan(status=503, times=2, path="/a"))
    async with client(keys, port, http2=http2) as http:
        seen = [(await http.get(path)).status_code for path in ("/a", "/b", "/a", "/a")]
    assert seen == [503, 200, 503, 200]


@both
async def test_wrong_shape_knob_keeps_status_and_changes_the_body(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    faults = Faults()
    faults.set(FaultPlan(wrong_shape=True))
    port = await start(nursery, keys, faults=faults)
    async with client(keys, port, http2=http2) as http:
        answer = await http.get("/")
    assert (answer.status_code, list(answer.json())) == (200, ["unexpected"])


@both
@pytest.mark.parametrize("knob", ["half_answer", "reset", "close"])
async def test_broken_answer_knobs_leave_the_caller_without_an_answer(
    keys: Keys, nursery: trio.Nursery, http2: bool, knob: str
) -> None:
    faults = Faults()
    faults.set(FaultPlan(times=1, **{knob: True}))
    port = await start(nursery, keys, faults=faults)
    async with client(keys, port, http2=http2) as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/big")
        assert (await http.get("/")).status_code == 200


@both
async def test_goaway_knob_answers_and_ends_the_connection(
    keys: Keys, nursery: trio.Nursery, http2: bool
) -> None:
    faults = Faults()
    faults.set(FaultPlan(times=1, goaway=True))
    port = await start(nursery, keys, faults=faults)
    async with client(keys, port, http2=http2) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/")).status_code == 200


async def test_latency_knob_waits_before_answering(keys: Keys, nursery: trio.Nursery) -> None:
    faults = Faults()
    faults.set(FaultPlan(latency_s=0.05))
    port = await start(nursery, keys, faults=faults)
    async with client(keys, port, http2=True) as http:
        begun = trio.current_time()
        await http.get("/")
        assert trio.current_time() - begun >= 0.05
