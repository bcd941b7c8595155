"""The header of a payment's sealed part: checked, and the part itself left unread."""

from base64 import urlsafe_b64encode

import orjson
import pytest

from hub.gateway.sealed import sealed_fault

GOOD = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": "enc-1"}


def sealed(header, parts=4):
    octets = header if isinstance(header, bytes) else orjson.dumps(header)
    return ".".join([urlsafe_b64encode(octets).decode().rstrip("="), *["x"] * parts])


async def fault_of(value, current=("enc-1",)):
    async def is_current(kid):
        return kid in current

    return await sealed_fault({"Data": {"PersonalIdentifiableInformation": value}}, is_current)


async def test_a_part_sealed_for_a_current_key_passes_unread():
    assert await fault_of(sealed(GOOD)) is None


async def test_an_order_without_a_sealed_part_passes():
    assert await sealed_fault({"Data": {}}, None) is None


async def test_a_part_in_the_clear_is_refused_and_so_never_kept():
    fault = await fault_of({"Initiation": {}})
    assert (fault.status, fault.code, fault.check) == (400, "JWE.DecryptionError", "jwe.form")


async def test_a_key_that_the_bank_has_withdrawn_is_told():
    fault = await fault_of(sealed(GOOD), current=("enc-2",))
    assert (fault.status, fault.code, fault.check) == (400, "JWE.InvalidHeader", "jwe.key")
    assert (
        await sealed_fault({"Data": {"PersonalIdentifiableInformation": sealed(GOOD)}}, None)
        is None
    )


@pytest.mark.parametrize(
    "header",
    [
        {**GOOD, "alg": "RSA1_5"},
        {**GOOD, "alg": "RSA-OAEP"},
        {**GOOD, "enc": "A128CBC-HS256"},
        {"alg": "RSA-OAEP-256", "enc": "A256GCM"},
        {**GOOD, "kid": 7},
        b"not json",
        b"[]",
        b'{"alg":"RSA-OAEP-256","alg":"RSA-OAEP-256","enc":"A256GCM","kid":"enc-1"}',
        {**GOOD, "x": "y" * 4000},
    ],
)
async def test_other_headers_are_refused(header):
    fault = await fault_of(sealed(header))
    assert (fault.status, fault.code) == (400, "JWE.InvalidHeader")
    assert "y" * 20 not in fault.public


@pytest.mark.parametrize("value", ["", "a.b.c", sealed(GOOD, 5), sealed(GOOD, 4)[:-1]])
async def test_what_has_not_five_parts_is_refused(value):
    fault = await fault_of(value)
    assert (fault.status, fault.code) == (400, "JWE.DecryptionError")
