"""Keep the published log close behind the committed one."""

import errno
from typing import Final

import trio

from hub.audit.log import Log
from hub.audit.source import Events, LogFailedError
from hub.audit.tiles import LogError
from hub.observe import Observer

_EVERY_S: Final = 1.0
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def publish_forever(
    log: Log, keeper: Events, observer: Observer, *, every_s: float = _EVERY_S
) -> None:
    """Publish and sign each second until cancelled; stop for good when the log does not fit the keeper.

    A full disk is waited out. A log that does not fit is noted as ``audit_log_refused``: requests go on (their events
    are durable in the keeper's tree), nothing is signed, and a person must look.

    Raises:
        LogFailedError: The disk broke its word; the process must end.
    """
    while True:
        try:
            await log.publish(keeper)
        except LogError as error:
            observer.note("audit_log_refused", reason=str(error))
            return
        except OSError as error:
            if error.errno not in _PASSING:
                raise LogFailedError(f"the audit log could not be written: {error}") from error
            observer.note("audit_log_waiting", reason=str(error))
        observer.gauge("hub_audit_published", "Events in the last signed checkpoint", log.size)
        await trio.sleep(every_s)
