"""The audit log's files at the TPP edge, below ``/log/``: for a tenant that publishes its log."""

from collections.abc import Awaitable
from typing import Final

import trio

from hub.audit.face import resource_at
from hub.audit.open import AUDIT, LOG
from hub.config import Settings
from hub.model.http import Admission, App, Request, Response

PREFIX: Final = "/log/"


class LogFace:
    """The TPP edge with the log's files below ``/log/``: read-only, no caller, no event; switch ``publish_log``."""

    def __init__(self, settings: Settings, app: App) -> None:
        """Serve the tenant's log in front of ``app``."""
        self._folder = settings.state.folder / AUDIT / LOG
        self._app = app

    def admit(self, request: Request) -> Admission | Response:
        """Take no body of note; only GET and HEAD exist."""
        if not request.path.startswith(PREFIX):
            return self._app.admit(request)
        if request.method not in {"GET", "HEAD"}:
            return Response(status=405, headers=((b"allow", b"GET, HEAD"),))
        return Admission(limit=0)

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer with a file of the log, or 404; what is not the log's is handed on. Cancellation: as of ``_file``."""
        # Not a coroutine of its own around the application's: each costs every request on its way, and at each wait.
        return (self._file if request.path.startswith(PREFIX) else self._app.respond)(request)

    async def _file(self, request: Request) -> Response:
        """Answer with a file of the log, or 404. Cancellation: the file is read to its end, unanswered."""
        name = request.path.removeprefix(PREFIX)
        found = await trio.to_thread.run_sync(resource_at, self._folder, name)
        if found is None:
            return Response(status=404)
        headers = (
            (b"content-type", found.content_type.encode()),
            (b"cache-control", found.cache_control.encode()),
        )
        return Response(status=200, headers=headers, body=found.body)


def with_log(settings: Settings, app: App) -> App:
    """Put the log's face in front of the TPP edge where the tenant publishes its log."""
    publish = settings.switches.publish_log and settings.keys.log is not None
    return LogFace(settings, app) if publish else app
