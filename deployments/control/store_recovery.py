"""Notices that the store has lost events, and takes away again what it forgot to take away.

Three memories are compared with the store: this process's own (`Controller.follow`), its file from
the start before (`LastSeen`), and the table that each gateway has in force (its hello). Whatever
was seen and is not in the store any more was lost. The store then gets a new generation, so that no
gateway takes an epoch for one that it has applied, and kills, blocks and quarantines that were seen
are put into force again. They stay until an operator changes the flag.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.last_seen import LastSeen
from penumbra.deployments.errors import DeploymentsError, StoreUnavailable
from penumbra.deployments.gateways.link import LinkClosed
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.recovered import Known, draft_notice, draft_recovery
from penumbra.deployments.store import fencing
from penumbra.deployments.store.store import Store
from penumbra.router.link.messages import Hello

log = logging.getLogger(__name__)


class StoreRecovery:
    """Compares what was seen with what the store holds, while this process leads.

    Args:
        controller: Its state, and the changes.
        store: Identity of the store.
        last_seen: What was seen before this process's start.
        now: Wall clock.
        on_loss: Called when the store has lost something: evidence may be lost, too.
    """

    def __init__(
        self,
        controller: Controller,
        store: str,
        last_seen: LastSeen,
        now: Callable[[], datetime],
        on_loss: Callable[[], None],
    ) -> None:
        self._controller = controller
        self._store = store
        self._last_seen = last_seen
        self._now = now
        self._on_loss = on_loss
        self._kept = last_seen.read()
        self._kept_in: int | None = None
        """Generation in which `_kept` was lost; None: before this process's start."""

    async def begin(self) -> None:
        """Compare what was seen before this term; from here on each new epoch is remembered.

        Raises:
            DeploymentsError: The store cannot be read or written.
        """
        controller = self._controller
        async with controller.writing():
            # A leader that has begun a generation since has dealt with that loss.
            is_open = self._kept_in in (None, controller.standing.generation)
            if self._kept is not None and is_open:
                await self._compare(self._kept)
            self._kept = self._kept_in = None
        controller.standing.remember = self._remember
        await self._remember()
        names = tuple(controller.state.models)
        controller.standing.recovered |= await controller.read(
            lambda store: _recovered_before(store, names)
        )

    async def hear(self, hello: Hello) -> None:
        """Compare the table that a gateway or comparator has in force.

        Raises:
            LinkClosed: It is not known now whether the store has lost something.
        """
        controller = self._controller
        table = hello.table_name()
        newest = controller.newest.epoch, controller.newest.digest
        is_newest = (table.epoch, table.digest) == newest
        if table.store != self._store or (
            is_newest and table.generation == controller.standing.generation
        ):
            return
        known = Known(table.generation, table.epoch, table.digest, hello.restrictions)
        try:
            async with controller.writing():
                await self._compare(known)
        except DeploymentsError as error:
            raise LinkClosed(error.message) from error

    async def recover(self, lost: Known) -> None:
        """Take what this process itself had seen, and the store has lost. Only within `writing`.

        Raises:
            DeploymentsError: The store cannot be written.
        """
        if self._controller.standing.leader_address is None:
            await self._reinstate(lost)
            return
        # The leader has seen it too. This is for the case that there is none any more.
        row = await self._controller.on_store_thread(lambda store: store.look(fencing.read))
        self._kept_in = row.generation
        self._kept = replace(lost, generation=row.generation)

    async def _compare(self, known: Known) -> None:
        controller = self._controller
        if known.digest:
            found = await controller.on_store_thread(lambda store: store.name_at(known.epoch))
            is_held = found == known.digest
        else:
            is_held = known.epoch <= controller.state.epoch
        if not is_held or known.generation > controller.standing.generation:
            await self._reinstate(known)

    async def _reinstate(self, known: Known) -> None:
        controller = self._controller
        self._on_loss()
        held = controller.state.epoch
        is_newer = known.generation >= controller.standing.generation
        if is_newer:
            await self._begin_generation(known.generation + 1)
        reason = (
            f"the store went back: epoch {known.epoch} of its generation {known.generation} was"
            f" seen and is not in it any more; it held {held}"
        )
        drafts = draft_recovery(controller.state, known, reason, self._now())
        models = [draft.model for draft in drafts if draft.kind is Kind.RECOVER]
        if is_newer and not drafts:
            drafts = [draft_notice(controller.state, reason)]
        if not drafts:
            return  # a gateway of the generation before, which knows of nothing that is not known
        await controller.commit(drafts)
        for epoch, draft in enumerate(drafts, start=held + 1):
            if draft.kind is Kind.RECOVER and draft.model is not None:
                controller.standing.recovered[draft.model] = epoch
        log.error(
            "store_went_back",
            extra={
                "seen_epoch": known.epoch,
                "epoch": held,
                "generation": controller.standing.generation,
                "models": models,
            },
        )

    async def _begin_generation(self, generation: int) -> None:
        def begin(store: Store) -> None:
            term = store.term
            if term is not None:
                store.term = store.write(
                    lambda connection: fencing.raise_generation(connection, term, generation)
                )

        await self._controller.on_store_thread(begin)
        self._controller.standing.generation = generation

    async def _remember(self) -> None:
        controller = self._controller
        known = Known(
            controller.standing.generation,
            controller.newest.epoch,
            controller.newest.digest,
            controller.state.restrictions,
            frozenset(controller.state.identities.revoked),
        )
        try:
            await controller.read(lambda store: self._last_seen.write(known))
        except StoreUnavailable as error:
            # The thread waits for a long read; the next epoch is written again.
            log.warning("last_seen_unwritten", extra={"file": "", "error": error.message})


def _recovered_before(store: Store, names: Iterable[str]) -> dict[str, int]:
    newest = {name: next(store.backwards(name, Kind.RECOVER), None) for name in names}
    return {name: event.epoch for name, event in newest.items() if event is not None}
