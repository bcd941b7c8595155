"""Which text is an address that may be configured: https, a host, and nothing that hides in a URL."""

import re
from collections.abc import Mapping
from typing import Final

_AUTHORITY: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
"""A host name, IPv4 address or IPv6 address in brackets, and a port if one is given; RFC 3986 section 3.2."""


def is_https(url: str) -> bool:
    """Tell whether a URL is https with a host, in ASCII, without user, query, fragment or white space."""
    rest = url.removeprefix("https://")
    found = _AUTHORITY.fullmatch(rest.partition("/")[0])
    clean = rest.isascii() and rest.isprintable() and not any(mark in rest for mark in "?#@\\ ")
    good_port = found is not None and 1 <= int(found["port"] or 443) <= 65535
    return rest != url and good_port and clean


def is_origin(url: str) -> bool:
    """Tell whether a URL is https, host and port only: no path, not even a slash."""
    return is_https(url) and "/" not in url.removeprefix("https://")


def wrong_addresses(
    *, origins: Mapping[str, str], pages: Mapping[str, str], lists: Mapping[str, str]
) -> tuple[str, ...]:
    """Return one sentence for each address that is not what it should be.

    Args:
        origins: Host and port only, by name.
        pages: https, a path allowed, no trailing slash.
        lists: http or https, since what is there is signed; empty for none.
    """
    found = [
        f"{name}: expected an https URL of host and port only (no path, query or trailing slash), got {url!r}"
        for name, url in origins.items()
        if not is_origin(url)
    ]
    found += [
        f"{name}: expected an https URL without query, fragment or trailing slash, got {url!r}"
        for name, url in pages.items()
        if not is_https(url) or url.endswith("/")
    ]
    found += [
        f"{name}: expected an http or https URL without query or fragment, got {url!r}"
        for name, url in lists.items()
        if url and not is_https(url.replace("http://", "https://", 1))
    ]
    return tuple(found)
