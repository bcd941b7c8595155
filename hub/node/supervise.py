"""The supervisor of the gateway workers: start them, replace the dead, pass signals on, gather their metrics.

It lives in the keeper's process. A worker that dies is replaced after a short pause that grows while deaths repeat, and
its death is an audit event, a metric and a log line. One whose event loop no longer turns (``pulse``) is made to die: by
SIGABRT, which shows where it hangs, then by SIGKILL. New settings get new workers: they accept from the sockets of the
present ones, which drain once all of the new ones serve. At the drain every worker gets SIGTERM and has the grace period
to finish what it started; the keeper stays until the last one is gone.
"""

import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final, final

import trio
from prometheus_client.parser import text_string_to_metric_families

from hub.config import Settings
from hub.edge.listener import Drain, bind
from hub.model.event import Event, Kind, Verdict
from hub.model.terms import Face
from hub.node.build import Given
from hub.node.errors import StartError
from hub.node.faces import cannot_listen, places_of
from hub.node.pulse import BEAT_S, HANGS, Pulse, heard, pipe
from hub.node.worker import Orders, orders_line, worker_socket
from hub.state.address import address_of

PAUSES_S: Final = (0.05, 0.2, 1.0, 5.0)
"""Before the first, second ... replacement in a row; a worker that lived for ``STEADY_S`` starts the row anew."""
STEADY_S: Final = 30.0
ASK_S: Final = 1.0
REPLACE_S: Final = 20.0
"""How long workers by new settings may take until they serve."""
_LOOK_S: Final = 0.02
_METRICS_OCTETS: Final = 4_194_304


class Supervisor:
    """Keep ``workers`` worker processes alive."""

    def __init__(self, given: Given, command: Sequence[str], drain: Drain) -> None:
        """Remember how a worker is started: ``command`` with its number appended."""
        self._observer = given.observer
        self._keeper = given.keeper
        self._clock = given.clock
        self._settings = given.settings
        self._count = given.settings.workers
        self._command = tuple(command)
        self._drain = drain
        self._present: dict[int, _Worker] = {}
        self._leaving: set[_Worker] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the workers and stay until all have ended after the drain.

        Raises:
            StartError: A port cannot be bound.

        Cancellation: every worker gets SIGKILL; none is left.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feel)
                for number in range(self._count):
                    self._present[number] = await self._start(number, self._settings, nursery)
                    nursery.start_soon(self._keep, number, nursery)
                nursery.start_soon(self._end)
                while not (self.ready() or self._ending()):
                    await trio.sleep(_LOOK_S)
                    for worker in list(self._present.values()):
                        await self._look(worker)
                task_status.started()
        finally:
            for worker in self._all():
                worker.close()
                if worker.process.poll() is None:
                    worker.process.kill()

    async def replace(self, settings: Settings, nursery: trio.Nursery) -> None:
        """Start workers by new settings beside the present ones; when all serve, let the present ones drain.

        The successors accept from the same sockets, so no connection that the kernel has taken is lost.

        Args:
            settings: The new ones.
            nursery: Where somebody waits for each process's end.

        Raises:
            StartError: One of them does not serve within ``REPLACE_S``; everything stays as it was.

        Cancellation: the successors are ended.
        """
        if self._drain.started:
            raise StartError("the node is ending")
        fresh: list[_Worker] = []
        accepted = False
        try:
            with trio.move_on_after(REPLACE_S):
                for number in range(self._count):
                    worker = await self._start(number, settings, nursery)
                    fresh.append(worker)
                    self._leaving.add(worker)  # until it has its place: what ends all ends it too
                while not all([await self._look(worker) for worker in fresh]):
                    if self._ending() or any(worker.ended for worker in fresh):
                        break
                    await trio.sleep(_LOOK_S)
            accepted = len(fresh) == self._count and all(worker.serving for worker in fresh)
            accepted = accepted and not self._ending()
        finally:
            if not accepted:
                self._dismiss(fresh)
        if self._ending():
            raise StartError("the node is ending")
        if not accepted:
            raise StartError("the new workers did not start; see their lines on standard error")
        self._settings = settings
        for number, worker in enumerate(fresh):
            self._succeed(number, worker)

    def _dismiss(self, fresh: Sequence["_Worker"]) -> None:
        """End workers that are not wanted after all; one that serves may have taken connections, and drains."""
        for worker in fresh:
            if worker.serving:
                worker.process.terminate()
            else:
                worker.process.kill()

    def _succeed(self, number: int, worker: "_Worker") -> None:
        former = self._present.get(number)
        self._present[number] = worker
        self._leaving.discard(worker)
        if former is None:
            return
        former.over.set()
        if former.process.poll() is None:
            self._leaving.add(former)
            former.process.terminate()

    def reload(self) -> None:
        """Pass SIGHUP on; a worker that does not serve yet would die of it, and gets it once it does."""
        for worker in self._all():
            if worker.serving:
                worker.process.send_signal(signal.SIGHUP)
            else:
                worker.reloads = True

    def ready(self) -> bool:
        """Tell whether every worker has served since it was last started."""
        return len(self._present) == self._count and all(
            worker.serving and not worker.ended for worker in self._present.values()
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the living workers."""
        return tuple(w.process.pid for w in self._all() if w.process.poll() is None)

    async def metrics(self) -> bytes:
        """Return the metrics of every worker that answers within a second, each sample labelled with its worker."""
        texts: dict[int, str] = {}
        for worker in list(self._present.values()):
            text = await self._ask(worker)
            if text:
                texts[worker.number] = text
        return labelled(texts)

    def _all(self) -> list["_Worker"]:
        return [*self._present.values(), *self._leaving]

    async def _keep(self, number: int, nursery: trio.Nursery) -> None:
        """Replace the worker of one number each time it dies, until the drain."""
        deaths = 0
        while not self._ending():
            worker = self._present[number]
            began = trio.current_time()
            await worker.over.wait()
            if self._ending():
                return
            if self._present[number] is not worker:
                continue  # it has a successor already
            deaths = 1 if trio.current_time() - began > STEADY_S else deaths + 1
            await self._mourn(number, worker.process.returncode or 0)
            with trio.move_on_after(PAUSES_S[min(deaths, len(PAUSES_S)) - 1]):
                await self._drain.wait()
            if not self._ending() and self._present[number] is worker:
                fresh = await self._start(number, self._settings, nursery)
                if self._present[number] is worker and not self._ending():
                    self._present[number] = fresh
                    nursery.start_soon(self._await_service, fresh)
                else:
                    fresh.process.kill()

    async def _feel(self) -> None:
        """Feel each worker's pulse until the drain, also of those that leave; at the drain there is a bound for all."""
        while not self._ending():
            with trio.move_on_after(BEAT_S):
                await self._drain.wait()
            for worker in self._all():
                if not worker.ended:
                    self._judge(worker, worker.pulse.look(beaten=heard(worker.beats)))

    def _judge(self, worker: "_Worker", overdue: int) -> None:
        """Make a worker that hangs die: first so that it shows where, a look later at once."""
        if overdue == HANGS:
            self._observer.note("worker_hangs", worker=worker.number, pid=worker.process.pid)
            worker.process.send_signal(signal.SIGABRT)
        elif overdue:
            worker.process.kill()

    def _ending(self) -> bool:
        return self._drain.started

    async def _await_service(self, worker: "_Worker") -> None:
        while not (worker.ended or await self._look(worker)):  # noqa: ASYNC110 - another process
            await trio.sleep(_LOOK_S)

    async def _start(self, number: int, settings: Settings, nursery: trio.Nursery) -> "_Worker":
        """Start a process; on the sockets of its predecessor, if that one lives."""
        former = self._present.get(number)
        sockets = former.share() if former is not None and not former.ended else _bind(settings)
        numbers = {face: one.fileno() for face, one in sockets.items()}
        beats, told = pipe()
        orders = orders_line(Orders(settings, numbers, told.fileno()))
        with told:
            process = await trio.lowlevel.open_process(
                [*self._command, str(number)],
                stdin=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(*numbers.values(), told.fileno()),
            )
        offered = worker_socket(settings, number, process.pid)
        pulse = Pulse(settings.limits.loop_silent_s, settings.limits.worker_start_s)
        worker = _Worker(number, process, sockets, offered, beats, pulse)
        nursery.start_soon(self._bury, worker)
        try:
            if process.stdin is not None:
                with suppress(
                    trio.BrokenResourceError
                ):  # it died at once: that is noticed elsewhere
                    await process.stdin.send_all(orders)
        except BaseException:
            process.kill()  # nobody else knows of it
            raise
        return worker

    async def _bury(self, worker: "_Worker") -> None:
        """Wait until a process has ended and put away what it leaves."""
        try:
            await worker.process.wait()
        finally:
            worker.close()
            self._leaving.discard(worker)
            if worker.process.stdin is not None:
                await trio.aclose_forcefully(worker.process.stdin)

    async def _mourn(self, number: int, status: int) -> None:
        self._observer.note("worker_died", worker=number, status=status)
        event = Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            face=Face.NODE,
            verdict=Verdict.FAILED,
            subject=f"worker-{number}",
            change=f"died:{status}",
        )
        await self._keeper.commit((), (event,))

    async def _end(self) -> None:
        """At the drain, ask every worker to end, and insist after the grace period."""
        await self._drain.wait()
        workers = self._all()
        for worker in workers:
            worker.close_sockets()
            if worker.process.poll() is None:
                worker.process.terminate()
        with trio.move_on_after(self._settings.limits.drain_s + 5):
            for worker in workers:
                await worker.process.wait()
        for worker in self._all():
            if worker.process.poll() is None:
                worker.process.kill()

    async def _look(self, worker: "_Worker") -> bool:
        """Tell whether a worker serves; once it did, it does until it ends."""
        if not worker.serving and not worker.ended:
            worker.serving = bool(await self._ask(worker))
            if worker.serving and worker.reloads:
                worker.process.send_signal(signal.SIGHUP)
        return worker.serving

    async def _ask(self, worker: "_Worker") -> str:
        received = bytearray()
        with trio.move_on_after(ASK_S) as scope:
            try:
                with address_of(worker.offered) as address:
                    stream = await trio.open_unix_socket(address)
            except OSError:
                return ""
            async with stream:
                try:
                    while len(received) < _METRICS_OCTETS and (
                        data := await stream.receive_some(65536)
                    ):
                        received += data
                except trio.BrokenResourceError:
                    return ""
        return "" if scope.cancelled_caught else received.decode()


@final
class _Worker:
    """One worker process, its sockets and where it offers its metrics."""

    __slots__ = (
        "beats", "number", "offered", "over", "process", "pulse", "reloads", "serving", "sockets",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        process: trio.Process,
        sockets: dict[Face, socket.socket],
        offered: Path,
        beats: FileIO,
        pulse: Pulse,
    ) -> None:
        self.beats = beats
        self.pulse = pulse
        self.number = number
        self.process = process
        self.sockets = sockets
        self.offered = offered
        self.serving = False
        self.reloads = False
        """SIGHUP waits until it serves."""
        self.over = trio.Event()
        """Set when the process has ended, or has a successor."""

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def share(self) -> dict[Face, socket.socket]:
        """Return the same sockets once more, for a successor."""
        return {face: one.dup() for face, one in self.sockets.items()}

    def close_sockets(self) -> None:
        """Leave the sockets to the process: when it closes them, the kernel offers them nothing more."""
        for one in self.sockets.values():
            one.close()

    def close(self) -> None:
        self.close_sockets()
        self.beats.close()
        self.offered.unlink(missing_ok=True)
        self.over.set()


def _bind(settings: Settings) -> dict[Face, socket.socket]:
    """Bind one more socket to the port of each face that workers serve; it listens when a worker serves it."""
    bound: dict[Face, socket.socket] = {}
    for face in (Face.TPP, Face.LFI):
        place = places_of(settings)[face]
        try:
            bound[face] = bind(place, reuse_port=True, ready=False)
        except OSError as error:
            for one in bound.values():
                one.close()
            raise StartError(cannot_listen(face, place, error)) from None
    return bound


def labelled(texts: Mapping[int, str]) -> bytes:
    """Join the metrics of several workers into one exposition, each sample with a ``worker`` label."""
    heads: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for number, text in texts.items():
        for family in text_string_to_metric_families(text):
            heads[family.name] = (
                f"# HELP {family.name} {family.documentation}\n# TYPE {family.name} {family.type}\n"
            )
            for sample in family.samples:
                labels = {**sample.labels, "worker": str(number)}
                inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
                samples.setdefault(family.name, []).append(
                    f"{sample.name}{{{inner}}} {sample.value}\n"
                )
    return "".join(heads[name] + "".join(samples.get(name, ())) for name in heads).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
