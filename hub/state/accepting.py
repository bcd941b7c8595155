"""Accept on the Hub's own Unix sockets, also where the machine has run out of descriptors for a while.

A crowd at the edge may use them all up. What operators, workers and the supervisor ask must wait then, not end the process.
"""

import errno
from typing import Final

import trio

EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
BREATH_S: Final = 0.1


async def accepted(listening: trio.socket.SocketType) -> trio.socket.SocketType:
    """Return the next connection; it waits in the kernel's queue until there is a descriptor for it.

    Raises:
        OSError: the socket is of no more use.

    Cancellation: no connection is lost.
    """
    while True:
        try:
            return (await listening.accept())[0]
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
        await trio.sleep(BREATH_S)
