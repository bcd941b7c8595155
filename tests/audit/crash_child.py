"""A keeper and its log in a process of their own, under load, until somebody kills it or its disk fails.

Prints a line for each acknowledged event: ``I NAME INDEX`` for an intent, ``O NAME INDEX`` for its outcome, ``F CHECK`` for
a refusal. Exit status 5 when the disk broke its word, as the node's.
"""

import sys
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.audit.open import open_log
from hub.audit.publish import Publisher
from hub.audit.source import LogFailedError
from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.state.open import open_keeper
from hub.state.schema import StoreFailedError
from tests.state.keepers import NOW, limits

ORIGIN = "hub.example/bank/log"
_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PEM = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Quiet:
    def note(self, name, **fields):
        sys.stderr.write(f"{name} {fields}\n")

    def gauge(self, _name, _help, _value):
        pass


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def write(keeper, who: str, most: int) -> None:
    for number in range(most):
        name = f"{who}-{number}"
        for kind, mark in ((Kind.INTENT, "I"), (Kind.OUTCOME, "O")):
            event = Event(kind=kind, time_ms=NOW * 1000, interaction_id=name)
            done = await keeper.commit((), (event,))
            say(f"F {done.check}" if isinstance(done, Fault) else f"{mark} {name} {done[0]}")


async def main(folder: Path, prefix: str, writers: int, most: int, queue: int) -> None:
    clock = FixedClock(NOW)
    async with open_keeper(folder, clock=clock, limits=limits(commit_queue=queue)) as keeper:
        log = open_log(folder, origin=ORIGIN, pem=PEM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Publisher(log, keeper, Quiet(), every_s=0.02).run)
            async with trio.open_nursery() as load:
                for number in range(writers):
                    load.start_soon(write, keeper, f"{prefix}.{number}", most)
            nursery.cancel_scope.cancel()
        await log.publish(keeper)


if __name__ == "__main__":
    path, prefix, *numbers = sys.argv[1:]
    try:
        trio.run(main, Path(path), prefix, *map(int, numbers))
    except* (StoreFailedError, LogFailedError):
        sys.exit(5)
