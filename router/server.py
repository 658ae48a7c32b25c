"""Composition of one gateway process: two HTTP servers, the control link and background tasks."""

import asyncio
import functools
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette

from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.addresses import announced_address, is_loopback
from penumbra.router.descriptors import raise_descriptor_limit
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.gateway.client_protocol import GatewayProtocol
from penumbra.router.gateway.cold_routes import build_internal_app, build_public_app
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.gauges import declare_gauges
from penumbra.router.hangups import follow_hangups
from penumbra.router.kept_keys import KeptKeys, with_kept_keys
from penumbra.router.link.client import ControlLink
from penumbra.router.link.duties import Duties
from penumbra.router.listening import BACKLOG, bind
from penumbra.router.secret_values import SecretUnreadable
from penumbra.router.server_tls import ServerTls
from penumbra.router.settings import GRACE_SECONDS, GatewaySettings
from penumbra.router.uvicorn_server import UvicornServer

log = logging.getLogger(__name__)

_LAST_REPORT_SECONDS = 1.0
_GC_THRESHOLD = 50_000


async def run_gateway(
    settings: GatewaySettings,
    read_token: Callable[[], str | None],
    tracer: Tracer | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight.

    Args:
        settings: Settings of the process.
        read_token: Reads the bearer token for the control process; again after each SIGHUP.
        tracer: Tracer of sampled requests; None traces none.

    Raises:
        SecretUnreadable: The token cannot be read.
        OSError: A port cannot be bound, or the certificate cannot be used; the message names it and
            the setting.
    """
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    kept = KeptKeys(settings.keys_file) if settings.keys_file is not None else None
    gateway = Gateway(with_kept_keys(settings, kept), time.monotonic, tracer=tracer)
    tls = ServerTls(settings.tls) if settings.tls is not None else None
    servers, metrics = _build_servers(gateway, tls, read_token)
    link = _build_link(gateway, read_token(), metrics, kept)
    declare_gauges(gateway, link)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _tune_collector()
    log.info("gateway_started", extra={"addresses": [_address(sock) for _, sock in servers]})
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(server.serve(sockets=[sock])) for server, sock in servers]
        background = [group.create_task(work) for work in _background(gateway, tls, link)]
        background.append(group.create_task(follow_hangups(lambda: _reread(tls, link, read_token))))
        await stop.wait()
        log.info("gateway_draining")
        gateway.drain()
        for (server, _), task in zip(servers, serving, strict=True):
            # The internal port closes last: until then it reports that this process is draining.
            server.should_exit = True
            await task
        if link is not None:
            await link.tell_the_rest(_LAST_REPORT_SECONDS)
        for task in background:
            task.cancel()
    gateway.close()
    log.info("gateway_stopped")


def _background(
    gateway: Gateway, tls: ServerTls | None, link: ControlLink | None
) -> Iterator[Coroutine[Any, Any, None]]:
    yield gateway.sweep()
    yield gateway.recent_answers.run()
    yield gateway.mirroring.comparator_client.run()
    if tls is not None:
        yield tls.watch()
    if link is not None:
        yield link.run()


async def _reread(
    tls: ServerTls | None, link: ControlLink | None, read_token: Callable[[], str | None]
) -> None:
    """Read again what this process has in files: its certificate, and its token."""
    if tls is not None:
        await tls.look()
    is_other = False
    if link is not None:
        try:
            token = await asyncio.get_running_loop().run_in_executor(None, read_token)
            is_other = link.take_token(token or "")
        except SecretUnreadable as error:
            log.warning("token_unreadable", extra={"error": str(error)})
            return
    log.info("hangup_taken", extra={"has_other_token": is_other})


def _build_servers(
    gateway: Gateway, tls: ServerTls | None, read_token: Callable[[], str | None]
) -> tuple[list[tuple[UvicornServer, socket.socket]], str]:
    """The servers with their sockets, and the address of this process's metrics (may be empty)."""
    settings = gateway.settings
    public_socket = bind(settings.host, settings.port, "gateway.port", is_shared=True)
    public = _build_server(build_public_app(gateway), functools.partial(GatewayProtocol, gateway))
    if tls is not None:
        public.config.load()
        public.config.ssl = tls.context
    servers = [(public, public_socket)]
    if settings.internal_port is None:
        return servers, ""
    host = settings.internal_host
    sock = bind(host, settings.internal_port, "metrics.host, gateway.internal_port")
    servers.append((_build_server(build_internal_app(gateway, read_token), "httptools"), sock))
    return servers, announced_address(host, sock.getsockname()[1], settings.announce)


def _build_link(
    gateway: Gateway, control_token: str | None, metrics: str, kept: KeptKeys | None
) -> ControlLink | None:
    settings = gateway.settings
    if settings.control_url is None:
        return None

    def take(table: Snapshot) -> None:
        gateway.apply(table)
        if kept is not None:
            kept.keep(table.keys)

    duties = Duties(
        gateway.observations,
        gateway.lease,
        gateway.feedback,
        answers=gateway.recent_answers.counts,
        stopped=gateway.mirroring.flow.stopped,
        kills=lambda: gateway.emergency.reasons,
        machine=settings.machine,
        metrics=metrics,
        processes=settings.processes,
        needs_keys=not is_loopback(settings.host),
    )
    return ControlLink(
        (settings.control_url, *settings.other_control_urls),
        control_token or "",
        settings.gateway_id,
        take,
        duties=duties,
        tls=settings.control_tls,
    )


def _build_server(app: Starlette, protocol: object) -> UvicornServer:
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return UvicornServer(config)


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"


def _tune_collector() -> None:
    # Objects made at start live for ever, and the byte path makes few cycles: collect rarely, and
    # never look at the objects of the start.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
