"""What a running sandbox can be told over its control socket besides ``time`` and ``stop``: to misbehave."""

from collections.abc import Callable, Mapping
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


def knob_actions(directory: Directory, sites: Mapping[str, Faults]) -> dict[str, Action]:
    """Return the actions ``directory`` and ``fault``.

    ``{"do": "directory", "act": "revoke", "kid": "..."}`` does one of ``_DIRECTORY``;
    ``{"do": "fault", "at": "bank", "plan": {"status": 500, "times": 3}}`` sets a ``FaultPlan`` of a site,
    ``{"do": "fault", "at": "bank", "plan": null}`` clears it. Sites: ``bank``, ``directory``, ``directory-api``, ``pki``.
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

    def change_site(request: dict[str, Any]) -> Answer:
        faults = sites.get(str(request.get("at")))
        if faults is None:
            raise ControlError(f"at: expected one of {', '.join(sorted(sites))}")
        if "plan" not in request:
            raise ControlError("plan: expected a fault plan, or null to clear it")
        if request["plan"] is None:
            faults.clear()
            return {}
        try:
            faults.set(msgspec.convert(request["plan"], FaultPlan, strict=True))
        except msgspec.ValidationError as error:
            raise ControlError(f"plan: {error}") from None
        return {}

    return {"directory": change_directory, "fault": change_site}


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name}: expected a text")
    return value
