"""Our signing keys over time: published before they sign, published still after they have signed for the last time.

Theory. The configuration lists the keys, newest first. Whoever verifies our signatures keeps our key set for a while, so a new
key signs only when it has been published for ``signing_key_wait_s``; until then the key before it goes on. A key that has
left the configuration stays published, by its public half, for ``signing_key_overlap_s``. What was published when is
remembered in one small file beside the tenant's state. On a tenant's first start nobody can have an older key set, so the
first key signs at once.

Source: FAPI 2.0 section 5.6; OpenID Connect Core 10.1.1; the standard's 20 minutes for cached key sets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, overload

import msgspec
from typing_extensions import override

from hub.config import Settings
from hub.model.clock import Clock
from hub.node.errors import StartError
from hub.protocol.jose import JoseFault, PrivateKey, PublicKey, load_key, public_jwk

NAME: Final = "signing_keys.json"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was published: a public key, since when, and since when it is no longer ours (0: it is)."""

    jwk: dict[str, Any]
    published: int
    retired: int = 0

    @property
    def kid(self) -> str:
        """Return the key's id."""
        return str(self.jwk["kid"])


def settled(
    keys: Sequence[PrivateKey], known: Sequence[Known], now: int, overlap: int
) -> tuple[Known, ...]:
    """Return what is published from now on: every key of ours, and those that left less than ``overlap`` seconds ago."""
    before = {one.kid: one for one in known}
    first = 0 if not known else now
    ours = []
    for key in keys:
        since = before[key.kid].published if key.kid in before else first
        ours.append(Known(jwk=public_jwk(key, alg=""), published=since))
    kids = {key.kid for key in keys}
    gone = (
        msgspec.structs.replace(one, retired=one.retired or now)
        for one in known
        if one.kid not in kids
    )
    return (*ours, *(one for one in gone if now < one.retired + overlap))


def signer(keys: Sequence[PrivateKey], known: Sequence[Known], now: int, wait: int) -> PrivateKey:
    """Return the newest key that has been published for ``wait`` seconds; if none has, the one published for longest."""
    since = {one.kid: one.published for one in known}
    for key in keys:
        if since[key.kid] + wait <= now:
            return key
    return min(reversed(keys), key=lambda key: since[key.kid])


class SigningKeys(Sequence[PrivateKey]):
    """Be the keys of now: the first one signs, all are published.

    Attributes:
        retired: Public keys that are published still.
    """

    def __init__(
        self, keys: Sequence[PrivateKey], known: Sequence[Known], *, clock: Clock, wait: int
    ) -> None:
        """Take the keys, newest first, and what is known of their publication."""
        self._keys = tuple(keys)
        self._known = tuple(known)
        self._clock = clock
        self._wait = wait
        self.retired = tuple(_public(one) for one in known if one.retired)

    @overload
    def __getitem__(self, index: int) -> PrivateKey: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PrivateKey]: ...
    @override
    def __getitem__(self, index: int | slice) -> PrivateKey | Sequence[PrivateKey]:
        """Return a key, or some: the one that signs now comes first."""
        first = signer(self._keys, self._known, self._clock.now(), self._wait)
        return (first, *(key for key in self._keys if key is not first))[index]

    @override
    def __len__(self) -> int:
        """Return how many keys are ours."""
        return len(self._keys)


def _public(one: Known) -> PublicKey:
    key = load_key(one.jwk)
    if isinstance(key, JoseFault):
        raise StartError(f"{NAME}: {one.kid}: {key.why}; remove the file to publish anew")
    return key


def keyring(keys: Sequence[PrivateKey], settings: Settings, clock: Clock) -> SigningKeys:
    """Settle what is published, remember it beside the tenant's state, and return the keys of now.

    Raises:
        StartError: The file that remembers cannot be read or written.
    """
    path = settings.state.folder / NAME
    limits = settings.limits
    known = settled(keys, _read(path), clock.now(), limits.signing_key_overlap_s)
    _write(path, known)
    return SigningKeys(keys, known, clock=clock, wait=limits.signing_key_wait_s)


def _read(path: Path) -> tuple[Known, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Known, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(f"{path}: cannot be read ({error}); remove it to publish anew") from None


def _write(path: Path, known: tuple[Known, ...]) -> None:
    """Write the file whole or not at all; every process of a tenant writes the same."""
    content = msgspec.json.encode(known)
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        part = path.with_name(f"{NAME}.{known[0].kid[:8]}.part")
        part.write_bytes(content)
        part.chmod(0o600)
        part.replace(path)
    except OSError as error:
        raise StartError(f"{path}: cannot be written: {error}") from None
