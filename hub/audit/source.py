"""Where the log's events come from: the part of the keeper that the audit log needs, and no more."""

from typing import Protocol


class Head(Protocol):
    """The size and the RFC 9162 root of the committed events."""

    @property
    def size(self) -> int:
        """Return the number of events."""
        ...

    @property
    def root(self) -> bytes:
        """Return the root hash."""
        ...


class Events(Protocol):
    """Give committed events; every keeper does."""

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` (at most 1000) events from index ``start`` on."""
        ...

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first."""
        ...

    async def head(self) -> Head:
        """Return the tree head as last committed."""
        ...


class LogFailedError(Exception):
    """Say that the disk broke its word to the log (a failed fsync): the process must end, as after StoreFailedError."""
