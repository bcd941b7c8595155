"""The name of a consent group: the id of its first consent, in whichever case of its letters somebody spells it."""

from hub.model.consent import Consent, spellings
from hub.state.keeper import Keeper, Query


async def group_named(keeper: Keeper, asked: str) -> str:
    """Return the name of the group that is meant; as it was asked for where there is none.

    It is the id of its first consent, or, where that is not known here, what the consent that opened the group called it.

    Cancellation: harmless.
    """
    for name in spellings(asked):
        if await keeper.lookup(Consent, name) is not None:
            return name
    for name in spellings(asked):
        if (await keeper.search(Query(kind="consent", where=(("group", name),), limit=1))).items:
            return name
    return asked
