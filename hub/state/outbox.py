"""What is to be said to the other end of the keeper's socket: gathered while a send is under way, sent as one frame."""

from collections.abc import Sequence
from typing import Any, Final, final

import trio

from hub.state.frames import frame_of

MOST: Final = 100_000
"""Messages waiting for an other end that does not read; beyond it the connection is given up."""

_FRAME_MESSAGES: Final = 512


@final
class Outbox:
    """Gather messages and send them in order."""

    def __init__(self, stream: trio.SocketStream) -> None:
        """Send on this stream."""
        self._stream = stream
        self._messages: list[Any] = []
        self._wake = trio.Event()

    def say(self, message: Any) -> None:
        """Add a message; never waits.

        Raises:
            trio.BrokenResourceError: The other end has not read for too long.
        """
        if len(self._messages) >= MOST:
            raise trio.BrokenResourceError("the other end of the keeper's socket does not read")
        self._messages.append(message)
        self._wake.set()

    def say_all(self, messages: Sequence[Any]) -> None:
        """Add some messages, as ``say`` does each.

        Raises:
            trio.BrokenResourceError: The other end has not read for too long.
        """
        for message in messages:
            self.say(message)

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            trio.BrokenResourceError: The connection is gone.
            FrameError: A frame would be too long.
        """
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._messages:
                some, self._messages = (
                    self._messages[:_FRAME_MESSAGES],
                    self._messages[_FRAME_MESSAGES:],
                )
                await self._stream.send_all(frame_of(some))
