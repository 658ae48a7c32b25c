"""Takes candidates out of service when Alertmanager says so: the second line behind the guard.

Each firing of an alert -- a fingerprint and a start -- acts at most once, however often it is sent,
by whichever of several Alertmanagers, and whatever was restarted in between. So an operator may
re-arm a rollout while its alert still fires; only a new firing rolls it back again.

Reading order: AlertHandler.take, AlertHandler.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from penumbra.deployments.actors import ALERTMANAGER
from penumbra.deployments.control.controller import Change, Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.history.alerts import Alert, AlertOutcome, Result, ways_to
from penumbra.deployments.history.events import Kind
from penumbra.deployments.rollouts.record import WATCHED, Key, Phase, Rollout
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, roll_back
from penumbra.deployments.store.alert_tables import deal_with, is_dealt_with
from penumbra.router.flags.routing_table import Flag, ModelSnapshot

log = logging.getLogger(__name__)

Found = tuple[Result, str, int | None]
"""Result, detail, epoch."""


class AlertHandler:
    """Acts on alerts, one at a time.

    Args:
        rollouts: Started.
        controller: Whose rollouts they are.
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
        """Do what an alert asks for; when this returns it is durable. Never raises for an alert."""
        async with self._lock:
            try:
                result, detail, epoch = await self._found(alert)
            except DeploymentsError as error:
                result, detail, epoch = Result.FAILED, error.message, None
            except Exception:
                # Whatever it is, Alertmanager has more alerts, and sends this one again.
                log.exception("alert_failed", extra={"fingerprint": alert.fingerprint})
                result, detail, epoch = Result.FAILED, "the log says why", None
        self._controller.metrics.count_alert(result.value)
        log.log(
            logging.ERROR if result is Result.FAILED else logging.INFO,
            "alert_taken",
            extra={
                "fingerprint": alert.fingerprint,
                "alert": alert.reason,
                "model": alert.labels.get("model"),
                "candidate": alert.labels.get("candidate"),
                "result": result.value,
                "detail": detail,
                "epoch": epoch,
            },
        )
        return AlertOutcome(
            fingerprint=alert.fingerprint, result=result, detail=detail, epoch=epoch
        )

    async def _found(self, alert: Alert) -> Found:
        if alert.status == "resolved":
            return Result.RESOLVED, "a resolved alert puts nothing back", None
        if not alert.asks_for_rollback:
            return Result.NO_ACTION, "found no label penumbra_action: rollback", None
        key = alert.labels.get("model", ""), alert.labels.get("candidate", "")
        problem = self._problem(key)
        if problem is not None:
            return Result.NOT_APPLICABLE, problem, None
        if await self._controller.read(lambda store: store.look(lambda c: is_dealt_with(c, alert))):
            return Result.ALREADY_ACTED, "this firing was dealt with before", None
        result, detail, epoch = await self._acted(alert, key)
        if result is not Result.NO_ACTION:
            at = self._now()
            await self._controller.write(
                lambda store: store.write(lambda c: deal_with(c, alert, key, at))
            )
        return result, detail, epoch

    def _problem(self, key: Key) -> str | None:
        name, candidate = key
        models = self._controller.state.models
        if name not in models:
            return f"label model: found {name!r}, wanted one of: {', '.join(models)}"
        others = [one for one in models[name].variants if one != models[name].baseline]
        if candidate not in others:
            return f"label candidate: found {candidate!r}, wanted one of: {', '.join(others)}"
        return None

    async def _acted(self, alert: Alert, key: Key) -> Found:
        rollout = self._controller.state.rollouts.get(key)
        if rollout is None or rollout.record.phase is Phase.OFF:
            return await self._blocked(alert, key)

        def edit(one: Rollout) -> Rollout:
            if one.record.phase not in WATCHED:
                return one  # the guard, or somebody, was quicker
            step = DecisionStep(StepKind.ROLLBACK, f"by an alert: {alert.reason}")
            record, _ = roll_back(one.record, self._now(), step)
            return one.model_copy(update={"record": record})

        kept = await self._rollouts.change(key, edit, ALERTMANAGER, alert.reason)
        if kept.is_changed:
            return Result.ACTED, "rolled back", kept.epoch
        return Result.ALREADY_ACTED, f"its rollout is {kept.rollout.stage}", None

    async def _blocked(self, alert: Alert, key: Key) -> Found:
        """Nobody's rollout: the flag alone decides who gets the candidate."""
        name, candidate = key
        flag = self._controller.state.flags[name]
        if candidate in flag.blocked:
            return Result.ALREADY_ACTED, "it is blocked", None
        ways = ways_to(flag, candidate)
        if not ways:
            return Result.NO_ACTION, "it has no rollout and nobody gets it", None

        def block(flag: Flag, model: ModelSnapshot) -> Flag:
            del model
            return flag.model_copy(update={"blocked": (*flag.blocked, candidate)})

        change = Change(Kind.SET, ALERTMANAGER, alert.reason, {name: block})
        applied = await self._controller.apply(change)
        return Result.ACTED, f"blocked in the flag; it was in: {', '.join(ways)}", applied.epoch
