"""The Consent Manager is also served below a dated version prefix, ``/v2025.32/consents``: taken off before routing.

Source: hub-apis 1; hub-behaviour 1 (b).
"""

import re
from typing import Final, final

import msgspec

from hub.model.http import Admission, App, Request, Response

_PREFIX: Final = re.compile(r"/v\d{4}\.\d{1,2}(?=/)")


def strip_version(path: str) -> str:
    """Return the path without a leading ``/vYYYY.NN``."""
    return _PREFIX.sub("", path, count=1) if path.startswith("/v") else path


@final
class WithoutVersion:
    """Hand requests on without their version prefix; implements ``App``."""

    def __init__(self, app: App) -> None:
        """Stand in front of ``app``."""
        self._app = app

    def admit(self, request: Request) -> Admission | Response:
        """Admit as the app does."""
        return self._app.admit(_stripped(request))

    async def respond(self, request: Request) -> Response:
        """Answer as the app does. Cancellation: the app's."""
        return await self._app.respond(_stripped(request))


def _stripped(request: Request) -> Request:
    path = strip_version(request.path)
    return request if path is request.path else msgspec.structs.replace(request, path=path)
