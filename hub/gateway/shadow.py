"""Look at the bank's answers: in shadow a sample is judged and counted, enforced every one must be right.

What is wrong is told by the pointer of the member and the rule it breaks, never by its value. In shadow nothing is refused,
only one answer in ``EVERY`` is looked at, and that by a task of its own: the answer waits in a short queue while requests go on;
what does not fit is counted as unseen.
"""

from contextlib import suppress
from typing import Any, Final, Literal

import trio

from hub.contract import Contract
from hub.contract.validators import Violation
from hub.model.fault import Fault, bank_fault
from hub.observe import Observer

EVERY: Final = 20
QUEUE: Final = 16
MOST: Final = 262_144
"""Answers that wait to be judged, and octets of one: a larger one would hold up whoever else is served."""


class Shadow:
    """Judge bank answers by the bank's own schemas."""

    def __init__(
        self,
        *,
        contract: Contract,
        observer: Observer,
        mode: Literal["off", "shadow", "enforce"],
    ) -> None:
        """Start with the first answer of each route being looked at."""
        self._contract = contract
        self._observer = observer
        self._mode = mode
        self._seen: dict[str, int] = {}
        self._give, self._take = trio.open_memory_channel[tuple[str, Any]](QUEUE)

    async def run(self) -> None:
        """Judge what waits, until cancelled.

        Cancellation: what still waits is not judged.
        """
        async for route_id, answer in self._take:
            self._judge(route_id, answer)
            del answer  # or the last one would be kept until the next comes
            await trio.lowlevel.checkpoint()

    def look(self, route_id: str, answer: Any, octets: int = 0) -> Fault | None:
        """Judge one answer of so many octets, put it aside to be judged, or let it pass unseen.

        Faults: 500 ``GenericError``, check ``bank.schema``, in mode ``enforce``.
        """
        if self._mode == "off":
            return None
        seen = self._seen.get(route_id, 0)
        self._seen[route_id] = seen + 1
        if self._mode == "shadow":
            if seen % EVERY == 0:
                self._put_aside(route_id, answer, octets)
            return None
        broken = self._judge(route_id, answer)
        if broken is None:
            return None
        private = f"{route_id}{broken.path}: {broken.rule}"
        text = "The bank's answer does not have the agreed shape."
        return bank_fault(500, "GenericError", text, check="bank.schema", private=private)

    def _put_aside(self, route_id: str, answer: Any, octets: int) -> None:
        with suppress(trio.WouldBlock):
            if octets <= MOST:
                self._give.send_nowait((route_id, answer))
                return
        self._observer.note("bank_answer_unseen", route=route_id)

    def _judge(self, route_id: str, answer: Any) -> Violation | None:
        broken = self._contract.check_bank_answer(route_id, answer)
        if broken is not None:
            self._observer.note(
                "bank_answer_off_schema", route=route_id, path=broken.path, rule=broken.rule
            )
        return broken
