"""Serves the control process's HTTP API and links on a socket, until a signal."""

import asyncio
import functools
import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from penumbra.deployments.api.connection_limits import Connections
from penumbra.deployments.api.limited_protocol import LimitedProtocol
from penumbra.deployments.config.spec import ControlTls
from penumbra.router.bounds import LINK_BYTES
from penumbra.router.descriptors import raise_descriptor_limit
from penumbra.router.server_tls import ClientAuthority, ServerTls
from penumbra.router.uvicorn_server import UvicornServer

HANDSHAKE_SECONDS = 10.0
"""Time for a TLS handshake, from the connection."""
_PING_SECONDS = 5.0
_GRACE_SECONDS = 5


class ControlServer(UvicornServer):
    """A server whose TLS handshakes have a deadline."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets; called by uvicorn, which sets no deadline."""
        await self.lifespan.startup()
        protocol: Any = self.config.http_protocol_class
        make = functools.partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        is_tls = self.config.ssl is not None
        self.servers = [
            await loop.create_server(
                make,
                sock=sock,
                ssl=self.config.ssl,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if is_tls else None,
                backlog=self.config.backlog,
            )
            for sock in sockets or ()
        ]
        self.started = True


def tls_of(settings: ControlTls | None) -> ServerTls | None:
    """Read the certificates of the port; None if it speaks plain HTTP.

    Raises:
        CertificateUnusable: They are no use.
    """
    if settings is None:
        return None
    clients = None
    if settings.client_ca is not None:
        is_needed = settings.require_client_certificate == "all"
        clients = ClientAuthority(settings.client_ca, is_needed)
    return ServerTls(settings, clients, "control.tls")


def build_server(
    app: FastAPI, connections: Connections, tls: ServerTls | None = None
) -> UvicornServer:
    """Build the server of the HTTP API and the links; its connections are bounded."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=functools.partial(LimitedProtocol, connections),  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=LINK_BYTES,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=connections.limits.backlog,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    return ControlServer(config)


async def serve(
    app: FastAPI, sock: socket.socket, connections: Connections, tls: ServerTls | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, and end the requests under way."""
    raise_descriptor_limit()
    server = build_server(app, connections, tls)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    watching = asyncio.create_task(tls.watch()) if tls is not None else None
    try:
        await server.serve(sockets=[sock])
    finally:
        if watching is not None:
            watching.cancel()
