"""Runs one comparator process: the socket, the link, the comparisons, and a clean end."""

import asyncio
import datetime as dt
import logging
import secrets
import signal
import socket
import time

import uvicorn

from penumbra.monitoring.telemetry import comparator as of
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.addresses import announced_address
from penumbra.router.descriptors import raise_descriptor_limit
from penumbra.router.flags.routing_table import Variant
from penumbra.router.link.client import ControlLink
from penumbra.router.link.duties import Duties
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.listening import bind
from penumbra.router.shadow.asgi import build_internal_app
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparator import Comparator
from penumbra.router.shadow.engine_checks import EngineChecks
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.frame_server import FrameServer, nice
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import Connect, WatchList
from penumbra.router.upstream.http import HttpUpstream, PoolLimits
from penumbra.router.upstream.port import Upstream
from penumbra.router.uvicorn_server import UvicornServer

log = logging.getLogger(__name__)

_LAST_REPORT_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_CONNECTIONS = 64


async def run_comparator(
    settings: ShadowSettings, control_token: str | None, tracer: Tracer | None = None
) -> None:
    """Compare until SIGTERM or SIGINT, then send the observations that wait.

    Args:
        settings: Settings of the process.
        control_token: Bearer token for the control process.
        tracer: Records comparisons of mirrored requests that are traced; None: tracing is off.

    Raises:
        OSError: The socket or the port cannot be bound; the message names it and the setting.
    """
    stop = _stopped_by_signals()
    raise_descriptor_limit()
    nice(settings.niceness)
    clocks = Clocks(time.monotonic, lambda: dt.datetime.now(dt.UTC).timestamp())
    name = f"{settings.comparator_id}@{settings.machine}"
    outbox = ObservationOutbox(name, secrets.token_hex(8))
    watched = WatchList(_connector(settings), settings.bets)
    facts = EngineFacts(settings, clocks)
    comparator = Comparator(settings, watched, facts, outbox, clocks, tracer)
    engine_checks = EngineChecks(settings, watched, facts, outbox, clocks, comparator.metrics)
    internal = _internal_socket(settings)
    duties = Duties(
        outbox=outbox,
        is_comparing=comparator.is_comparing,
        stopped=comparator.flow.stopped,
        machine=settings.machine,
        metrics=_announced(settings, internal),
    )
    link = ControlLink(
        (settings.control_url, *settings.other_control_urls),
        control_token or "",
        settings.comparator_id,
        watched.apply,
        duties=duties,
        tls=settings.control_tls,
    )
    _expose_link(comparator, outbox, link)
    frames = FrameServer(settings.socket_path, comparator, settings.limits.connections)
    async with asyncio.TaskGroup() as group:
        linked = group.create_task(link.run())
        work = [group.create_task(part.run()) for part in (frames, comparator, engine_checks)]
        if internal is not None:
            work.append(group.create_task(_serve(comparator, internal)))
        log.info("comparator_started", extra={"port": settings.internal_port})
        await stop.wait()
        log.info("comparator_stopping")
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await _wait_until_sent(outbox)
        linked.cancel()
    watched.close()
    log.info("comparator_stopped")


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _wait_until_sent(outbox: ObservationOutbox) -> None:
    # Observations that do not arrive in time are lost, which is no worse than a crash.
    for _ in range(round(_LAST_REPORT_SECONDS / _LOOK_SECONDS)):
        if outbox.is_empty:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _expose_link(comparator: Comparator, outbox: ObservationOutbox, link: ControlLink) -> None:
    cells = comparator.metrics.cells
    cells.read(of.OBSERVATIONS_DROPPED, lambda: outbox.dropped)
    cells.read(of.CONTROL_CONNECTED, lambda: link.is_connected)


def _connector(settings: ShadowSettings) -> Connect:
    def connect(model: str, variant: Variant, api_key: str | None) -> Upstream:
        return HttpUpstream(
            model,
            variant.url,
            api_key=api_key,
            ca_file=variant.ca_file,
            limits=PoolLimits(settings.deadlines.connect_seconds, _CONNECTIONS),
        )

    return connect


def _internal_socket(settings: ShadowSettings) -> socket.socket | None:
    port, host = settings.internal_port, settings.internal_host
    return None if port is None else bind(host, port, "metrics.host, shadow.internal_port")


def _announced(settings: ShadowSettings, sock: socket.socket | None) -> str:
    if sock is None:
        return ""
    return announced_address(settings.internal_host, sock.getsockname()[1], settings.announce)


async def _serve(comparator: Comparator, sock: socket.socket) -> None:
    config = uvicorn.Config(
        build_internal_app(comparator),
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    await UvicornServer(config).serve(sockets=[sock])
