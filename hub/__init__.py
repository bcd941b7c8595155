"""API Hub: an open-source gateway, authorization server and consent store for open finance."""

from typing import Final

__version__: Final = "0.1.0"
