"""Read a list of organisations into buckets: at once where it is small, in a process of its own where it is large.

Parsing holds the interpreter, and a list of ten thousand organisations takes a tenth of a second. So the keeper's process hands a
large document to ``python -m hub.trust.reading`` and gets small encoded buckets back, of which it decodes only those that changed.

The child speaks over its standard streams: the document in; a msgpack map of bucket to content out, or a line of why not and
exit status 1.
"""

import subprocess
import sys
from typing import Final

import msgspec
import trio

from hub.trust.mirror import DocumentFault, Organisation, read_organisation, split_organisations
from hub.trust.snapshot import in_buckets

SMALL: Final = 131_072
"""Octets of a document that is read in this process: about sixty organisations, a millisecond."""
_DEADLINE_S: Final = 30.0
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


async def read_buckets(document: bytes) -> dict[str, bytes] | DocumentFault:
    """Read a document of any size without holding up whoever else uses this interpreter.

    Cancellation: the child is killed.
    """
    if len(document) <= SMALL:
        return buckets_of(document)
    command = [sys.executable, "-m", __name__]
    with trio.move_on_after(_DEADLINE_S):
        done = await trio.run_process(
            command, stdin=document, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
        if done.returncode == 0:
            return _BUCKETS.decode(done.stdout)
        return DocumentFault(done.stdout.decode(errors="replace")[:200] or "the reader failed")
    return DocumentFault(f"a list of organisations was not read within {_DEADLINE_S:.0f} s")


def main() -> int:
    """Read standard input, answer on standard output."""
    read = buckets_of(sys.stdin.buffer.read())
    if isinstance(read, DocumentFault):
        sys.stdout.buffer.write(read.why.encode())
        return 1
    sys.stdout.buffer.write(msgspec.msgpack.encode(read))
    return 0


if __name__ == "__main__":
    sys.exit(main())
