"""A refused certificate is named in the log, with the reason; the watch costs later records nothing."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hub.edge.presented import forget, leaf_of, presented
from hub.edge.tls import ServerTls, refusal_reason
from hub.edge.transport import TlsTransport
from tests.edge import rig
from tests.edge.test_lifecycle import refused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_refused_certificate_is_named_with_reason_subject_and_dates(version):
    over = datetime.now(UTC) - timedelta(days=1)
    context = rig.client_context(certificate=False)
    context.maximum_version = version
    issued = rig.papers().clients.issue_cert("a@example.test", common_name="tpp-7", not_after=over)
    issued.configure_cert(context)
    leaf = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    async with rig.listening(rig.echo_router()) as place:
        assert await refused(place, context)
    (fields,) = [f for name, f in place.notebook.notes if name == "handshake_refused"]
    assert fields["reason"] == "certificate_has_expired"
    assert fields["serial"] == f"{leaf.serial_number:x}"
    assert "CN=tpp-7" in fields["subject"]
    assert fields["not_after"] == leaf.not_valid_after_utc.isoformat()
    assert len(fields["certificate"]) == 43


async def test_a_peer_without_a_certificate_is_refused_without_one_being_named():
    async with rig.listening(rig.echo_router()) as place:
        stream = await trio.open_tcp_stream("127.0.0.1", place.port)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await rig.read_all(stream)
        await trio.aclose_forcefully(stream)
    (fields,) = [f for name, f in place.notebook.notes if name == "handshake_refused"]
    assert "certificate" not in fields


@given(st.binary(max_size=200), st.booleans())
def test_noise_is_never_an_error(noise, tls13):
    assert isinstance(leaf_of(noise, tls13=tls13), bytes)


def test_a_certificate_that_cannot_be_read_is_named_by_its_thumbprint():
    class Connection:
        presented = b"noise"

    assert list(presented(Connection())) == ["certificate"]


def test_the_watch_ends_with_the_handshake():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    forget(connection)
    assert connection.context is not context
    assert connection.context._msg_callback is None


async def test_who_leaves_with_a_refused_certificate_is_refused_for_the_certificate():
    made = rig.papers()
    tls = ServerTls(made.certificate, made.key, made.client_ca)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = rig.client_context(issuer=trustme.CA())
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    transport = TlsTransport(ours, tls.context)
    found: list[ssl.SSLError] = []

    async def shake() -> None:
        try:
            await transport.handshake(trio.Semaphore(1))
        except ssl.SSLError as error:
            found.append(error)

    with ours, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            theirs.sendall(outgoing.read())
            nursery.start_soon(shake)
            await trio.lowlevel.wait_readable(theirs)
            incoming.write(theirs.recv(65536))
            client.do_handshake()
            theirs.sendall(outgoing.read())
            theirs.close()
    assert refusal_reason(found[0]) == "unable_to_get_local_issuer_certificate"
