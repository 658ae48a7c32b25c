"""Routes under /admin/v1/rollouts: read rollouts, begin, steer and end them."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from penumbra.deployments.api.access import Access, Caller, Role
from penumbra.deployments.api.channel_views import channel_views
from penumbra.deployments.api.flag_routes import ERRORS, caller_of, viewer_of
from penumbra.deployments.api.flag_schemas import GatewaysReached, ReasonBody, milliseconds
from penumbra.deployments.api.guarded_route import GuardedRoute, body_of_most
from penumbra.deployments.api.rollback_explanation import explain, last_rollback
from penumbra.deployments.api.rollout_schemas import (
    ApplyBody,
    ExplainView,
    GraduateBody,
    RolloutChangeView,
    RolloutsView,
    RolloutView,
)
from penumbra.deployments.api.rollout_views import rollout_view, summary_view
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.rollout_service import ChangeResult, RolloutService
from penumbra.deployments.history import graduation, operator_actions
from penumbra.deployments.history.config_effects import draft_of, require_readable
from penumbra.deployments.history.events import Draft
from penumbra.deployments.rollouts.record import Key, Rollout
from penumbra.router.bounds import SPEC_BODY_BYTES

Now = Callable[[], datetime]
Model = Annotated[str, Query(description="The model's public name.")]


def rollouts_router(
    rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> APIRouter:
    """Builds all routes of rollouts.

    Args:
        rollouts: Started.
        controller: The controller that owns the rollouts.
        access: The tokens and roles.
        now: Wall clock.
    """
    router = APIRouter(
        prefix="/admin/v1/rollouts", tags=["rollouts"], responses=ERRORS, route_class=GuardedRoute
    )
    _add_views(router, rollouts, controller, access)
    _add_apply(router, rollouts, controller, access, now)
    _add_verbs(router, rollouts, controller, access, now)
    _add_admin_verbs(router, rollouts, controller, access, now)
    _add_graduation(router, rollouts, controller, access, now)
    return router


def _add_views(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access
) -> None:
    @router.get("", dependencies=[viewer_of(access)])
    async def list_rollouts() -> RolloutsView:
        """List all rollouts."""
        state = controller.state
        views = [
            summary_view(rollout, rollouts.evidence_book.evidence(rollout))
            for rollout in state.rollouts.values()
        ]
        return RolloutsView(epoch=state.epoch, rollouts=views)

    @router.get("/{candidate}", dependencies=[viewer_of(access)])
    async def read_rollout(candidate: str, model: Model) -> RolloutView:
        """Show one rollout: evidence by signal and slice, the verdict, and unmet conditions."""
        key = model, candidate
        rollouts.rollout(key)
        last = await controller.read(lambda store: last_rollback(store, key))
        rollout = rollouts.rollout(key)
        evidence = rollouts.evidence_book.evidence(rollout)
        return await asyncio.to_thread(rollout_view(controller.state, rollout, evidence, last))

    @router.get("/{candidate}/explain", dependencies=[viewer_of(access)])
    async def explain_rollout(candidate: str, model: Model) -> ExplainView:
        """Explain the last rollback or quarantine, and compute its verdict anew."""
        rollouts.rollout((model, candidate))
        key = controller.checkpoint_key
        return await controller.read(lambda store: explain(store, (model, candidate), key))


def _add_apply(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    @router.put("", dependencies=[body_of_most(SPEC_BODY_BYTES)])
    async def apply_rollout(
        body: ApplyBody, caller: Annotated[Caller, caller_of(access, Role.OPERATOR)]
    ) -> RolloutChangeView:
        """Begin a rollout in shadow. A spec that differs from the current one begins it anew.

        Sending the same spec again changes nothing.
        """
        name = uuid.uuid4().hex[:12]

        def make() -> Rollout:
            return operator_actions.apply(controller.state, body.spec, body.reason, now(), name)

        result = await rollouts.put(make, caller.actor, body.reason)
        return await _arrived(rollouts, controller, result)


def _add_verbs(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    OperatorCommand = Annotated[_Command, _command_of(rollouts, controller, access, Role.OPERATOR)]  # noqa: N806 - a type

    @router.post("/{candidate}/promote")
    async def promote(command: OperatorCommand) -> RolloutChangeView:
        """Advance one stage before its minimum time is over; all other conditions must be met."""

        def edit(rollout: Rollout) -> Rollout:
            findings = rollouts.evidence_book.findings(rollout)
            return operator_actions.promote(controller.state, rollout, findings, now())

        return await command.run(edit)

    @router.post("/{candidate}/hold")
    async def hold(command: OperatorCommand) -> RolloutChangeView:
        """Keep the share, and do not advance until the rollout is resumed."""
        return await command.run(lambda rollout: operator_actions.hold(rollout, command.reason))

    @router.post("/{candidate}/resume")
    async def resume(command: OperatorCommand) -> RolloutChangeView:
        """End a hold: the rollout advances again."""
        return await command.run(lambda rollout: operator_actions.resume(rollout, command.reason))

    @router.post("/{candidate}/rollback")
    async def rollback(command: OperatorCommand) -> RolloutChangeView:
        """Give every client the baseline until the rollout is re-armed.

        A candidate that has graduated goes back to the baseline of before.
        """

        def draft(rollout: Rollout) -> list[Draft]:
            state, order = controller.state, command.order(now())
            require_readable(state, command.key[0])
            if rollout.record.graduated is not None:
                return graduation.take_back(state, rollout, order)
            back = operator_actions.rollback(rollout, order.reason, order.now)
            return [draft_of(state, back, order.actor, order.reason)]

        return await command.commit(draft)


def _add_graduation(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    @router.post("/{candidate}/graduate")
    async def graduate(
        candidate: str,
        model: Model,
        body: GraduateBody,
        caller: Annotated[Caller, caller_of(access, Role.ADMIN)],
    ) -> RolloutChangeView:
        """Make a promoted candidate the model's baseline.

        Its baseline of now stays in the configuration for a rollback. Rollouts of other candidates
        begin anew in shadow, measured against the new baseline.
        """
        command = _Command(rollouts, controller, (model, candidate), caller.actor, body.reason)
        terms = graduation.Terms(timedelta(days=body.keep_days), body.accept_unproven)

        def draft(rollout: Rollout) -> list[Draft]:
            channels = channel_views(rollout, rollouts.evidence_book.evidence(rollout))
            left = [f"{each.channel} in {each.slice}" for each in channels if not each.is_released]
            return graduation.graduate(controller.state, rollout, command.order(now()), terms, left)

        return await command.commit(draft)


def _add_admin_verbs(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    AdminCommand = Annotated[_Command, _command_of(rollouts, controller, access, Role.ADMIN)]  # noqa: N806 - a type

    @router.post("/{candidate}/rearm")
    async def rearm(command: AdminCommand) -> RolloutChangeView:
        """Undo a rollback: begin in shadow again, with fresh evidence."""
        return await command.run(
            lambda rollout: operator_actions.rearm(controller.state, rollout, command.reason, now())
        )

    @router.post("/{candidate}/end")
    async def end(command: AdminCommand) -> RolloutChangeView:
        """End the rollout: stop comparing, and take the candidate's share away."""
        return await command.run(
            lambda rollout: operator_actions.end(rollout, command.reason, now())
        )


@dataclass(frozen=True, slots=True)
class _Command:
    """A caller's request to change one rollout."""

    rollouts: RolloutService
    controller: Controller
    key: Key
    actor: str
    reason: str

    async def run(self, edit: Callable[[Rollout], Rollout]) -> RolloutChangeView:
        """Changes the rollout, waits for the gateways, and shows it as it is then."""
        result = await self.rollouts.change(self.key, edit, self.actor, self.reason)
        return await _arrived(self.rollouts, self.controller, result)

    async def commit(self, draft: Callable[[Rollout], list[Draft]]) -> RolloutChangeView:
        """Commits events that change more than the rollout; otherwise as `run`."""

        async def make() -> list[Draft]:
            return draft(self.rollouts.rollout(self.key))

        delivery = await self.rollouts.commit(make)
        rollout, epoch = self.rollouts.rollout(self.key), self.controller.state.epoch
        result = ChangeResult(rollout, epoch, delivery is not None, delivery)
        return await _arrived(self.rollouts, self.controller, result)

    def order(self, now: datetime) -> graduation.Order:
        """Say who wants it, why, and when."""
        return graduation.Order(self.actor, self.reason, now)


def _command_of(
    rollouts: RolloutService, controller: Controller, access: Access, least: Role
) -> Any:
    """Makes the dependency that reads a command of a caller whose role is at least `least`."""

    def read(
        candidate: str,
        model: Model,
        body: ReasonBody,
        caller: Annotated[Caller, caller_of(access, least)],
    ) -> _Command:
        return _Command(rollouts, controller, (model, candidate), caller.actor, body.reason)

    return Depends(read)


async def _arrived(
    rollouts: RolloutService, controller: Controller, result: ChangeResult
) -> RolloutChangeView:
    # Before the wait: the evidence of a run that begins meanwhile is none of this answer's.
    summary = summary_view(result.rollout, rollouts.evidence_book.evidence(result.rollout))
    arrival = await controller.await_arrival(result.epoch, result.delivery)
    return RolloutChangeView(
        epoch=result.epoch,
        changed=result.is_changed,
        gateways=GatewaysReached.of(arrival),
        propagation_ms=milliseconds(arrival.seconds),
        rollout=summary,
    )
