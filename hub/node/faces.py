"""Join the packages' routes into one App per face, and serve the faces until they are drained."""

from collections.abc import Mapping

import trio

from hub.config import Listen, Settings
from hub.edge.listener import Drain, serve
from hub.edge.router import Router
from hub.edge.tls import ServerTls
from hub.lfi.guard import BankGuard
from hub.lfi.prefix import WithoutVersion
from hub.model.clock import Clock
from hub.model.http import App, Handler
from hub.model.terms import Face
from hub.node.errors import StartError
from hub.observe import Observer

Routes = Mapping[tuple[str, str], Handler]


def tpp_app(routes: list[Routes], gateway: App) -> App:
    """Join what the authorization server and the Trust Framework serve; everything else is the gateway's."""
    return Router(_joined(routes), fallback=gateway)


def lfi_app(routes: list[Routes], guard: BankGuard) -> App:
    """Join Headless Heimdall and the Consent Manager behind the guard that lets only the bank pass."""
    guarded = {route: guard.bank_only(handler) for route, handler in _joined(routes).items()}
    return WithoutVersion(Router(guarded))


def _joined(routes: list[Routes]) -> dict[tuple[str, str], Handler]:
    joined: dict[tuple[str, str], Handler] = {}
    for part in routes:
        if twice := joined.keys() & part.keys():
            raise ValueError(f"routes served twice: {sorted(twice)}")
        joined.update(part)
    return joined


class Faces:
    """Hold the listeners of one process: what they serve, their certificates, their drain."""

    def __init__(self, settings: Settings, observer: Observer, clock: Clock) -> None:
        """Read the server certificates.

        Raises:
            StartError: A certificate, key or CA bundle cannot be read.
        """
        self.drain = Drain()
        self._settings = settings
        self._observer = observer
        self._clock = clock
        lfi = settings.lfi
        self._lfi_place = Listen(bind=lfi.bind, port=lfi.port, hosts=lfi.hosts)
        try:
            self._tls = {
                Face.TPP: _server_tls(settings.tpp),
                Face.LFI: ServerTls(lfi.certificate, lfi.key, lfi.client_ca),
            }
        except OSError as error:
            raise StartError(f"a listener's certificate cannot be used: {error}") from None

    async def serve(
        self,
        face: Face,
        app: App,
        *,
        reuse_port: bool = False,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve one face until its drain is over.

        Raises:
            StartError: The port cannot be bound.

        Cancellation: connections are closed at once.
        """
        places = {
            Face.TPP: self._settings.tpp,
            Face.LFI: self._lfi_place,
            Face.OPS: self._settings.ops,
        }
        place = places[face]
        try:
            await serve(
                listen=place,
                face=face,
                app=app,
                limits=self._settings.limits,
                observer=self._observer,
                tls=self._tls.get(face),
                reuse_port=reuse_port,
                clock=self._clock,
                drain=self.drain,
                task_status=task_status,
            )
        except OSError as error:
            raise StartError(
                f"{face} listener {place.bind}:{place.port}: {error.strerror or error}; "
                f"free the port or change [{face}] port"
            ) from None

    def reload(self) -> None:
        """Read certificates and CA bundles again; keep the old ones where the new are bad, and say so."""
        for face, tls in self._tls.items():
            why = tls.reload()
            self._observer.note(
                "certificate_kept" if why else "certificate_read", face=face, why=why
            )

    def files(self) -> tuple[str, ...]:
        """Return the files whose change calls for ``reload``."""
        return tuple(str(path) for tls in self._tls.values() for path in tls.files)


def _server_tls(place: Listen) -> ServerTls:
    if place.certificate is None or place.key is None:
        raise StartError("tpp.certificate and tpp.key: the TPP edge always speaks TLS")
    return ServerTls(place.certificate, place.key, place.client_ca)
