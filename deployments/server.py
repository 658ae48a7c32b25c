"""Runs the control process: opens the store, takes over the configuration, serves until told."""

import asyncio
import functools
import logging
import signal
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI

from penumbra.deployments.actors import CONFIGURATION
from penumbra.deployments.api.access import Access
from penumbra.deployments.api.alert_routes import alerts_router
from penumbra.deployments.api.app import build_api
from penumbra.deployments.api.link_route import link_router
from penumbra.deployments.api.metrics_routes import metrics_router
from penumbra.deployments.api.rollout_routes import rollouts_router
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import StoredFlagInvalid
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.gateways.tick import ControlTick
from penumbra.deployments.history.config_effects import flags_after
from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.metrics.aggregate import Aggregate, fetcher, http_client
from penumbra.deployments.metrics.control_metrics import Series
from penumbra.deployments.metrics.discovery import METRICS_PATH, Discovery
from penumbra.deployments.metrics.flag_series import guard_series
from penumbra.deployments.metrics.interval_cache import IntervalCache
from penumbra.deployments.metrics.process_registry import ProcessRegistry
from penumbra.deployments.metrics.rollout_series import RolloutSeries
from penumbra.deployments.store.store import Store
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.metric import Process
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.flags.routing_table import Flag
from penumbra.router.flags.validate import flag_problems
from penumbra.router.link.messages import COMPARATOR_PATH
from penumbra.router.listening import announced, bind, joined, local_host
from penumbra.router.uvicorn_server import UvicornServer

log = logging.getLogger(__name__)

_PING_SECONDS = 5.0
_GRACE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The parts of a control process."""

    controller: Controller
    gateways: Publisher
    comparators: Publisher
    desks: tuple[LinkInbox, LinkInbox]
    """Who hears the gateways, and who the comparators."""
    heart: ControlTick
    rollouts: RolloutService
    ends: IntervalCache
    """Of the intervals that are exposed."""
    roll: ProcessRegistry
    """Where gateways and comparators have their metrics."""
    alerts: AlertHandler


def open_plane(spec: PenumbraSpec) -> ControlPlane:
    """The parts, on the configuration's store; the controller is still to be started.

    Raises:
        StoreUnavailable: The store cannot be opened.
    """
    now = time.monotonic
    store = Store(spec.store_url)
    liveness = GuardLiveness(spec.control.lease_seconds)
    desks = LinkInbox(liveness, now), LinkInbox(liveness, now, is_for_comparators=True)
    comparators = Publisher(store.identity, now, desks[1])
    gateways = Publisher(store.identity, now, desks[0], follower=comparators)
    clocks = Clocks(now=lambda: datetime.now(UTC), monotonic=now)
    controller = Controller(store, gateways, clocks, spec.control.acknowledge_seconds)
    heart = ControlTick(liveness, controller.prove_store, now)
    rollouts = RolloutService(
        controller,
        clocks,
        spec.control.acknowledge_seconds,
        uuid.uuid4().hex,
        spec.control.feedback_days,
    )
    heart.on_tick = rollouts.tick
    for desk in desks:
        desk.on_report = rollouts.take
    desks[0].feedback.on_judgement = rollouts.judge
    roll = ProcessRegistry(now)
    for publisher, kind in ((gateways, Process.GATEWAY), (comparators, Process.COMPARATOR)):
        publisher.on_come = functools.partial(roll.came, kind)
        publisher.on_go = roll.left
    alerts = AlertHandler(rollouts, controller, clocks.now)
    plane = ControlPlane(
        controller, gateways, comparators, desks, heart, rollouts, IntervalCache(), roll, alerts
    )
    _expose(plane, liveness, now)
    return plane


def _expose(plane: ControlPlane, liveness: GuardLiveness, now: Callable[[], float]) -> None:
    controller, rollouts = plane.controller, RolloutSeries(plane.rollouts.bench, plane.ends)

    async def of_rollouts() -> list[Series]:
        return await rollouts.series(controller.state, controller.metrics.history_counters)

    async def of_guard() -> list[Series]:
        hosts = [link.hello.host for link in plane.gateways.links]
        snapshot = plane.desks[0].snapshot
        return [
            *guard_series(liveness, snapshot, hosts, now()),
            (control.COMPARATORS, {(): len(plane.comparators.links)}),
        ]

    controller.metrics.expose("rollouts", of_rollouts)
    controller.metrics.expose("guard", of_guard)


async def run_control(
    spec: PenumbraSpec,
    payload: ConfigPayload,
    access: Access,
    config_file: str,
    replicas: Path | None = None,
    tracer: Tracer | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        spec: The configuration.
        payload: Its models, with the address of every variant.
        access: Who may do what.
        config_file: Where the configuration is from.
        replicas: Where the supervisor writes the addresses of the engines' replicas, if it does.
        tracer: Of decisions and rollbacks; None: tracing is off.

    Raises:
        StoreUnavailable: The store cannot be opened.
        StoredFlagInvalid: A stored flag does not fit the configuration; says what to do.
        OSError: The port cannot be bound.
    """
    plane = open_plane(spec)
    controller = plane.controller
    plane.rollouts.rollback_timer.tracer = tracer
    try:
        await controller.start()
        flags = flags_after(controller.state, payload, datetime.now(UTC))
        require_fitting_flags(flags, payload, config_file)
        is_changed = await controller.configure(payload, CONFIGURATION)
        await plane.rollouts.start()
        sock = bind(spec.control.host, spec.control.port, "control.host, control.port")
        log.info(
            "control_started",
            extra={
                "address": f"{spec.control.host}:{sock.getsockname()[1]}",
                "epoch": controller.state.epoch,
                "is_config_changed": is_changed,
            },
        )
        app = build_api(controller, plane.gateways, access)
        app.include_router(link_router(plane.comparators, access, COMPARATOR_PATH))
        app.include_router(
            rollouts_router(plane.rollouts, controller, access, lambda: datetime.now(UTC))
        )
        app.include_router(alerts_router(plane.alerts, access))
        beating = asyncio.create_task(plane.heart.run())
        try:
            async with http_client() as client:
                app.include_router(_metrics_routes(plane, spec, sock, client, replicas))
                await _serve(app, sock)
        finally:
            beating.cancel()
            await plane.ends.close()
            await plane.rollouts.close()
    finally:
        controller.close()
    log.info("control_stopped")


def _metrics_routes(
    plane: ControlPlane,
    spec: PenumbraSpec,
    sock: socket.socket,
    client: httpx.AsyncClient,
    replicas: Path | None,
) -> APIRouter:
    host, port = spec.control.host, sock.getsockname()[1]
    own = announced(host, port, spec.metrics.announce)
    discovery = Discovery(own, plane.roll, lambda: plane.controller.state.models, replicas)
    own_url = f"http://{joined(local_host(host), port)}{METRICS_PATH}"
    return metrics_router(discovery, Aggregate(fetcher(client, own_url)))


def require_fitting_flags(
    stored: Mapping[str, Flag], payload: ConfigPayload, config_file: str
) -> None:
    """Check the stored flags against a configuration.

    Raises:
        StoredFlagInvalid: Names every problem, and the command that solves it.
    """
    for name, model in payload.models.items():
        flag = stored.get(name)
        problems = list(flag_problems(model, flag)) if flag else []
        if problems:
            raise StoredFlagInvalid(
                f"the stored flag of {name} does not fit {config_file} any more:\n"
                + "".join(f"  {problem}\n" for problem in problems)
                + f"Put back what it refers to, or give {name} the flag in the file:\n"
                f"  python -m penumbra.deployments --config {config_file} --reset-flag {name}"
                ' --reason "WHY"\n'
                "and start again."
            )


async def _serve(app: FastAPI, sock: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = UvicornServer(config)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[sock])
