"""What runs once per tenant beside the faces, and how that of a new configuration takes the old one's place.

A generation holds the parts that one configuration makes. Its mirror of the Trust Framework and its connections to the
bank may run beside those of the generation before, so that no request finds them missing. Sweeps, outbox and the
operator's socket exist once per tenant: the old ones give way before the new ones begin. An old generation is over when
whatever it had begun has ended.
"""

from collections.abc import Callable, Mapping
from typing import Final, final

import trio

from hub.lfi.forgetting import Forgetting
from hub.lfi.sweep import sweep
from hub.model.http import App
from hub.model.terms import Face
from hub.node.build import Given, Parts, bank_of, build, trust_of
from hub.node.operate import listen_to_operator
from hub.node.recovering import recovery_of
from hub.node.telling import outbox_of
from hub.trust.trust import Trust
from hub.upstream.connections import BankConnections

_LOOK_S: Final = 0.2


@final
class Generation:
    """Hold the parts of one configuration and whether they are still wanted."""

    def __init__(
        self, given: Given, *, trust: Trust, bank: BankConnections, parts: Parts | None = None
    ) -> None:
        """Hold what was built.

        Args:
            given: Its settings, and what every generation shares.
            trust: Its mirror.
            bank: Its connections.
            parts: What serves requests in this process, if any does.

        Raises:
            StartError: The outbox cannot be made.
        """
        self.given = given
        self.trust = trust
        self.bank = bank
        self._parts = parts
        self._outbox = outbox_of(given, bank, trust)
        self._recovery = recovery_of(given, bank)
        self._forgetting = Forgetting(
            keeper=given.keeper,
            clock=given.clock,
            dice=given.dice,
            observer=given.observer,
            days=given.settings.limits.consent_history_days,
        )
        self._give_way = trio.Event()
        self._gave_way = trio.Event()
        self._over = trio.Event()

    @property
    def apps(self) -> Mapping[Face, App]:
        """Return what the faces serve."""
        return {} if self._parts is None else self._parts.apps

    async def run(
        self,
        reload: Callable[[], None],
        before: "Generation | None" = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until it is over; started when it has taken the place of the one ``before``.

        Cancellation: ends everything at once; what was acknowledged stays.
        """
        given = self.given
        async with trio.open_nursery() as kept:
            await kept.start(self.trust.run)
            await kept.start(self.bank.run)
            if self._parts is not None:
                kept.start_soon(self._parts.shadow.run)
            if before is not None:
                await before.give_way()
            async with trio.open_nursery() as alone:
                await alone.start(sweep, given.keeper, given.clock, given.dice, given.observer)
                await alone.start(self._forgetting.run)
                await alone.start(self._outbox.run)
                await alone.start(self._recovery.run, before is None)
                more = self._recovery.commands()
                await alone.start(listen_to_operator, given, self.trust, reload, more)
                task_status.started()
                await self._give_way.wait()
                alone.cancel_scope.cancel()
            self._gave_way.set()
            await self._over.wait()
            kept.cancel_scope.cancel()
        if self._parts is not None:
            self._parts.cache.close()

    async def give_way(self) -> None:
        """End what may run only once per tenant; return when it has ended. Cancellation: it ends all the same."""
        self._give_way.set()
        await self._gave_way.wait()

    async def retire(self) -> None:
        """Let what was begun under these parts end, within the time that any request has; then be over.

        Cancellation: it goes on as it is.
        """
        limits = self.given.settings.limits
        if self._parts is not None:
            await trio.sleep(limits.request_s)
            with trio.move_on_after(limits.drain_s):
                while self.bank.busy:  # noqa: ASYNC110 - seldom, and nobody waits for it
                    await trio.sleep(_LOOK_S)
        self._over.set()


def serving(given: Given) -> Generation:
    """Build what one process serves and runs.

    Raises:
        StartError: A key, certificate or the contract cannot be used; one line says which.
    """
    parts = build(given)
    return Generation(given, trust=parts.trust, bank=parts.bank, parts=parts)


def keeping(given: Given) -> Generation:
    """Build what the keeper's process runs where workers serve.

    Raises:
        StartError: As ``serving``.
    """
    return Generation(given, trust=trust_of(given), bank=bank_of(given))
