"""Join the packages' routes into one App per face, and serve the faces until they are drained."""

import socket
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import trio

from hub.config import Listen, Pair, Settings
from hub.edge.desk import Register
from hub.edge.listener import Drain, Renewal, serve
from hub.edge.router import Router
from hub.edge.tls import ServerTls
from hub.lfi.guard import BankGuard
from hub.lfi.prefix import WithoutVersion
from hub.model.clock import Clock
from hub.model.event import Event, Kind, Verdict
from hub.model.http import Admission, App, Handler
from hub.model.terms import Face
from hub.node.errors import StartError
from hub.observe import Observer

Routes = Mapping[tuple[str, str], Handler]


def tpp_app(
    routes: list[Routes], gateway: App, admissions: Mapping[tuple[str, str], Admission]
) -> App:
    """Join what the authorization server and the Trust Framework serve; everything else is the gateway's."""
    return Router(_joined(routes), fallback=gateway, admissions=admissions)


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

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        clock: Clock,
        register: Register | None = None,
        tell: Callable[[Event], None] | None = None,
    ) -> None:
        """Read the server certificates; ``register`` hears of refusals, ``tell`` of certificates that are read anew.

        Raises:
            StartError: A certificate, key or CA bundle cannot be read.
        """
        self.drain = Drain()
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._register = register
        self._tell = tell
        self._tls = tls_of(settings)
        self._renewals = {face: Renewal() for face in self._tls}

    async def serve(
        self,
        face: Face,
        app: App,
        *,
        listening: socket.socket | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve one face until its drain is over.

        Raises:
            StartError: The port cannot be bound.

        Cancellation: connections are closed at once.
        """
        place = places_of(self._settings)[face]
        try:
            await serve(
                listen=place,
                face=face,
                app=app,
                limits=self._settings.limits,
                observer=self._observer,
                tls=self._tls.get(face),
                listening=listening,
                clock=self._clock,
                drain=self.drain,
                renewal=self._renewals.get(face),
                register=self._register if face in self._tls else None,
                task_status=task_status,
            )
        except OSError as error:
            raise StartError(cannot_listen(face, place, error)) from None

    def reload(self) -> None:
        """Read certificates and CA bundles again; keep the old ones where the new are bad, and say so."""
        for face, tls in self._tls.items():
            why = tls.reload()
            what = "certificate_kept" if why else "certificate_read"
            self._observer.note(what, face=face, why=why)
            if self._tell is not None:
                self._tell(self._key_event(face, what))

    def _key_event(self, face: Face, what: str) -> Event:
        """Return the event of a certificate that was read anew, or kept because the new one is no good."""
        place = self._settings.tpp if face is Face.TPP else self._settings.lfi
        return Event(
            kind=Kind.KEY,
            time_ms=self._clock.now_ms(),
            face=face,
            subject=_thumbprint(place.certificate),
            change=what,
            verdict=Verdict.FAILED if what == "certificate_kept" else Verdict.ALLOWED,
        )

    def renew(
        self, settings: Settings, tls: Mapping[Face, ServerTls], apps: Mapping[Face, App]
    ) -> None:
        """Serve other applications, by other settings, from the next request on; connections stay."""
        self._settings = settings
        places = places_of(settings)
        for face, renewal in self._renewals.items():
            self._tls[face].take(tls[face])
            renewal.renew(apps[face], settings.limits, places[face].hosts)

    def files(self) -> tuple[str, ...]:
        """Return the files whose change calls for ``reload``."""
        return tuple(str(path) for tls in self._tls.values() for path in tls.files)


def cannot_listen(face: Face, place: Listen, error: OSError) -> str:
    """Return the line that says why a face cannot listen, and what to do."""
    return (
        f"{face} listener {place.bind}:{place.port}: {error.strerror or error}; "
        f"free the port, or change [{face}] bind or port"
    )


def places_of(settings: Settings) -> dict[Face, Listen]:
    """Return where each face listens."""
    lfi = settings.lfi
    place = Listen(bind=lfi.bind, port=lfi.port, hosts=lfi.hosts)
    return {Face.TPP: settings.tpp, Face.LFI: place, Face.OPS: settings.ops}


def _thumbprint(path: Path | None) -> str:
    """Return the S256 thumbprint of a file's first certificate, empty where it has none."""
    try:
        pem = path.read_text() if path is not None else ""
        first = pem[pem.index("-----BEGIN CERT") :].partition("-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert("".join(first[:2]))
    except (OSError, ValueError):
        return ""
    return urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


def tls_of(settings: Settings) -> dict[Face, ServerTls]:
    """Read the certificates of the faces that speak TLS.

    Raises:
        StartError: A certificate, key or CA bundle cannot be read.
    """
    lfi = settings.lfi
    try:
        return {
            Face.TPP: _server_tls(settings.tpp),
            Face.LFI: ServerTls(lfi.certificate, lfi.key, lfi.client_ca, _hosts(lfi.certificates)),
        }
    except OSError as error:
        raise StartError(f"a listener's certificate cannot be used: {error}") from None


def _server_tls(place: Listen) -> ServerTls:
    if place.certificate is None or place.key is None:
        raise StartError("tpp.certificate and tpp.key: the TPP edge always speaks TLS")
    return ServerTls(place.certificate, place.key, place.client_ca, _hosts(place.certificates))


def _hosts(pairs: Mapping[str, Pair]) -> dict[str, tuple[Path, Path]]:
    return {host: (pair.certificate, pair.key) for host, pair in pairs.items()}
