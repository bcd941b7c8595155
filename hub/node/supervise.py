"""The supervisor of the gateway workers: start them, replace the dead, pass signals on, gather their metrics.

It lives in the keeper's process. A worker that dies is replaced after a short pause that grows while deaths repeat, and
its death is an audit event, a metric and a log line. At the drain every worker gets SIGTERM and has the grace period to
finish what it started; the keeper stays until the last one is gone.
"""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from hub.edge.listener import Drain
from hub.model.event import Event, Kind, Verdict
from hub.model.terms import Face
from hub.node.build import Given
from hub.node.worker import worker_socket

PAUSES_S: Final = (0.05, 0.2, 1.0, 5.0)
"""Before the first, second ... replacement in a row; a worker that lived for ``STEADY_S`` starts the row anew."""
STEADY_S: Final = 30.0
ASK_S: Final = 1.0
_METRICS_OCTETS: Final = 4_194_304


class Supervisor:
    """Keep ``workers`` worker processes alive."""

    def __init__(self, given: Given, command: Sequence[str], drain: Drain) -> None:
        """Remember how a worker is started: ``command`` with its number appended."""
        self._given = given
        self._command = tuple(command)
        self._drain = drain
        self._processes: dict[int, trio.Process] = {}
        self._serving: set[int] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the workers and stay until all have ended after the drain.

        Cancellation: every worker gets SIGKILL; none is left.
        """
        count = self._given.settings.workers
        try:
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(self._keep, number)
                nursery.start_soon(self._end)
                while len(self._serving) < count:
                    await trio.sleep(0.02)
                    await self._look(count)
                task_status.started()
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()

    def reload(self) -> None:
        """Pass SIGHUP on."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)

    def ready(self) -> bool:
        """Tell whether every worker has served since it was last started."""
        return len(self._serving) == self._given.settings.workers

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the living workers."""
        return tuple(p.pid for p in self._processes.values() if p.poll() is None)

    async def metrics(self) -> bytes:
        """Return the metrics of every worker that answers within a second, each sample labelled with its worker."""
        texts: dict[int, str] = {}
        for number in range(self._given.settings.workers):
            text = await self._ask(number)
            if text:
                texts[number] = text
        return labelled(texts)

    async def _keep(self, number: int) -> None:
        """Run one worker after the other under one number until the drain."""
        deaths = 0
        while not self._ending():
            began = trio.current_time()
            status = await self._one(number)
            self._serving.discard(number)
            if self._ending():
                return
            deaths = 1 if trio.current_time() - began > STEADY_S else deaths + 1
            await self._mourn(number, status)
            with trio.move_on_after(PAUSES_S[min(deaths, len(PAUSES_S)) - 1]):
                await self._drain.wait()

    def _ending(self) -> bool:
        return self._drain.started

    async def _one(self, number: int) -> int:
        process = await trio.lowlevel.open_process(
            [*self._command, str(number)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._processes[number] = process
        try:
            status = await process.wait()
        finally:
            if process.stdin is not None:
                await trio.aclose_forcefully(process.stdin)
        return status

    async def _mourn(self, number: int, status: int) -> None:
        given = self._given
        given.observer.note("worker_died", worker=number, status=status)
        event = Event(
            kind=Kind.NODE,
            time_ms=given.clock.now_ms(),
            face=Face.NODE,
            verdict=Verdict.FAILED,
            subject=f"worker-{number}",
            change=f"died:{status}",
        )
        await given.keeper.commit((), (event,))

    async def _end(self) -> None:
        """At the drain, ask every worker to end, and insist after the grace period."""
        await self._drain.wait()
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        with trio.move_on_after(self._given.settings.limits.drain_s + 5):
            for process in list(self._processes.values()):
                await process.wait()
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()

    async def _look(self, count: int) -> None:
        for number in set(range(count)) - self._serving:
            if await self._ask(number):
                self._serving.add(number)

    async def _ask(self, number: int) -> str:
        received = bytearray()
        with trio.move_on_after(ASK_S):
            try:
                stream = await trio.open_unix_socket(
                    str(worker_socket(self._given.settings, number))
                )
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
        return received.decode()


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
