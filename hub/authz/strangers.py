"""Count the refusals of callers without a certificate, so that nobody can fill the disk with them.

Per source network, check and minute one event is written at once; what follows in that minute is counted and told by the
next event of that network and check. A network is an IPv4 /24 or an IPv6 /64.

Source: architecture 2.5.
"""

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

_KEYS: Final = 4096


class Strangers:
    """Remember who was refused without a certificate, in bounded memory."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._counted: dict[tuple[str, str], tuple[int, int]] = {}

    def count(self, address: str, check: str, now: int) -> int:
        """Count one refusal; return how many the event to be written stands for, 0 for no event.

        Args:
            address: Of the caller.
            check: That refused it.
            now: Seconds since 1970.
        """
        key, minute = (network_of(address), check), now // 60
        last, untold = self._counted.pop(key, (-1, 0))
        if last == minute:
            self._counted[key] = (minute, untold + 1)
            return 0
        while len(self._counted) >= _KEYS:
            self._counted.pop(next(iter(self._counted)))
        self._counted[key] = (minute, 0)
        return untold + 1


@lru_cache(maxsize=_KEYS)  # a crowd comes from the same few addresses
def network_of(address: str) -> str:
    """Return the network that an address is counted under; the text itself if it is no address."""
    try:
        version = ip_address(address).version
        return str(ip_network(f"{address}/{24 if version == 4 else 64}", strict=False))
    except ValueError:
        return address
