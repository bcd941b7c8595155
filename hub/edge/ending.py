"""A streamed answer is ended by whoever delivers it; apart from the delivery for the reason told in ``upstream.ending``."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def ended(stream: AsyncIterator[bytes], seconds: float) -> AsyncIterator[None]:
    """End a stream when the block is left, in whatever way; what the bank still sends is not waited for.

    Args:
        stream: An abandoned generator may still have its last event to make durable.
        seconds: How long it may take.

    Cancellation: the stream is ended all the same.
    """
    try:
        yield
    finally:
        if isinstance(stream, AsyncGenerator):
            with trio.move_on_after(seconds, shield=True):
                await stream.aclose()
        elif (close := getattr(stream, "close", None)) is not None:
            close()
