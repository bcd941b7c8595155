"""The name of a consent group: the id of its first consent, in whichever case of its letters somebody spells it."""

from hub.model.consent import Consent, spellings
from hub.state.keeper import Keeper


async def group_named(keeper: Keeper, asked: str) -> str:
    """Return the name of the group that is meant; as it was asked for where its first consent is not known here.

    Cancellation: harmless.
    """
    for name in spellings(asked):
        if await keeper.lookup(Consent, name) is not None:
            return name
    return asked
