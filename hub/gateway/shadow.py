"""Look at the bank's answers: in shadow a sample is judged and counted, enforced every one must be right.

What is wrong is told by the pointer of the member and the rule it breaks, never by its value. In shadow nothing is refused
and only one answer in ``EVERY`` is looked at, so that the cost stays off the path of nearly all.
"""

from typing import Any, Final, Literal

from hub.contract import Contract
from hub.model.fault import Fault, bank_fault
from hub.observe import Observer

EVERY: Final = 20


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

    def look(self, route_id: str, answer: Any) -> Fault | None:
        """Judge one answer, or let it pass unseen.

        Faults: 500 ``GenericError``, check ``bank.schema``, in mode ``enforce``.
        """
        if self._mode == "off":
            return None
        seen = self._seen.get(route_id, 0)
        self._seen[route_id] = seen + 1
        if self._mode == "shadow" and seen % EVERY:
            return None
        broken = self._contract.check_bank_answer(route_id, answer)
        if broken is None:
            return None
        self._observer.note(
            "bank_answer_off_schema", route=route_id, path=broken.path, rule=broken.rule
        )
        if self._mode == "shadow":
            return None
        private = f"{route_id}{broken.path}: {broken.rule}"
        text = "The bank's answer does not have the agreed shape."
        return bank_fault(500, "GenericError", text, check="bank.schema", private=private)
