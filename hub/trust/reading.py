"""Read a list of organisations into buckets: at once where it is small, in a process of its own where it is large.

Parsing holds the interpreter, and so does every copy of a large document: a list of ten thousand organisations would keep
requests waiting for a tenth of a second. So the pieces of a large document go on to ``python -m hub.trust.reading`` as they
arrive, and what comes back are the small encoded buckets that differ from those that the caller holds.

The child speaks over its standard streams. In: four octets with the length of a msgpack map of bucket to digest, that
map, the document. Out: a msgpack map of bucket to content; or a line of why not, and exit status 1.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import msgspec
import trio

from hub.trust.mirror import DocumentFault, Organisation, read_organisation, split_organisations
from hub.trust.snapshot import in_buckets

SMALL: Final = 131_072
"""Octets of a document that is read in this process: about sixty organisations, a millisecond."""
_DEADLINE_S: Final = 30.0
_END_S: Final = 5.0
_NICE: Final = 10
_BUCKETS: Final = msgspec.msgpack.Decoder(dict[str, bytes])


def buckets_of(document: bytes) -> dict[str, bytes] | DocumentFault:
    """Read a document and return the content of every bucket."""
    rows = split_organisations(document)
    if isinstance(rows, DocumentFault):
        return rows
    found: dict[str, Organisation] = {}
    for row in rows:
        organisation = read_organisation(row)
        if organisation is not None:
            found[organisation.id] = organisation
    return in_buckets(found.values())


@final
class Reader:
    """Take one document in pieces, and tell what is in it. Made by ``reading``."""

    def __init__(self, held: Mapping[str, bytes]) -> None:
        """Use ``reading``."""
        self._held = held
        self._small = bytearray()
        self.child: trio.Process | None = None

    async def take(self, piece: bytes) -> None:
        """Take the next piece. Cancellation: the document cannot be read any more."""
        if self.child is not None:
            await self._feed(self.child, piece)
            return
        self._small += piece
        if len(self._small) > SMALL:
            self.child = await trio.lowlevel.open_process(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            digests = msgspec.msgpack.encode({b: _digest(c) for b, c in self._held.items()})
            await self._feed(self.child, len(digests).to_bytes(4) + digests)
            await self._feed(self.child, bytes(self._small))

    async def changed(self) -> dict[str, bytes] | DocumentFault:
        """Return the buckets that differ from those held, once the document is complete.

        Cancellation: harmless.
        """
        if self.child is None:
            read = buckets_of(bytes(self._small))
            return read if isinstance(read, DocumentFault) else _differing(read, self._held)
        with trio.move_on_after(_DEADLINE_S):
            said = await self._answer(self.child)
            if self.child.returncode == 0:
                return _BUCKETS.decode(said)
            return DocumentFault(said.decode(errors="replace")[:200] or "the reader failed")
        return DocumentFault(f"a list of organisations was not read within {_DEADLINE_S:.0f} s")

    async def _feed(self, child: trio.Process, data: bytes) -> None:
        """Write to a child; one that is gone is told of when it is asked."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await _input(child).send_all(data)

    async def _answer(self, child: trio.Process) -> bytes:
        await _input(child).aclose()
        said = bytearray()
        async for piece in _output(child):
            said += piece
        await child.wait()
        return bytes(said)


@asynccontextmanager
async def reading(held: Mapping[str, bytes]) -> AsyncIterator[Reader]:
    """Read one document of any size without holding up whoever else uses this interpreter.

    Args:
        held: The content of each bucket as it was before.

    Cancellation: the child is killed.
    """
    reader = Reader(held)
    try:
        yield reader
    finally:
        if reader.child is not None:
            await _end(reader.child)


async def _end(child: trio.Process) -> None:
    if child.returncode is None:
        child.kill()
    with trio.move_on_after(_END_S, shield=True):
        await child.wait()
        await _input(child).aclose()
        await _output(child).aclose()


def _input(child: trio.Process) -> trio.abc.SendStream:
    if child.stdin is None:
        raise RuntimeError("a child without an input")
    return child.stdin


def _output(child: trio.Process) -> trio.abc.ReceiveStream:
    if child.stdout is None:
        raise RuntimeError("a child without an output")
    return child.stdout


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _differing(read: Mapping[str, bytes], held: Mapping[str, bytes]) -> dict[str, bytes]:
    return {bucket: content for bucket, content in read.items() if held.get(bucket) != content}


def main() -> int:
    """Read standard input, answer on standard output; be nice to those who serve requests meanwhile."""
    os.nice(_NICE)
    source = sys.stdin.buffer
    digests = _BUCKETS.decode(source.read(int.from_bytes(source.read(4))))
    read = buckets_of(source.read())
    if isinstance(read, DocumentFault):
        sys.stdout.buffer.write(read.why.encode())
        return 1
    changed = {b: content for b, content in read.items() if digests.get(b) != _digest(content)}
    sys.stdout.buffer.write(msgspec.msgpack.encode(changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
