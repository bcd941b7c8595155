"""The log as a read-only HTTP resource: which path is which file; for a tenant that publishes its log.

Only the names of tlog-tiles exist; everything else is not found, whatever lies in the folder. Tiles never change, so
they may be kept for ever; the checkpoint may be kept for a second.

Source: C2SP tlog-tiles, "APIs".
"""

import re
from pathlib import Path
from typing import Final

import msgspec

_TILE: Final = re.compile(
    r"months/[0-9]{4}-[0-9]{2}|tile/kept/(?:x[0-9]{3}/){0,5}[0-9]{3}|tile/(?:entries|[0-9]|[1-5][0-9]|6[0-3])/(?:x[0-9]{3}/){0,5}[0-9]{3}"
    r"(?:\.p/(?:[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)


class Resource(msgspec.Struct, frozen=True):
    """Hold one file of the log with its headers."""

    body: bytes
    content_type: str
    cache_control: str


def resource_at(folder: Path, path: str) -> Resource | None:
    """Return the resource at a path below the log's prefix, or None where there is none; reads a file of up to 17 MB.

    Args:
        folder: The log's folder, with ``checkpoint`` and ``tile``.
        path: Without leading slash: ``checkpoint``, ``tile/0/000``.
    """
    if path == "checkpoint":
        headers = ("text/plain; charset=utf-8", "max-age=1")
    elif _TILE.fullmatch(path):
        headers = ("application/octet-stream", "max-age=31536000, immutable")
    else:
        return None
    try:
        return Resource((folder / path).read_bytes(), *headers)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
