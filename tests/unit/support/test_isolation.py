"""The guard of all unit tests does stop them."""

import asyncio
import contextlib
import socket
import sys
from types import SimpleNamespace

import pytest

from tests.support.isolation import IsolationBroken, isolated


def test_isolation_refuses_a_network_socket() -> None:
    with pytest.raises(IsolationBroken, match="open a socket"), isolated():
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def test_isolation_refuses_a_connection_of_the_event_loop() -> None:
    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(IsolationBroken), isolated():
        asyncio.run(connect())


def test_isolation_refuses_a_unix_connection() -> None:
    with (
        pytest.raises(IsolationBroken, match=r"socket\.connect"),
        isolated(),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
    ):
        sock.connect("/nowhere")


def test_isolation_fails_a_test_whose_code_swallowed_the_error() -> None:
    with (
        pytest.raises(IsolationBroken, match="open a socket"),
        isolated(),
        contextlib.suppress(BaseException),
    ):
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)


def test_isolation_refuses_ray_init(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(init=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(IsolationBroken, match=r"ray\.init"), isolated():
        fake.init()


def test_isolation_gives_ray_init_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(init=lambda: "started")
    monkeypatch.setitem(sys.modules, "ray", fake)
    with isolated():
        pass
    assert fake.init() == "started"


def test_isolation_lets_the_event_loop_run() -> None:
    with isolated() as tried:
        asyncio.run(asyncio.sleep(0))
    assert tried == []
