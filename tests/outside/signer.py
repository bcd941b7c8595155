"""Sign a message per line as the sandbox's first TPP: for outside programs that cannot."""

import json
import sys
from pathlib import Path

from hub.node.wall import SystemDice
from hub.sandbox.clock import SharedClock
from hub.sandbox.manifest import read_manifest
from hub.sandbox.tpp.identity import Identity


def main(folder: Path) -> None:
    """Answer each line of standard input with the compact JWS around it."""
    manifest = read_manifest(folder)
    clock = SharedClock.open(folder / "run/clock")
    tpp = Identity.read(manifest.tpps[0], folder, manifest.ca_bundle, clock, SystemDice())
    for line in sys.stdin:
        now = clock.now()
        known = {"iss": tpp.client_id, "aud": manifest.hub.issuer, "iat": now, "nbf": now}
        print(tpp.sign({**known, "exp": now + 120, "message": json.loads(line)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
