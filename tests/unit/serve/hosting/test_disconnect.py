"""A cancelled request reaches vLLM as the disconnect that it waits for."""

import asyncio
from typing import Any

import pytest

from penumbra.serve.hosting import disconnect
from penumbra.serve.hosting.disconnect import DisconnectMiddleware

HTTP = {"type": "http"}


class Engine:
    """Handles a request the way vLLM does: work in a second task, ended by `http.disconnect`."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.is_aborted = False

    async def __call__(self, _scope: Any, receive: Any, _send: Any) -> None:
        work = asyncio.create_task(asyncio.Event().wait())
        gone = asyncio.create_task(receive())
        self.started.set()
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        self.is_aborted = gone.done() and gone.result()["type"] == "http.disconnect"


async def send(_message: Any) -> None:
    """A `send` that drops every message."""


async def test_cancelled_request_is_aborted_by_the_disconnect() -> None:
    engine, left = Engine(), asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    request = asyncio.create_task(DisconnectMiddleware(engine)(HTTP, receive, send))  # type: ignore[arg-type]
    await engine.started.wait()
    left.set()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert engine.is_aborted


async def test_request_cancelled_without_a_disconnect_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disconnect, "ABORT_SECONDS", 0.01)
    ended = asyncio.Event()
    started = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    request = asyncio.create_task(DisconnectMiddleware(app)(HTTP, send, send))  # type: ignore[arg-type]
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.wait_for(ended.wait(), 1)


async def test_answer_and_error_pass_through() -> None:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, answer: Any) -> None:
        await answer({"type": "http.response.start", "status": 200})
        raise ValueError("after the head")

    async def keep(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="after the head"):
        await DisconnectMiddleware(app)(HTTP, send, keep)  # type: ignore[arg-type]
    assert sent == [{"type": "http.response.start", "status": 200}]
