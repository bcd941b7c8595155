"""No core file: what a process has in memory (payloads, keys) is never written to a disk by the kernel."""

import resource
from typing import Final

_NONE: Final = (1, 1)
"""Octets: too few for any core file; and the kernel pipes no core to a program whose process has exactly this limit."""


def forbid_core_files() -> None:
    """Take from this process, and from all that it starts, the leave to dump core; it cannot be had back.

    Source: core(5); reliability group M6.
    """
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        resource.setrlimit(resource.RLIMIT_CORE, _NONE)
