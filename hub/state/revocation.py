"""What a revoked consent takes with it: its grants and tokens, in the same commit as the consent itself."""

from typing import Final

import msgspec

from hub.model.records import AccessToken, Grant, RefreshToken
from hub.state.keeper import Change, Keeper, Put, Query

_MOST: Final = 1000


async def revocation_of(keeper: Keeper, consent_id: str, now: int) -> tuple[Change, ...]:
    """Return the changes that kill every grant and token of a consent.

    Args:
        keeper: Where they are.
        consent_id: Of the revoked consent.
        now: Seconds since 1970.

    A token that is issued meanwhile is useless all the same: its consent is no longer Authorized.

    Cancellation: harmless.
    """
    changes: list[Change] = []
    for kind in ("grant", "refresh", "access"):
        page = await keeper.search(Query(kind=kind, where=(("consent", consent_id),), limit=_MOST))
        for item in page.items:
            record = item.record
            if isinstance(record, Grant | RefreshToken | AccessToken) and not record.revoked:
                dead = msgspec.structs.replace(record, revoked=now)
                changes.append(Put(dead, item.version))
    return tuple(changes)
