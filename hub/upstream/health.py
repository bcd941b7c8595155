"""The bank's health operations, polled: is it there, does it take our certificate, what does it see of us.

They go through ``exchange`` like any call, so that they also probe an open circuit when no caller comes.

Source: ozone-connect 3.7; hub-behaviour 10.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from hub.config import Limits
from hub.model.fault import Fault
from hub.observe import Observer
from hub.upstream.bank import BankAnswer, BankCall

_HEALTH: Final = ("/hello", "/hello-mtls", "/echo-cert")
Exchange = Callable[[BankCall], Awaitable[BankAnswer | Fault]]


class Health:
    """Poll, count, and tell of each change."""

    def __init__(
        self, exchange: Exchange, *, provider_id: str, limits: Limits, observer: Observer
    ) -> None:
        """Take the way to the bank, the bank's code, and who is told."""
        self._exchange = exchange
        self._provider_id = provider_id.encode()
        self._limits = limits
        self._observer = observer
        self._known: dict[str, bool] = {}

    async def run(self) -> None:
        """Poll until cancelled.

        Cancellation: the only way to end it.
        """
        while True:
            for path in _HEALTH:
                await self._ask(path)
            await trio.sleep(self._limits.bank_health_s)

    async def _ask(self, path: str) -> None:
        answer = await self._exchange(
            BankCall(
                method="GET",
                path=path,
                family="echo",
                headers=((b"o3-provider-id", self._provider_id),),
                deadline_ms=int(self._limits.bank_connect_s * 1000),
                repeatable=True,
            )
        )
        healthy = isinstance(answer, BankAnswer) and answer.status == 200
        if self._known.get(path) is not healthy:
            self._known[path] = healthy
            self._observer.note("bank.health", path=path, healthy=healthy)
        name = path[1:].replace("-", "_")
        self._observer.gauge(f"hub_bank_{name}", f"1 if the bank's {path} answers 200", healthy)
