"""HPACK: RFC 7541's own examples, its refusals, and the hpack package as oracle."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol.hpack import Decoder, HpackError, ListTooLarge, encode, huffman

FIELD = st.tuples(
    st.one_of(
        st.sampled_from([b"authorization", b"x-a", b":path", b"cookie"]), st.binary(max_size=40)
    ),
    st.one_of(st.sampled_from([b"/", b"200", b""]), st.binary(max_size=300)),
)


def test_appendix_c_4_requests_with_huffman():
    decoder = Decoder(32768)
    assert decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))[3] == (
        b":authority",
        b"www.example.com",
    )
    assert decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf"))[4] == (
        b"cache-control",
        b"no-cache",
    )
    third = decoder.decode(bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))
    assert third[4] == (b"custom-key", b"custom-value")
    assert third[3] == (b":authority", b"www.example.com")


@given(st.lists(st.lists(FIELD, max_size=12), max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_the_package_encodes_is_decoded_to_the_same(blocks, coded):
    encoder, decoder = hpack.Encoder(), Decoder(1 << 20)
    for fields in blocks:
        assert decoder.decode(encoder.encode(fields, huffman=coded)) == fields


@given(st.lists(FIELD, max_size=20))
@settings(max_examples=100, deadline=None)
def test_what_we_encode_the_package_decodes_to_the_same(fields):
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    assert [tuple(f) for f in decoder.decode(encode(tuple(fields)), raw=True)] == fields


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_octets_are_decoded_as_the_package_does_or_refused(octets):
    """We are stricter in one point: an integer may have at most four octets after its prefix."""
    oracle = hpack.Decoder(max_header_list_size=4096)
    oracle.max_allowed_table_size = 4096
    try:
        expected = [tuple(f) for f in oracle.decode(octets, raw=True)]
    except hpack.HPACKError:
        expected = None
    try:
        found = Decoder(4096).decode(octets)
    except HpackError:
        found = None
    if found is not None:
        assert found == expected


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_huffman_strings_survive(octets):
    coded = hpack.huffman.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    ).encode(octets)
    assert huffman(coded) == octets


@pytest.mark.parametrize(
    ("name", "octets"),
    {
        "2.3.3 index beyond the tables": "be",
        "6.1 index 0": "80",
        "5.1 integer without end": "ffffffffffff7f",
        "5.2 string cut short": "400561",
        "5.2 padding of eight bits": "4085f2b24a84ff8325a849ff",
        "5.2 padding of zeros": "408298a0820000",
        "5.2 EOS in a string": "4084ffffffff0161",
        "4.2 size update inside a block": "823fe10f",
        "4.2 size update beyond the bound": "3fe21f",
    }.items(),
)
def test_section(name, octets):
    with pytest.raises(HpackError):
        Decoder(32768).decode(bytes.fromhex(octets))
    assert name


def test_size_update_empties_the_table():
    decoder = Decoder(32768)
    decoder.decode(bytes.fromhex("4001610162"))
    assert decoder.decode(b"\xbe") == [(b"a", b"b")]
    assert decoder.decode(b"\x20\x82") == [(b":method", b"GET")]
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_entry_larger_than_the_table_empties_it_and_is_no_error():
    decoder = Decoder(32768)
    decoder.decode(bytes.fromhex("4001610162"))
    large = hpack.Encoder().encode([(b"x", b"y" * 5000)], huffman=False)
    assert decoder.decode(large) == [(b"x", b"y" * 5000)]
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_bomb_is_refused_at_the_bound_whatever_it_references():
    decoder = Decoder(32768)
    decoder.decode(hpack.Encoder().encode([(b"x", b"y" * 4000)], huffman=False))
    with pytest.raises(ListTooLarge):
        decoder.decode(b"\xbe" * 4000)
