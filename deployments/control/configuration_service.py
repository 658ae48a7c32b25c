"""Changes what an installation serves while it runs.

A proposed configuration is compared with the one in force, and becomes it, whole or not at all.

Reading order: ConfigurationService.propose.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.config.loader import build_model, read_proposal
from penumbra.deployments.config.local_settings import (
    local_differences,
    local_settings,
    without_engines,
)
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import ConfigInvalid, ConfigurationRefused, Conflict
from penumbra.deployments.evidence.dry_fold import fold_ahead
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history.changes import Arrival
from penumbra.deployments.history.config_effects import apply_config, configured, flags_after
from penumbra.deployments.history.config_plan import (
    Action,
    Plan,
    Step,
    plan_of,
    reference_problems,
)
from penumbra.deployments.history.events import ConfigPayload, Draft, Event
from penumbra.deployments.history.split_places import keep_places
from penumbra.deployments.history.state import State
from penumbra.router.flags.tenant_keys import KeySettings

NAME = "the proposal"
MOST_LIMIT = 10**9
"""Largest limit of a tenant that is taken: arithmetic on it is exact everywhere."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration that is proposed."""

    models: Mapping[str, Any]
    """As in the configuration file."""
    keys: Sequence[Any] | None
    """As in the configuration file; None: they stay as they are."""
    actor: str
    reason: str
    local: Mapping[str, Any] | None = None
    """Local settings (`local_settings`) of the file; None: it has none to compare."""
    expected_epoch: int | None = None
    """Refuse if what the proposal touches was changed after this epoch."""


@dataclass(frozen=True, slots=True)
class ProposalOutcome:
    """The plan of a proposal, and how far it came."""

    plan: Plan
    epoch: int
    is_changed: bool
    """Whether something was stored."""
    arrival: Arrival


class ConfigurationService:
    """The configuration in force of one control process's installation.

    Args:
        controller: Makes all changes.
        rollouts: The rollouts, which a configuration may change.
        gateways: The connected gateways.
        spec: The file that this process started with.
        hosted: The variants that are hosted beside this process.
        now: Wall clock.
    """

    def __init__(
        self,
        controller: Controller,
        rollouts: RolloutService,
        gateways: Publisher,
        spec: PenumbraSpec,
        hosted: HostedHere,
        now: Callable[[], datetime],
    ) -> None:
        self._controller = controller
        self.rollouts = rollouts
        self._gateways = gateways
        self._spec = spec
        self._hosted = hosted
        self.now = now

    async def propose(self, proposal: Proposal, *, is_dry: bool = False) -> ProposalOutcome:
        """Plan a configuration, and put it into force.

        Args:
            proposal: The configuration.
            is_dry: Only plan.

        Raises:
            NotLeader: Another process leads, and knows the gateways.
            ConfigurationRefused: It cannot be put into force; lists every problem.
            ChangeUnfoldable: A value of it cannot be stored, or it is too large.
            Conflict: What it touches was changed since the expected epoch; names the change.
            StoreUnavailable: The store failed; nothing was changed.
        """
        self._controller.standing.require_leading()
        payload = self._read(proposal)
        if is_dry:
            plan, drafts = self._drafted(payload, proposal)
            fold_ahead(self._controller.state, drafts, self.now())
            return ProposalOutcome(plan, self._controller.state.epoch, False, Arrival(0, 0, None))
        plan = Plan()

        async def make() -> Sequence[Draft]:
            nonlocal plan
            plan, drafts = self._drafted(payload, proposal)
            await self._require_unchanged(plan, proposal.expected_epoch)
            return () if plan.is_empty else drafts

        delivery = await self.rollouts.commit(make)
        epoch = self._controller.state.epoch
        arrival = await self._controller.await_arrival(epoch, delivery)
        return ProposalOutcome(plan, epoch, delivery is not None, arrival)

    def _read(self, proposal: Proposal) -> ConfigPayload:
        spec = self._validated(proposal)
        told = self._controller.state.engines
        problems = [*self._hosted.problems(spec.models, told)]
        if problems:
            raise ConfigurationRefused([*problems, *self._rest(proposal, spec)])
        models = {
            name: build_model(name, model, model.flag, self._hosted.address_of)
            for name, model in spec.models.items()
        }
        keys = None if proposal.keys is None else spec.keys
        engines = self._hosted.proposed(spec.models, told)
        return configured(self._known_state(), models, keys, engines)

    def _known_state(self) -> State:
        """The state, with the engines of this process's file where it tells of none."""
        state = self._controller.state
        return replace(state, engines=self._hosted.in_force(state.engines))

    def _validated(self, proposal: Proposal) -> PenumbraSpec:
        hellos = [link.hello for link in self._gateways.links]
        processes = max([self._spec.gateway.processes, *(hello.processes for hello in hellos)])
        gateway = {"host": self._spec.gateway.host, "processes": processes}
        keys = self._controller.state.keys if proposal.keys is None else proposal.keys
        if keys is None:
            keys = self._spec.keys
        written = [key if isinstance(key, dict) else key.model_dump(mode="json") for key in keys]
        data = {"models": proposal.models, "keys": written, "gateway": gateway}
        try:
            spec = read_proposal(data, NAME)
        except ConfigInvalid as error:
            raise ConfigurationRefused(error.problems) from error
        if proposal.keys is not None:
            problems = [*self._key_problems(spec)]
            if problems:
                raise ConfigurationRefused(problems)
        return spec

    def _key_problems(self, spec: PenumbraSpec) -> Iterator[str]:
        yield from _large_limits(spec.keys)
        for link in self._gateways.links:
            hello = link.hello
            where = f"{hello.gateway} on {hello.host or link.peer or 'an unknown machine'}"
            if hello.needs_keys and not spec.keys:
                yield (
                    f"keys: found none, wanted at least one: the gateway {where} listens beyond"
                    " its own machine"
                )
            if hello.processes == 0 and spec.keys != self._controller.state.keys:
                yield (
                    f"keys: found other ones than those in force, but the gateway {where} is of a"
                    " release that takes keys from its file only: restart it with this release"
                )

    def _rest(self, proposal: Proposal, spec: PenumbraSpec) -> Iterator[str]:
        """What could be put into force without the engines that would have to be started."""
        models: dict[str, Any] = {}
        told = self._controller.state.engines
        for name, model in proposal.models.items():
            variants = {
                variant: found
                for variant, found in model["variants"].items()
                if self._hosted.is_settled(name, variant, spec.models[name], told)
            }
            if model["baseline"] in variants:
                models[name] = {**model, "variants": variants}
        if not models or models == proposal.models:
            return
        try:
            payload = self._read(replace(proposal, models=models, local=None))
            plan, _ = self._drafted(payload, proposal)
        except ConfigurationRefused:
            return
        steps = [step for step in plan.steps if step.action not in (Action.NOTE, Action.LATER)]
        if steps:
            yield "Without that, this could be applied at once:"
            yield from (f"  {step.action.value} {step.text}" for step in steps)

    def _drafted(self, payload: ConfigPayload, proposal: Proposal) -> tuple[Plan, list[Draft]]:
        state, now = self._known_state(), self.now()
        payload = keep_places(payload, state.places)
        problems = tuple(reference_problems(payload, flags_after(state, payload, now)))
        if problems:
            raise ConfigurationRefused(problems)
        drafts = apply_config(state, payload, proposal.actor, now, proposal.reason)
        plan = plan_of(state, payload, drafts, now)
        return replace(plan, steps=(*plan.steps, *self._later(proposal.local))), drafts

    def _later(self, local: Mapping[str, Any] | None) -> Iterator[Step]:
        if local is not None:
            running = local_settings(self._spec)
            if self._hosted.folder is not None:  # engines are no local matter then
                running, local = without_engines(running), without_engines(local)
            for text in local_differences(running, local):
                yield Step(Action.LATER, text)

    async def _require_unchanged(self, plan: Plan, expected: int | None) -> None:
        state = self._controller.state
        if expected is None or plan.is_empty:
            return
        epochs = [state.configured, *_changed(state, plan)]
        later = [epoch for epoch in epochs if epoch > expected]
        if expected > state.epoch:
            raise Conflict(
                f"found epoch {state.epoch}, wanted {expected} or a later one: the store went back"
                " since the plan was made; look at it again",
                param="expected_epoch",
            )
        if not later:
            return
        epoch = min(later)
        found = await self._controller.on_store_thread(lambda store: store.page(epoch - 1, 1))
        raise Conflict(
            f"{_told(found, epoch)}, after epoch {expected} on which this proposal is based: look"
            " at the plan again",
            param="expected_epoch",
        )


def _large_limits(keys: Sequence[KeySettings]) -> Iterator[str]:
    for index, key in enumerate(keys):
        for name, limit in key.limits:
            if limit is not None and limit > MOST_LIMIT:
                yield (
                    f"keys[{index}].limits.{name}: found a number of {len(str(limit))} digits,"
                    f" wanted at most {MOST_LIMIT}"
                )


def _changed(state: State, plan: Plan) -> list[int]:
    return [state.changed.get(name, 0) for name in plan.models]


def _told(found: Sequence[Event], epoch: int) -> str:
    if not found or found[0].epoch != epoch:
        return f"something that this proposal touches was changed in epoch {epoch}"
    event = found[0]
    what = f"the flag of {event.model}" if event.model else "the configuration"
    return f"{what} was changed in epoch {epoch} by {event.actor} ({event.reason})"
