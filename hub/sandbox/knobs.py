"""What a running sandbox can be told over its control socket besides ``time`` and ``stop``: to misbehave."""

from collections.abc import Mapping
from typing import Any

import msgspec

from hub.sandbox.control import Action, Answer, ControlError
from hub.sandbox.directory import ActError, Acts
from hub.sandbox.server import FaultPlan, Faults


def knob_actions(acts: Acts, sites: Mapping[str, Faults]) -> dict[str, Action]:
    """Return the actions ``directory`` and ``fault``.

    ``{"do": "directory", "act": "revoke", "kid": "..."}`` does one of the directory's acts (``directory.acts``);
    ``{"do": "fault", "at": "bank", "plan": {"status": 500, "times": 3}}`` sets a ``FaultPlan`` of a site,
    ``{"do": "fault", "at": "bank", "plan": null}`` clears it. Sites: ``bank``, ``directory``, ``directory-api``, ``pki``.
    """

    def change_directory(request: dict[str, Any]) -> Answer:
        try:
            return dict(acts.carry(str(request.get("act")), request))
        except ActError as error:
            raise ControlError(str(error)) from None

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
