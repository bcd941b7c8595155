"""What the verifier remarks although every hash holds: intents that nobody settled."""

from hub.audit import verify
from hub.audit.log import Log
from hub.model.event import Event, Kind, Verdict


async def test_intents_without_outcomes_are_remarked_until_they_are_settled(
    tmp_path, signer, keeper
):
    log = Log(tmp_path / "log", signer)
    keys = [verify.Key.parse(log.vkey)]

    async def remarks(*events):
        for kind, name, more in events:
            event = Event(kind=kind, time_ms=1, interaction_id=name, **more)
            await keeper.commit([], [event])
        await log.publish(keeper)
        return verify.verify_log(log.folder, keys).remarks

    intent, outcome = Kind.INTENT, Kind.OUTCOME
    alone = "entry %d: an intent without an outcome that is known"
    begun = [(intent, "a", {}), (intent, "b", {}), (intent, "b", {}), (outcome, "a", {})]
    assert await remarks(*begun) == [alone % 1, alone % 2]
    lost = (outcome, "b", {"verdict": Verdict.UNKNOWN})
    assert await remarks(lost) == [alone % 1, alone % 2], "it waits for another outcome"
    later = (outcome, "bank", {"change": "Pending>Rejected"})
    assert await remarks((outcome, "b", {}), later) == [alone % 2]
    assert await remarks((outcome, "b", {}), (outcome, "b", {})) == [
        "entry 8: an outcome without an intent"
    ]
