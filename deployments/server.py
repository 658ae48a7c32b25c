"""Runs the control process: opens the store, applies the configuration, serves until a signal."""

import asyncio
import functools
import logging
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.access_routes import access_router
from penumbra.deployments.api.alert_routes import alerts_router
from penumbra.deployments.api.app import build_api
from penumbra.deployments.api.configuration_routes import configuration_router
from penumbra.deployments.api.connection_limits import Connections
from penumbra.deployments.api.issuer import token_issuer
from penumbra.deployments.api.leader_gate import leaders_only
from penumbra.deployments.api.link_door import LinkDoor
from penumbra.deployments.api.link_route import link_router
from penumbra.deployments.api.metrics_routes import metrics_router
from penumbra.deployments.api.rollout_routes import rollouts_router
from penumbra.deployments.api.serving import serve, tls_of
from penumbra.deployments.config.hosted_here import ALONE, Beside, HostedHere, host
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.control.access_service import AccessService
from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.control.configuration_at_start import FileAtStart, configure_at_start
from penumbra.deployments.control.configuration_service import ConfigurationService
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.engine_director import EngineDirector
from penumbra.deployments.control.fence_times import FenceTimes
from penumbra.deployments.control.last_seen import FILE_NAME, LastSeen
from penumbra.deployments.control.leadership import Leadership
from penumbra.deployments.control.reread_file import reread_file
from penumbra.deployments.control.retention import Lifetimes
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.control.store_recovery import StoreRecovery
from penumbra.deployments.control.store_wait import open_when_there, wait_for_store
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.gateways.tick import ControlTick
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
from penumbra.router.addresses import announced_address, join_host_port, local_host
from penumbra.router.hangups import follow_hangups
from penumbra.router.link.messages import COMPARATOR_PATH
from penumbra.router.listening import bind
from penumbra.router.server_tls import ServerTls

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0
"""Pause between two works on the store's rows."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Parts of a control process, all connected."""

    controller: Controller
    gateways: Publisher
    comparators: Publisher
    gateway_inbox: LinkInbox
    comparator_inbox: LinkInbox
    tick: ControlTick
    leadership: Leadership
    recovery: StoreRecovery
    rollouts: RolloutService
    interval_cache: IntervalCache
    """Confidence bounds for the metrics."""
    registry: ProcessRegistry
    """Addresses of the metrics of gateways and comparators."""
    alert_handler: AlertHandler


def open_plane(
    spec: PenumbraSpec, tracer: Tracer | None = None, clocks: Clocks | None = None
) -> ControlPlane:
    """Make the parts on the configuration's store; it neither leads nor stands by yet.

    Args:
        spec: The configuration.
        tracer: Records decisions and rollbacks; None: tracing is off.
        clocks: Wall clock and monotonic clock; None: the machine's.

    Raises:
        StoreUnavailable: The store cannot be opened.
    """
    clocks = clocks or Clocks(now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    now = clocks.monotonic
    store = Store(spec.store_url)
    registry = ProcessRegistry(now)
    comparators = Publisher(
        store.identity,
        now,
        on_connect=functools.partial(registry.connect, Process.COMPARATOR),
        on_disconnect=registry.disconnect,
    )
    gateways = Publisher(
        store.identity,
        now,
        follower=comparators,
        on_connect=functools.partial(registry.connect, Process.GATEWAY),
        on_disconnect=registry.disconnect,
    )
    controller = Controller(store, gateways, clocks, spec.control.acknowledge_seconds)
    rollouts = RolloutService(
        controller,
        clocks,
        spec.control.acknowledge_seconds,
        process_start_id=uuid.uuid4().hex,
        lifetimes=Lifetimes(spec.control.feedback_days, spec.control.report_days),
        tracer=tracer,
    )
    times = FenceTimes(spec.control.lease_seconds)
    liveness = GuardLiveness(spec.control.lease_seconds, times.fence_seconds)
    last_seen = LastSeen(spec.state_dir / FILE_NAME, store.identity)
    recovery = StoreRecovery(controller, store.identity, last_seen, clocks.now, rollouts.lose_track)
    controller.standing.recover = recovery.recover
    controller.standing.cut_off_until = liveness.cut_off_until
    gateways.on_hello = comparators.on_hello = recovery.hear
    leadership = Leadership(controller, liveness, times, spec.control_address, now)
    inbox = LinkInbox(
        liveness,
        now,
        rollouts.take_report,
        take_feedback=rollouts.take_feedback,
        newest_table=lambda: gateways.snapshot,
    )
    plane = ControlPlane(
        controller,
        gateways,
        comparators,
        gateway_inbox=inbox,
        comparator_inbox=LinkInbox(liveness, now, rollouts.take_report, is_for_comparators=True),
        tick=ControlTick(
            liveness, rollouts.decide_pending, leadership.renew, now, inbox.answer_waiting
        ),
        leadership=leadership,
        recovery=recovery,
        rollouts=rollouts,
        interval_cache=IntervalCache(),
        registry=registry,
        alert_handler=AlertHandler(rollouts, controller, clocks.now),
    )
    _expose(plane, liveness, now)
    return plane


def _expose(plane: ControlPlane, liveness: GuardLiveness, now: Callable[[], float]) -> None:
    controller = plane.controller
    rollouts = RolloutSeries(plane.rollouts.evidence_book, plane.interval_cache)

    async def collect_rollouts() -> list[Series]:
        if controller.standing.leader_address is not None:
            return []  # the leader has the evidence
        return await rollouts.series(controller.state, controller.metrics.history_counters)

    async def collect_guard() -> list[Series]:
        hosts = [link.hello.host for link in plane.gateways.links]
        refused = plane.gateway_inbox.refused.count + plane.comparator_inbox.refused.count
        return [
            *guard_series(liveness, plane.gateways.snapshot, hosts, now()),
            (control.COMPARATORS, {(): len(plane.comparators.links)}),
            (control.REPORTS_REFUSED, {(): refused}),
            (control.SET_ASIDE, {(): len(controller.state.aside)}),
        ]

    controller.metrics.expose("rollouts", collect_rollouts)
    controller.metrics.expose("guard", collect_guard)


async def run_control(
    spec: PenumbraSpec,
    payload: ConfigPayload,
    access: Access,
    file: FileAtStart,
    beside: Beside = ALONE,
    tracer: Tracer | None = None,
) -> None:
    """Serve the control process until SIGTERM or SIGINT; wait for a database that is away.

    Args:
        spec: The configuration.
        payload: Its models, with the address of every variant.
        access: The tokens and their roles.
        file: The configuration's file, and whether it takes the place of what is in force.
        beside: The files by which it and `penumbra up` tell each other of engines.
        tracer: Records decisions and rollbacks; None: tracing is off.

    Raises:
        StoreUnavailable: The store cannot be opened, and waiting would not help.
        StoredFlagInvalid: A stored flag does not fit the configuration; tells what to do.
        OSError: The port cannot be bound, or the certificate cannot be used.
    """
    tls = tls_of(spec.control.tls)
    plane = await open_when_there(spec.store_url, lambda: open_plane(spec, tracer))
    plane.controller.checkpoint_key = access.key("checkpoints")
    controller, leadership = plane.controller, plane.leadership
    door = LinkDoor(lambda: controller.standing.leader_address)
    hosted, payload = host(spec, payload, beside)
    direct(plane, functools.partial(configure_at_start, controller, payload, hosted, file), door)
    try:
        sock = bind(spec.control.host, spec.control.port, "control.host, control.port")
        async with (
            http_client() as client,
            token_issuer(spec.control.oidc, access.now) as access.issuer,
        ):
            # Made before the lease is taken: it takes time in which nothing renews it.
            app = _build_app(plane, access, door, _configuration(plane, spec, hosted))
            app.include_router(_metrics_routes(plane, spec, sock, client, beside.replicas))
            is_leading = await wait_for_store(leadership.stand)
            works = (
                leadership.run(plane.tick.run_once),
                keep_house(plane),
                _director(plane, hosted).run(),
                follow_hangups(functools.partial(reread_file, controller, hosted, file)),
            )
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await wait_for_store(controller.follow)
                log.info(
                    "control_started",
                    extra={
                        "address": f"{spec.control.host}:{sock.getsockname()[1]}",
                        "epoch": controller.state.epoch,
                        "is_leading": is_leading,
                    },
                )
                await serve(app, sock, _connections(access, tls), tls)
            finally:
                for task in tasks:
                    task.cancel()
                await plane.interval_cache.close()
                await plane.rollouts.close()
    finally:
        await leadership.resign()
        controller.close()
    log.info("control_stopped")


def _connections(access: Access, tls: ServerTls | None) -> Connections:
    needs_certificate = tls is not None and tls.has_clients
    return Connections(access.knows, refused=access.refused, needs_certificate=needs_certificate)


async def keep_house(plane: ControlPlane) -> None:
    """Keep the store small, and its checkpoints new, while this process leads."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        if not plane.leadership.is_leading:
            continue
        try:
            await plane.rollouts.keep_house()
        except DeploymentsError:
            pass  # the tick tells of a store that is away, and of another leader
        except Exception:
            log.exception("housekeeping_failed")


def direct(plane: ControlPlane, configure: Callable[[], Awaitable[None]], door: LinkDoor) -> None:
    """Say what a term of leadership begins and ends with.

    Args:
        plane: The parts.
        configure: Puts a configuration into force at the beginning of a term.
        door: Shut when a term ends.
    """

    async def begin() -> None:
        await plane.recovery.begin()
        await configure()
        await plane.rollouts.start()

    async def end() -> None:
        plane.rollouts.lose_track()
        await door.shut()

    plane.leadership.begin, plane.leadership.end = begin, end


def _build_app(
    plane: ControlPlane, access: Access, door: LinkDoor, configuration: ConfigurationService
) -> FastAPI:
    controller = plane.controller
    access.identities = lambda: controller.state.identities
    app = build_api(controller, plane.gateways, access)
    app.include_router(link_router(plane.gateways, plane.gateway_inbox, access, door=door))
    app.include_router(
        link_router(plane.comparators, plane.comparator_inbox, access, COMPARATOR_PATH, door)
    )
    # Evidence is the leader's alone.
    only = [leaders_only(controller)]
    rollouts = rollouts_router(plane.rollouts, controller, access, lambda: datetime.now(UTC))
    app.include_router(rollouts, dependencies=only)
    app.include_router(configuration_router(configuration, controller, access))
    app.include_router(access_router(AccessService(controller, access.now), access, access.now))
    app.include_router(alerts_router(plane.alert_handler, access), dependencies=only)
    return app


def _director(plane: ControlPlane, hosted: HostedHere) -> EngineDirector:
    return EngineDirector(plane.controller, plane.rollouts, plane.gateways, hosted, time.monotonic)


def _configuration(
    plane: ControlPlane, spec: PenumbraSpec, hosted: HostedHere
) -> ConfigurationService:
    return ConfigurationService(
        plane.controller, plane.rollouts, plane.gateways, spec, hosted, lambda: datetime.now(UTC)
    )


def _metrics_routes(
    plane: ControlPlane,
    spec: PenumbraSpec,
    sock: socket.socket,
    client: httpx.AsyncClient,
    replicas: Path | None,
) -> APIRouter:
    host, port = spec.control.host, sock.getsockname()[1]
    own = announced_address(host, port, spec.metrics.announce)
    is_tls = spec.control.tls is not None
    discovery = Discovery(
        own,
        plane.registry,
        lambda: plane.controller.state.models,
        replicas,
        is_own_tls=is_tls,
    )
    own_url = f"http://{join_host_port(local_host(host), port)}{METRICS_PATH}"
    # Over TLS it need not ask itself: the certificate may be for another name than it would use.
    page = functools.partial(_own_page, plane) if is_tls else own_url
    return metrics_router(discovery, Aggregate(fetcher(client, page)))


async def _own_page(plane: ControlPlane) -> str:
    page, _ = await plane.controller.metrics.scrape(None)
    return page.decode()
