"""Serves the control process's HTTP API and links on a socket, until a signal."""

import asyncio
import signal
import socket

import uvicorn
from fastapi import FastAPI

from penumbra.router.descriptors import raise_descriptor_limit
from penumbra.router.uvicorn_server import UvicornServer

_PING_SECONDS = 5.0
_GRACE_SECONDS = 5


async def serve(app: FastAPI, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and end the requests under way."""
    raise_descriptor_limit()
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
