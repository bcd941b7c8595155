"""Where everything of one sandbox is: ports from a base, addresses, files below one folder."""

import socket
from pathlib import Path
from typing import Final

import msgspec

from hub.node.errors import StartError

HOST: Final = "localhost"
LOOPBACK: Final = "127.0.0.1"
PORTS: Final = 50
_NAMES: Final = {
    0: "the Hub's TPP edge",
    1: "the Hub's LFI edge",
    2: "the Hub's ops listener",
    3: "the Hub's portal",
    10: "the directory",
    11: "the directory's API",
    12: "CRL and OCSP",
    13: "the witness of the audit logs",
    14: "the directory's page",
    20: "the bank's Ozone Connect",
    21: "the bank's pages",
    30: "the first TPP's redirect URI",
    31: "the second TPP's redirect URI",
    32: "the first TPP's webhooks",
    33: "the second TPP's webhooks",
}
_SECOND: Final = {
    40: "the second Hub's TPP edge",
    41: "the second Hub's LFI edge",
    42: "the second Hub's ops listener",
    44: "the second bank's Ozone Connect",
    45: "the second bank's pages",
}


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Say where things are.

    Attributes:
        folder: Absolute.
        base: First port.
    """

    folder: Path
    base: int

    def port(self, offset: int) -> int:
        """Return the port at an offset from the base, 0 to 49."""
        return self.base + offset

    def https(self, offset: int) -> str:
        """Return the https origin at an offset."""
        return f"https://{HOST}:{self.base + offset}"

    def http(self, offset: int) -> str:
        """Return the plain http origin at an offset."""
        return f"http://{HOST}:{self.base + offset}"

    @property
    def run(self) -> Path:
        """Return the folder of what lives only while the world does."""
        return self.folder / "run"

    @property
    def keys(self) -> Path:
        """Return the folder of keys and certificates."""
        return self.folder / "keys"

    @property
    def clock(self) -> Path:
        """Return the shared clock's file."""
        return self.run / "clock"

    def relative(self, path: Path) -> str:
        """Return a path as ``sandbox.json`` writes it: relative to the folder."""
        return str(path.relative_to(self.folder))


def check_ports(places: Places, *, second: bool = False) -> None:
    """See that every port of the world is free, those of a second tenant too where there is one.

    Raises:
        StartError: One is taken, or not one a program may use; the line names it and says what to do.
    """
    for offset, name in (_NAMES | (_SECOND if second else {})).items():
        port = places.port(offset)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As a server would: a port that lingers in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                raise StartError(
                    f"port {port} (for {name}) is in use; "
                    f"stop what listens there, or choose other ports with --port-base"
                ) from None
