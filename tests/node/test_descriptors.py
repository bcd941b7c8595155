"""The soft bound of open files follows the bounds on connections, within the hard one."""

import resource

import msgspec
import pytest

from hub.config import Limits, default_limits
from hub.node.descriptors import allow_descriptors

NEEDED = 2 * 100 + 10 + 256
INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((64, 4096), (NEEDED, 4096)),
        ((64, INFINITY), (NEEDED, INFINITY)),
        ((64, 300), (300, 300)),
        ((1024, 4096), None),
        ((INFINITY, INFINITY), None),
    ],
)
def test_no_more_than_is_needed_and_allowed(monkeypatch, before, after):
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, bounds: made.append(bounds))
    few = {"connections": 100, "bank_connections": 10}
    allow_descriptors(msgspec.convert({**default_limits(), **few}, Limits))
    assert made == ([] if after is None else [after])
