"""Takes candidates out of service on alerts of Alertmanager: the second line behind the guard.

Each firing of an alert -- a fingerprint and a start -- acts at most once, even if it is sent often,
by several Alertmanagers, or across restarts. So an operator may re-arm a rollout while its alert
still fires; only a new firing rolls it back again.

Reading order: AlertHandler.take.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from penumbra.deployments.actors import ALERTMANAGER
from penumbra.deployments.control.controller import Change, Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.history.alerts import Alert, AlertOutcome, Result, ways_to
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.set_aside import reason_of
from penumbra.deployments.rollouts.record import WATCHED, Key, Phase, Rollout
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, roll_back
from penumbra.deployments.store.alert_tables import deal_with, is_dealt_with
from penumbra.router.flags.routing_table import Flag, ModelSnapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Action:
    """Result of acting on one alert."""

    result: Result
    detail: str
    epoch: int | None = None


class AlertHandler:
    """Acts on alerts, one at a time.

    Args:
        rollouts: Rolls back; started.
        controller: Changes the flags of models without a rollout.
        now: Wall clock.
    """

    def __init__(
        self, rollouts: RolloutService, controller: Controller, now: Callable[[], datetime]
    ) -> None:
        self._rollouts = rollouts
        self._controller = controller
        self._now = now
        self._lock = asyncio.Lock()

    async def take(self, alert: Alert) -> AlertOutcome:
        """Act on an alert; the action is durable when this returns. Never raises for an alert."""
        async with self._lock:
            try:
                action = await self._act_once(alert)
            except DeploymentsError as error:
                action = _Action(Result.FAILED, error.message)
            except Exception:
                # Other alerts must still be taken, and Alertmanager sends this one again.
                log.exception("alert_failed", extra={"fingerprint": alert.fingerprint})
                action = _Action(Result.FAILED, "the log says why")
        self._controller.metrics.count_alert(action.result.value)
        log.log(
            logging.ERROR if action.result is Result.FAILED else logging.INFO,
            "alert_taken",
            extra={
                "fingerprint": alert.fingerprint,
                "alert": alert.reason,
                "model": alert.labels.get("model"),
                "candidate": alert.labels.get("candidate"),
                "result": action.result.value,
                "detail": action.detail,
                "epoch": action.epoch,
            },
        )
        return AlertOutcome(
            fingerprint=alert.fingerprint,
            result=action.result,
            detail=action.detail,
            epoch=action.epoch,
        )

    async def _act_once(self, alert: Alert) -> _Action:
        if alert.status == "resolved":
            return _Action(Result.RESOLVED, "a resolved alert puts nothing back")
        if not alert.asks_for_rollback:
            return _Action(Result.NO_ACTION, "found no label penumbra_action: rollback")
        key = alert.labels.get("model", ""), alert.labels.get("candidate", "")
        problem = self._problem(key)
        if problem is not None:
            return _Action(Result.NOT_APPLICABLE, problem)
        if await self._controller.read(lambda store: store.look(lambda c: is_dealt_with(c, alert))):
            return _Action(Result.ALREADY_ACTED, "this firing was dealt with before")
        action = await self._act(alert, key)
        if action.result is not Result.NO_ACTION:
            at = self._now()
            await self._controller.on_store_thread(
                lambda store: store.write(lambda c: deal_with(c, alert, key, at))
            )
        return action

    def _problem(self, key: Key) -> str | None:
        name, candidate = key
        models = self._controller.state.models
        if name not in models:
            return f"label model: found {name!r}, wanted one of: {', '.join(models)}"
        others = [variant for variant in models[name].variants if variant != models[name].baseline]
        if candidate not in others:
            return f"label candidate: found {candidate!r}, wanted one of: {', '.join(others)}"
        return None

    async def _act(self, alert: Alert, key: Key) -> _Action:
        aside = reason_of(self._controller.state.aside, key[0])
        if aside is not None:
            return _Action(Result.ALREADY_ACTED, f"every request gets the baseline: {aside.text}")
        rollout = self._controller.state.rollouts.get(key)
        if rollout is None or rollout.record.phase is Phase.OFF:
            return await self._block(alert, key)

        def edit(rollout: Rollout) -> Rollout:
            if rollout.record.phase not in WATCHED:
                return rollout  # the guard or an operator was quicker
            step = DecisionStep(StepKind.ROLLBACK, f"by an alert: {alert.reason}")
            record, _ = roll_back(rollout.record, self._now(), step)
            return rollout.model_copy(update={"record": record})

        changed = await self._rollouts.change(key, edit, ALERTMANAGER, alert.reason)
        if changed.is_changed:
            return _Action(Result.ACTED, "rolled back", changed.epoch)
        return _Action(Result.ALREADY_ACTED, f"its rollout is {changed.rollout.stage}")

    async def _block(self, alert: Alert, key: Key) -> _Action:
        """Block a candidate without a rollout in the flag, which alone decides who gets it."""
        name, candidate = key
        flag = self._controller.state.flags[name]
        if candidate in flag.blocked:
            return _Action(Result.ALREADY_ACTED, "it is blocked")
        ways = ways_to(flag, candidate)
        if not ways:
            return _Action(Result.NO_ACTION, "it has no rollout and no request gets it")

        def block(flag: Flag, model: ModelSnapshot) -> Flag:
            del model
            return flag.model_copy(update={"blocked": (*flag.blocked, candidate)})

        change = Change(Kind.SET, ALERTMANAGER, alert.reason, {name: block})
        outcome = await self._controller.apply(change)
        detail = f"blocked in the flag; it was in: {', '.join(ways)}"
        return _Action(Result.ACTED, detail, outcome.epoch)
