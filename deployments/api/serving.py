"""Serves the control process's HTTP API and links on a socket, until a signal."""

import asyncio
import functools
import signal
import socket

import uvicorn
from fastapi import FastAPI

from penumbra.deployments.api.connection_limits import Connections
from penumbra.deployments.api.limited_protocol import LimitedProtocol
from penumbra.router.bounds import LINK_BYTES
from penumbra.router.descriptors import raise_descriptor_limit
from penumbra.router.uvicorn_server import UvicornServer

_PING_SECONDS = 5.0
_GRACE_SECONDS = 5


def build_server(app: FastAPI, connections: Connections) -> UvicornServer:
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
    return UvicornServer(config)


async def serve(app: FastAPI, sock: socket.socket, connections: Connections) -> None:
    """Serve until SIGTERM or SIGINT, and end the requests under way."""
    raise_descriptor_limit()
    server = build_server(app, connections)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[sock])
