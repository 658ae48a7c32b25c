"""Has `penumbra up` start and stop engines, and puts a started one into service once it answers.

`penumbra up` is told by a file (`penumbra.deployments.config.hosted_engines`). An engine that goes
away or is replaced is told of only after every gateway has the table without it, so that no request
is on its way to a replica that ends.

Reading order: EngineDirector.look.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from penumbra.deployments.actors import CONFIGURATION
from penumbra.deployments.config.hosted_engines import (
    IN_FORCE,
    READY,
    STATUS,
    EnginesInForce,
    EnginesStatus,
    HostedEngine,
    read_engine,
    read_file,
    write_file,
)
from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history.events import ConfigPayload, Draft, Kind
from penumbra.deployments.history.hosted_engines import Starting
from penumbra.deployments.history.state import State
from penumbra.monitoring.log_limit import LogLimit

log = logging.getLogger(__name__)

SECONDS = 0.5
"""Pause between two looks."""
LEAVE_SECONDS = 2.0
"""Least time from a table without an engine to its end: a gateway may be connecting meanwhile."""
MOST_LEAVE_SECONDS = 30.0
"""Longest wait for gateways that do not acknowledge that table."""

_Key = tuple[str, str]


class EngineDirector:
    """The engines beside one control process.

    Args:
        controller: Holds the configuration in force.
        rollouts: Commits what puts a started engine into service.
        gateways: The connected gateways.
        hosted: The variants that are hosted here, with the folder of the two files.
        now: Monotonic clock, seconds.
    """

    def __init__(
        self,
        controller: Controller,
        rollouts: RolloutService,
        gateways: Publisher,
        hosted: HostedHere,
        now: Callable[[], float],
    ) -> None:
        self._controller = controller
        self._rollouts = rollouts
        self._gateways = gateways
        self._hosted = hosted
        self._now = now
        self._leaving: dict[_Key, tuple[int, float]] = {}
        """Engine that is to end -> epoch of the table without it, and when that was seen."""
        self._faults = LogLimit(now)

    async def run(self) -> None:
        """Look every `SECONDS`, until cancelled; a fault is logged, and looked at again."""
        folder = self._hosted.folder
        while folder is not None:
            try:
                await self.look(folder)
                self._faults.end()
            except DeploymentsError:
                pass  # the tick tells of a store that is away, and of another leader
            except OSError as error:
                if (left_out := self._faults.take("files")) is not None:
                    log.warning(
                        "engines_not_directed", extra={"error": str(error), "repeated": left_out}
                    )
            except Exception as error:
                if (left_out := self._faults.take()) is not None:
                    detail = type(error).__name__
                    log.exception(
                        "engines_not_directed", extra={"error": detail, "repeated": left_out}
                    )
            await asyncio.sleep(SECONDS)

    async def look(self, folder: Path) -> None:
        """Tell which engines are to run, and put those into service that have come to answer.

        Raises:
            DeploymentsError: The store failed, or another process leads.
            OSError: A file cannot be read or written.
        """
        state = self._controller.state
        if not state.configured or self._controller.has_lost_track:
            return
        written = await asyncio.to_thread(read_file, folder / IN_FORCE, EnginesInForce)
        wanted = self._wanted(state, () if written is None else written.engines)
        if written is None or wanted != written.engines:
            await asyncio.to_thread(write_file, folder / IN_FORCE, EnginesInForce(engines=wanted))
        if state.starting and self._controller.standing.leader_address is None:
            status = await asyncio.to_thread(read_file, folder / STATUS, EnginesStatus)
            if status is not None:
                await self._put_into_service(status)

    def _wanted(self, state: State, running: Sequence[HostedEngine]) -> tuple[HostedEngine, ...]:
        """The engines that are to run now: those in force, and those that may not end yet."""
        wanted = {(each.model, each.variant): each for each in self._in_force(state)}
        now = self._now()
        held = {}
        for engine in running:
            key = (engine.model, engine.variant)
            proposed = wanted.get(key)
            if proposed is not None and proposed.definition == engine.definition:
                continue
            held[key] = self._leaving.get(key, (state.epoch, now))
            if not self._may_leave(*held[key], now):
                wanted[key] = engine
        self._leaving = held
        return tuple(wanted[key] for key in sorted(wanted))

    def _may_leave(self, epoch: int, since: float, now: float) -> bool:
        if now - since >= MOST_LEAVE_SECONDS:
            return True
        is_known = all(link.epoch >= epoch for link in self._gateways.links)
        return is_known and now - since >= LEAVE_SECONDS

    def _in_force(self, state: State) -> list[HostedEngine]:
        found = []
        for name, variants in self._hosted.in_force(state.engines).items():
            for variant, definition in variants.items():
                model = state.models.get(name)
                if model is None and state.engines is not None:
                    continue
                try:
                    engine = read_engine(definition)
                except ValidationError:
                    continue  # a newer release wrote it, and `store verify` tells of its event
                is_baseline = model is not None and model.baseline == variant
                found.append(
                    HostedEngine(
                        model=name, variant=variant, is_baseline=is_baseline, engine=engine
                    )
                )
        return found

    async def _put_into_service(self, status: EnginesStatus) -> None:
        answering = {
            (each.model, each.variant, each.definition)
            for each in status.engines
            if each.phase == READY
        }

        def found() -> Starting:
            state = self._controller.state
            ready = (
                (engine.model, engine.variant)
                for engine in self._in_force(state)
                if (engine.model, engine.variant, engine.definition) in answering
            )
            return state.starting & frozenset(ready)

        async def make() -> Sequence[Draft]:
            ready = found()
            return [draft_ready(self._controller.state, ready)] if ready else []

        if found() and await self._rollouts.commit(make) is not None:
            still = sorted("/".join(key) for key in self._controller.state.starting)
            log.info("engines_in_service", extra={"starting": still})


def draft_ready(state: State, ready: Starting) -> Draft:
    """Draft the event that puts started engines into service.

    Args:
        state: The state.
        ready: Model and variant of each.
    """
    names = " and ".join(f"{variant} of {model}" for model, variant in sorted(ready))
    verb = "answers" if len(ready) == 1 else "answer"
    payload = ConfigPayload(
        models=dict(state.models),
        engines={
            name: {variant: dict(engine) for variant, engine in variants.items()}
            for name, variants in (state.engines or {}).items()
        },
        starting=tuple(sorted(state.starting - ready)),
    )
    return Draft(
        kind=Kind.CONFIG,
        actor=CONFIGURATION,
        reason=f"the engine of {names} {verb}"[:1000],
        model=None,
        payload=payload,
    )
