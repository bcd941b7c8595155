"""Where the Hub may connect to when others name the address: https, the standard port range, and public networks only.

A name is resolved once; the connection goes to exactly the address that was judged (no second look-up that could answer
differently), while server name and certificate are still those of the name. A sandbox lives on loopback and may allow it.

Source: issue 6 point 5; reliability.md group G.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio

from hub.model.fault import Fault, hub_fault

_URL_MOST: Final = 2048
_FORBIDDEN_PORTS: Final = range(1, 443)
_NETWORKS: Final = 16
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""RFC 4291 section 2.4; what the internet's registries give out."""


class Destination(msgspec.Struct, frozen=True):
    """Hold a URL taken apart: where it leads and what is asked there."""

    host: str
    port: int
    authority: str
    target: str


def destination_of(url: str) -> Destination | Fault:
    """Take an https URL apart.

    Faults: check ``outbound.url`` for anything that is not a plain https URL of a name or address.
    """
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not plain or len(url) > _URL_MOST or not url.startswith("https://"):
        return _refused("outbound.url", "expected an https URL")
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        return _refused("outbound.url", "expected an https URL")
    host = (parts.hostname or "").rstrip(".")
    if not host or "@" in parts.netloc or "%" in parts.netloc or parts.fragment:
        return _refused("outbound.url", "expected no user, no fragment, and a host")
    if port in _FORBIDDEN_PORTS:
        return _refused("outbound.port", "expected port 443 or above")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(host, port, parts.netloc, target)


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, in every disguise of it."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found.packed[:12] == b"\x00\x64\xff\x9b" + bytes(8):
            inner = IPv4Address(found.packed[12:])  # NAT64
        if inner is not None:
            return is_public(str(inner))
        if found not in _GLOBAL_UNICAST:
            return False  # nothing else is of the internet, whatever it maps or once meant
    return found.is_global and not found.is_multicast


async def resolve(destination: Destination, *, private_allowed: bool) -> str | Fault:
    """Return the one address to connect to.

    Faults: check ``outbound.name`` if it does not resolve, ``outbound.private`` if any of its addresses is not public.

    Cancellation: harmless.
    """
    try:
        found = await trio.socket.getaddrinfo(
            destination.host, destination.port, type=trio.socket.SOCK_STREAM
        )
    except OSError:
        return _refused("outbound.name", "the host name does not resolve")
    addresses = [str(entry[4][0]) for entry in found[:_NETWORKS]]
    if not addresses:
        return _refused("outbound.name", "the host name does not resolve")
    if not private_allowed and not all(map(is_public, addresses)):
        return _refused("outbound.private", "the host is not on a public network")
    return addresses[0]


def _refused(check: str, why: str) -> Fault:
    return hub_fault(
        500, "GenericError", "The address may not be called.", check=check, private=why
    )
