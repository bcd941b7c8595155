"""What a running sandbox can be told over its control socket besides ``time`` and ``stop``: directory and bank knobs."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hub.sandbox.control import Action, Answer, ControlError
from hub.sandbox.directory import Directory
from hub.sandbox.server import FaultPlan, Faults

_DIRECTORY: Final[dict[str, tuple[str, ...]]] = {
    "revoke": ("kid",),
    "restore": ("kid",),
    "suspend": ("client_id",),
    "resume": ("client_id",),
    "withdraw": ("organisation_id",),
    "reinstate": ("organisation_id",),
    "drop_role": ("organisation_id", "role"),
    "give_role": ("organisation_id", "role"),
}
"""What can be done to the directory, and which members a request of it has."""


def knob_actions(directory: Directory, bank_faults: Faults) -> dict[str, Action]:
    """Return the actions ``directory`` and ``bank``.

    ``{"do": "directory", "act": "revoke", "kid": "..."}`` does one of ``_DIRECTORY``;
    ``{"do": "bank", "fault": {"status": 500, "times": 3}}`` sets a ``FaultPlan``, ``{"do": "bank", "fault": null}``
    clears it.
    """

    def change_directory(request: dict[str, Any]) -> Answer:
        act = str(request.get("act"))
        if act not in _DIRECTORY:
            raise ControlError(f"act: expected one of {', '.join(sorted(_DIRECTORY))}")
        method: Callable[..., object] = getattr(directory, act)
        try:
            method(*[_text(request, name) for name in _DIRECTORY[act]])
        except KeyError as error:
            raise ControlError(f"the directory does not know {error}") from None
        return {}

    def change_bank(request: dict[str, Any]) -> Answer:
        if "fault" not in request:
            raise ControlError("fault: expected a fault plan, or null to clear it")
        if request["fault"] is None:
            bank_faults.clear()
            return {}
        try:
            bank_faults.set(msgspec.convert(request["fault"], FaultPlan, strict=True))
        except msgspec.ValidationError as error:
            raise ControlError(f"fault: {error}") from None
        return {}

    return {"directory": change_directory, "bank": change_bank}


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name}: expected a text")
    return value
