"""Ask a running node something over its operator's socket; what ``hub admin`` and ``hub audit`` do."""

import socket
from pathlib import Path
from typing import Any, Final

import orjson

from hub.config import load
from hub.node.errors import StartError
from hub.state.address import address_of

_PATIENCE_S: Final = 60.0
_ANSWER_OCTETS: Final = 16_777_216


def ask(configuration: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send one command to the Hub of a configuration and return its answer.

    Raises:
        ConfigError: The configuration is wrong.
        StartError: No Hub answers there.
    """
    path = load(configuration).settings.state.folder / "admin.sock"
    held = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(_PATIENCE_S)
            with address_of(path) as address:
                line.connect(address)
            line.sendall(orjson.dumps(request) + b"\n")
            while not held.endswith(b"\n") and (piece := line.recv(65_536)):
                held += piece
                if len(held) > _ANSWER_OCTETS:
                    raise StartError(f"{path}: the answer is too long")
        answer = orjson.loads(held)
    except TimeoutError:
        raise StartError(
            f"{path}: the Hub took the command and has not answered within {_PATIENCE_S:.0f} s; it may still carry it out"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StartError(
            f"{path}: no Hub listens there, or not to this user ({type(error).__name__}); "
            f"is it running, and is --config its configuration?"
        ) from None
    return dict(answer)
