"""Open files: as many as the bounds on connections need, as far as the system allows."""

import resource
from typing import Final

from hub.config import Limits

_OTHERS: Final = 256
"""The database, the log, the trust snapshot, sockets of the operator and of workers."""


def allow_descriptors(limits: Limits) -> None:
    """Raise this process's soft bound of open files to what its connections may need, at most to the hard one.

    Many systems start programs with 1,024. Beyond the bound ``accept`` fails: newcomers wait, and it is noted.
    Source: getrlimit(2).
    """
    needed = 2 * limits.connections + limits.bank_connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
