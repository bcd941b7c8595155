"""What a worker and its keeper say to each other over their Unix socket: messages, in frames of many.

A frame is four octets of length (big-endian) and a msgpack array of messages. Both ends are the same version of the
same software (``Hello`` says which), run by the same user, and trust each other; the bounds guard against bugs.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from hub.model.fault import Fault
from hub.state.keeper import (
    Claim,
    Conflict,
    Granted,
    Invalidation,
    Page,
    Query,
    TreeHead,
    Versioned,
)
from hub.state.work import Commit

PROTOCOL: Final = 4
"""Of what is said here, to the last member: a worker that is replaced after an upgrade of the files meets the older keeper."""
FRAME_OCTETS: Final = 64 * 1024 * 1024


class FrameError(Exception):
    """Say that the other end does not keep to the protocol."""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


# Questions of a worker


class AskClaim(_Message, frozen=True, tag="claim"):
    """``Keeper.claim``."""

    batch: tuple[Claim, ...]


class AskLookup(_Message, frozen=True, tag="lookup"):
    """``Keeper.lookup``."""

    kind: str
    key: str


class AskSearch(_Message, frozen=True, tag="search"):
    """``Keeper.search``."""

    query: Query


class AskEvents(_Message, frozen=True, tag="events"):
    """``Keeper.events``."""

    start: int
    limit: int


class AskTrace(_Message, frozen=True, tag="trace"):
    """``Keeper.trace``."""

    interaction_id: str


class AskHead(_Message, frozen=True, tag="head"):
    """``Keeper.head``."""


Question = AskClaim | AskLookup | AskSearch | AskEvents | AskTrace | AskHead


# Answers of the keeper


class Indices(_Message, frozen=True, tag="indices"):
    """The commit is durable."""

    indices: tuple[int, ...]


class Lost(_Message, frozen=True, tag="lost"):
    """The commit met a conflict."""

    conflict: Conflict


class Answered(_Message, frozen=True, tag="answered"):
    """The claims are decided."""

    granted: tuple[Granted, ...]


class Refused(_Message, frozen=True, tag="refused"):
    """The keeper cannot take the write."""

    fault: Fault


class Found(_Message, frozen=True, tag="found"):
    """A record, or none."""

    item: Versioned | None


class Matches(_Message, frozen=True, tag="matches"):
    """What a search found."""

    page: Page


class Leaves(_Message, frozen=True, tag="leaves"):
    """Events."""

    leaves: tuple[bytes, ...]


class Traced(_Message, frozen=True, tag="traced"):
    """The events of an interaction."""

    events: tuple[tuple[int, bytes], ...]


class Head(_Message, frozen=True, tag="treehead"):
    """The tree head."""

    head: TreeHead


class Bug(_Message, frozen=True, tag="bug"):
    """The keeper raised; the worker raises too."""

    text: str


Reply = Indices | Lost | Answered | Refused | Found | Matches | Leaves | Traced | Head | Bug


# The connection's own messages


class Hello(_Message, frozen=True, tag="hello"):
    """A worker's first message."""

    protocol: int


class Ask(_Message, frozen=True, tag="ask"):
    """A question under a number."""

    number: int
    question: Question


class Write(_Message, frozen=True, tag="write"):
    """``Keeper.commit`` under a number: already written down, for the keeper only passes it on."""

    number: int
    work: Commit


class Renew(_Message, frozen=True, tag="renew"):
    """A worker wants its lease renewed; the number names the renewal."""

    number: int


class Heard(_Message, frozen=True, tag="heard"):
    """A worker has forgotten everything up to that number of ``Changed``."""

    number: int


class Bye(_Message, frozen=True, tag="bye"):
    """A worker gives its lease back and goes."""


class Told(_Message, frozen=True, tag="reply"):
    """The answer to a question by its number."""

    number: int
    reply: Reply


class Lease(_Message, frozen=True, tag="lease"):
    """The lease runs for its full length from the moment that the renewal with that number was sent."""

    number: int


class Changed(_Message, frozen=True, tag="changed"):
    """These records changed; to be heard before the change is acknowledged."""

    number: int
    records: tuple[Invalidation, ...]


FromWorker = Hello | Ask | Write | Renew | Heard | Bye
FromKeeper = Told | Lease | Changed

_ENCODER: Final = msgspec.msgpack.Encoder()
from_worker: Final = msgspec.msgpack.Decoder(tuple[FromWorker, ...])
from_keeper: Final = msgspec.msgpack.Decoder(tuple[FromKeeper, ...])


def frame_of(messages: Sequence[FromWorker] | Sequence[FromKeeper]) -> bytes:
    """Return the frame of some messages.

    Raises:
        FrameError: It would be longer than 64 MiB.
    """
    body = _ENCODER.encode(messages)
    if len(body) > FRAME_OCTETS:
        raise FrameError(f"a frame of {len(body)} octets")
    return len(body).to_bytes(4) + body


@final
class Frames:
    """Cut received octets into the bodies of frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Take octets in, give complete bodies out.

        Raises:
            FrameError: The other end announced a frame longer than 64 MiB.
        """
        buffer = self._buffer
        buffer += data
        bodies = []
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[:4])
            if length > FRAME_OCTETS:
                raise FrameError(f"a frame of {length} octets was announced")
            if len(buffer) < 4 + length:
                break
            bodies.append(bytes(buffer[4 : 4 + length]))
            del buffer[: 4 + length]
        return bodies
