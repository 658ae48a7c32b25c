"""The routes under /admin/v1/rollouts."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from penumbra.deployments.api.access import Access, Caller, Role
from penumbra.deployments.api.flag_routes import ERRORS, caller_of, viewer_of
from penumbra.deployments.api.flag_schemas import ReasonBody
from penumbra.deployments.api.rollback_explanation import explain, last_rollback
from penumbra.deployments.api.rollout_schemas import (
    ApplyBody,
    ExplainView,
    RolloutChangeView,
    RolloutsView,
    RolloutView,
)
from penumbra.deployments.api.rollout_views import rollout_view, summary_view
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.rollout_service import ChangeResult, RolloutService
from penumbra.deployments.history import operator_actions
from penumbra.deployments.rollouts.record import Key, Rollout

Now = Callable[[], datetime]
Model = Annotated[str, Query(description="The model's public name.")]


def rollouts_router(
    rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> APIRouter:
    """All routes of rollouts.

    Args:
        rollouts: Started.
        controller: Whose rollouts they are.
        access: Who may do what.
        now: Wall clock.
    """
    router = APIRouter(prefix="/admin/v1/rollouts", tags=["rollouts"], responses=ERRORS)
    _add_views(router, rollouts, controller, access, now)
    _add_apply(router, rollouts, controller, access, now)
    _add_verbs(router, rollouts, controller, access, now)
    _add_admin_verbs(router, rollouts, controller, access, now)
    return router


def _add_views(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    @router.get("", dependencies=[viewer_of(access)])
    async def list_rollouts() -> RolloutsView:
        """All rollouts."""
        state = controller.state
        views = [summary_view(one, rollouts.bench.evidence(one)) for one in state.rollouts.values()]
        return RolloutsView(epoch=state.epoch, rollouts=views)

    @router.get("/{candidate}", dependencies=[viewer_of(access)])
    async def read_rollout(candidate: str, model: Model) -> RolloutView:
        """Everything about one: evidence by signal and slice, the verdict, what is missing."""
        key = model, candidate
        rollouts.rollout(key)
        last = await controller.read(lambda store: last_rollback(store, key))
        rollout = rollouts.rollout(key)
        evidence = rollouts.bench.evidence(rollout)
        return await asyncio.to_thread(
            rollout_view(controller.state, rollout, evidence, now(), last)
        )

    @router.get("/{candidate}/explain", dependencies=[viewer_of(access)])
    async def explain_rollout(candidate: str, model: Model) -> ExplainView:
        """Why the guard acted the last time, and the verdict computed anew."""
        rollouts.rollout((model, candidate))
        return await controller.read(lambda store: explain(store, (model, candidate)))


def _add_apply(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    @router.put("")
    async def apply_rollout(
        body: ApplyBody, caller: Annotated[Caller, caller_of(access, Role.OPERATOR)]
    ) -> RolloutChangeView:
        """Begin a rollout in shadow; with another spec than before, begin it anew.

        The same spec again changes nothing.
        """
        name = uuid.uuid4().hex[:12]

        def make() -> Rollout:
            return operator_actions.apply(controller.state, body.spec, body.reason, now(), name)

        return _changed(rollouts, await rollouts.put(make, caller.actor, body.reason))


def _add_verbs(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    Operator = Annotated[Caller, caller_of(access, Role.OPERATOR)]  # noqa: N806 - a type

    @router.post("/{candidate}/promote")
    async def promote(
        candidate: str, model: Model, body: ReasonBody, caller: Operator
    ) -> RolloutChangeView:
        """One stage on, without waiting for its time; everything else must be there."""

        def edit(rollout: Rollout) -> Rollout:
            findings = rollouts.bench.findings(rollout)
            return operator_actions.promote(controller.state, rollout, findings, now())

        return await _edited(rollouts, (model, candidate), edit, caller, body)

    @router.post("/{candidate}/hold")
    async def hold(
        candidate: str, model: Model, body: ReasonBody, caller: Operator
    ) -> RolloutChangeView:
        """Keep the share, and advance no more."""
        return await _edited(
            rollouts,
            (model, candidate),
            lambda one: operator_actions.hold(one, body.reason),
            caller,
            body,
        )

    @router.post("/{candidate}/resume")
    async def resume(
        candidate: str, model: Model, body: ReasonBody, caller: Operator
    ) -> RolloutChangeView:
        """Advance again."""
        return await _edited(
            rollouts,
            (model, candidate),
            lambda one: operator_actions.resume(one, body.reason),
            caller,
            body,
        )

    @router.post("/{candidate}/rollback")
    async def rollback(
        candidate: str, model: Model, body: ReasonBody, caller: Operator
    ) -> RolloutChangeView:
        """Everybody gets the baseline, until the rollout is re-armed."""
        return await _edited(
            rollouts,
            (model, candidate),
            lambda one: operator_actions.rollback(one, body.reason, now()),
            caller,
            body,
        )


def _add_admin_verbs(
    router: APIRouter, rollouts: RolloutService, controller: Controller, access: Access, now: Now
) -> None:
    Admin = Annotated[Caller, caller_of(access, Role.ADMIN)]  # noqa: N806 - a type

    @router.post("/{candidate}/rearm")
    async def rearm(
        candidate: str, model: Model, body: ReasonBody, caller: Admin
    ) -> RolloutChangeView:
        """Take a rollback back: shadow again, with fresh evidence."""
        return await _edited(
            rollouts,
            (model, candidate),
            lambda one: operator_actions.rearm(controller.state, one, body.reason, now()),
            caller,
            body,
        )

    @router.post("/{candidate}/end")
    async def end(
        candidate: str, model: Model, body: ReasonBody, caller: Admin
    ) -> RolloutChangeView:
        """Compare no more, and take the candidate's share away."""
        return await _edited(
            rollouts,
            (model, candidate),
            lambda one: operator_actions.end(one, body.reason, now()),
            caller,
            body,
        )


async def _edited(
    rollouts: RolloutService,
    key: Key,
    edit: Callable[[Rollout], Rollout],
    caller: Caller,
    body: ReasonBody,
) -> RolloutChangeView:
    return _changed(rollouts, await rollouts.change(key, edit, caller.actor, body.reason))


def _changed(rollouts: RolloutService, kept: ChangeResult) -> RolloutChangeView:
    return RolloutChangeView(
        epoch=kept.epoch,
        changed=kept.is_changed,
        rollout=summary_view(kept.rollout, rollouts.bench.evidence(kept.rollout)),
    )
