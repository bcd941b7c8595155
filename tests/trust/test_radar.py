"""The expiry radar: nothing that the tenant depends on ends without having been announced."""

import pytest
from cryptography.hazmat.primitives import serialization

from hub.sandbox.pki import read_certificate
from hub.trust.radar import DAY, Mark, mark_of, nearest, scan_files, scan_seen
from tests.trust.framework import APP, NOW, material


@pytest.mark.parametrize(
    ("left", "mark"),
    [
        (61 * DAY, Mark.FINE),
        (60 * DAY, Mark.SIXTY),
        (30 * DAY + 1, Mark.SIXTY),
        (30 * DAY, Mark.THIRTY),
        (7 * DAY, Mark.SEVEN),
        (1, Mark.SEVEN),
        (0, Mark.OVER),
        (-5, Mark.OVER),
    ],
)
def test_an_end_is_announced_sixty_thirty_and_seven_days_ahead(left, mark):
    assert mark_of(NOW + left, NOW) is mark


def test_files_are_scanned_with_every_certificate_of_their_chain():
    _, keys = material()
    found = scan_files({"tpp edge": keys["server"].cert_path}, NOW + 396 * DAY)
    assert [b.mark for b in found] == [Mark.SEVEN, Mark.FINE]
    assert found[0].what == "tpp edge"


def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "noise.pem").write_text("noise")
    found = scan_files({"a": tmp_path / "absent.pem", "b": tmp_path / "noise.pem"}, NOW)
    assert [b.mark for b in found] == [Mark.OVER, Mark.OVER]


def test_callers_certificates_are_on_the_radar_nearest_first():
    _, keys = material()
    ders = [
        read_certificate(keys[name].cert_path).public_bytes(serialization.Encoding.DER)
        for name in ("c1", "c4")
    ]
    found = scan_seen([*ders, b"noise"], NOW + 395 * DAY)
    assert APP in {b.owner for b in found}
    assert len(nearest(found)) == 2
    assert nearest(scan_seen(ders, NOW)) == ()
