"""What is to be said to the other end of the keeper's socket: gathered while a send is under way, sent as one frame."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, final

import trio

from hub.state.frames import FrameError, frame_of

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
            FrameError: A message is longer than a frame may be.
        """
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._messages:
                some, self._messages = (
                    self._messages[:_FRAME_MESSAGES],
                    self._messages[_FRAME_MESSAGES:],
                )
                for frame in _frames_of(some):
                    await self._stream.send_all(frame)


def _frames_of(messages: Sequence[Any]) -> Iterator[bytes]:
    """Give the frame of some messages; more than one where they would be too long together.

    Raises:
        FrameError: One of them is too long by itself.
    """
    try:
        frame = frame_of(messages)
    except FrameError:
        if len(messages) == 1:
            raise
        half = len(messages) // 2
        yield from _frames_of(messages[:half])
        yield from _frames_of(messages[half:])
    else:
        yield frame
