"""A streamed body is ended by whoever sends it.

Here and not beside the senders, because those may be compiled (mypyc): an ``await`` in a ``finally`` then leaves its
exception behind as the one being handled, and the next such ``finally`` of the task raises it again.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def ended(stream: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """End a generator when the block is left, in whatever way; what is no generator needs no end.

    Cancellation: the generator is told.
    """
    try:
        yield
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
