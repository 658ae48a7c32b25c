"""Carries a plan out: starts Ray, deploys one application per variant, reports their states.

The only module on the deploying side that imports Ray. It runs in a process of its own (see
`penumbra.serve.hosting.__main__`), so that nothing else pays for Ray's imports and threads.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import ray
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from penumbra.serve.hosting.cluster import ray_arguments
from penumbra.serve.hosting.events import VariantEvent, VariantState
from penumbra.serve.hosting.plan import FleetPlan, HostedVariant
from penumbra.serve.hosting.replica import VariantReplica
from penumbra.serve.hosting.replica_targets import ReplicaNumbers, ReplicaTargets

_STATES: dict[ApplicationStatus, VariantState] = {
    ApplicationStatus.RUNNING: VariantState.RUNNING,
    ApplicationStatus.DEPLOY_FAILED: VariantState.FAILED,
    ApplicationStatus.UNHEALTHY: VariantState.UNHEALTHY,
}

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def fleet(plan: FleetPlan) -> Iterator["Fleet"]:
    """Ray with the plan's applications deployed; taken down on the way out.

    The applications load at the same time, and are still loading when the block begins.
    """
    ray.init(**ray_arguments(Path(plan.folder), plan.address))
    deployed = Fleet(plan)
    try:
        ray_serve.start(http_options={"host": plan.host, "port": plan.port})
        deployed.follow(plan)
        yield deployed
    finally:
        deployed.take_down()


class Fleet:
    """The deployed applications, as Ray Serve reports them.

    Args:
        plan: Where Ray runs; its applications are deployed by `follow`.
    """

    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan.model_copy(update={"variants": ()})
        self._refused: dict[str, str] = {}
        """Application that Ray Serve did not take -> why."""
        self._last: dict[str, VariantEvent] = {}
        self._targets = ReplicaTargets(plan.host, is_local=plan.address is None)
        self._numbers = ReplicaNumbers()

    def follow(self, plan: FleetPlan) -> None:
        """Deploy what another plan adds or changes, and delete what it leaves out.

        All other applications stay as they are. One that is deleted ends its answers under way.
        """
        known = {variant.app: variant for variant in self._plan.variants}
        wanted = {variant.app: variant for variant in plan.variants}
        self._plan = plan
        for app in known.keys() - wanted.keys():
            ray_serve.delete(app, _blocking=False)
            self._forget(app)
        new = [variant for app, variant in wanted.items() if known.get(app) != variant]
        for variant in new:
            self._forget(variant.app)
            self._deploy(variant)
        _log.info("fleet_deployed", extra={"variants": len(wanted), "new": len(new)})

    def take_down(self) -> None:
        """Delete what was deployed to a cluster that was there before, and leave Ray."""
        if self._plan.address is not None:
            # Delete only what was deployed, after its requests finished.
            for variant in self._plan.variants:
                ray_serve.delete(variant.app)
        ray.shutdown()

    def changes(self) -> list[VariantEvent]:
        """The variants whose state differs from the last call's."""
        applications = ray_serve.status().applications
        targets = self._targets.find()
        changed = []
        for variant in self._plan.variants:
            event = self._event(variant, applications.get(variant.app))
            if event.replicas:
                addresses = self._numbers.assign(variant.app, targets.get(variant.app, {}))
                event = event.model_copy(update={"addresses": addresses})
            if event != self._last.get(variant.app):
                self._last[variant.app] = event
                changed.append(event)
        return changed

    def _event(
        self, variant: HostedVariant, status: ApplicationStatusOverview | None
    ) -> VariantEvent:
        refusal = self._refused.get(variant.app)
        if refusal is None:
            return _event(variant, status)
        return VariantEvent(
            app=variant.app,
            definition=variant.definition,
            state=VariantState.FAILED,
            replicas=0,
            message=refusal,
        )

    def _deploy(self, variant: HostedVariant) -> None:
        try:
            ray_serve.run_many(
                [_application(variant)],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the others run
            _log.exception("variant_refused", extra={"variant": variant.app})
            self._refused[variant.app] = f"{type(error).__name__}: {error}"

    def _forget(self, app: str) -> None:
        self._last.pop(app, None)
        self._refused.pop(app, None)


def _application(variant: HostedVariant) -> ray_serve.RunTarget:
    # `ingress()` without an application: the replica builds vLLM's once its engine runs. No
    # LLMRouter is attached, so HAProxy balances over the replicas by itself.
    deployment = ray_serve.deployment(
        ray_serve.ingress()(VariantReplica),
        **variant.deployment,
    ).options(version=variant.build, _internal=True)  # else Ray makes one up: all replicas end
    bound = deployment.bind(variant.llm_config, is_local=variant.is_local, in_core=variant.in_core)
    return ray_serve.RunTarget(bound, name=variant.app, route_prefix=variant.route_prefix)


def _event(variant: HostedVariant, status: ApplicationStatusOverview | None) -> VariantEvent:
    if status is None:
        return VariantEvent(
            app=variant.app,
            definition=variant.definition,
            state=VariantState.STARTING,
            replicas=0,
        )
    replicas = sum(
        deployment.replica_states.get("RUNNING", 0) for deployment in status.deployments.values()
    )
    state = _STATES.get(status.status, VariantState.STARTING)
    if state is VariantState.RUNNING and replicas < variant.replicas:
        state = VariantState.UNHEALTHY
    messages = [status.message, *(deployment.message for deployment in status.deployments.values())]
    return VariantEvent(
        app=variant.app,
        definition=variant.definition,
        state=state,
        replicas=replicas,
        message="\n".join(message for message in messages if message),
    )
