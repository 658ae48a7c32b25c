"""Ctrl-C while the demo tells its story."""

import asyncio
import os
import signal
from typing import Any

import pytest

from penumbra.serve.demo import run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_story_in_good_order(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    ended: list[str] = []

    async def client(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what a client does to close its connection
            ended.append(name)

    async def tell(_: Any) -> str:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(client(name))
            # As the signal comes while some task runs, not while the loop waits.
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        return ""

    before = [signal.getsignal(caught) for caught in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(run, "tell", tell)
    operator: Any = None
    try:
        run._catch_signals()
        with pytest.raises(KeyboardInterrupt):
            run._tell_interruptibly(operator)
        # The next one is caught like the first: while everything is being stopped.
        assert signal.getsignal(number) is run._interrupt
    finally:
        for caught, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(caught, handler)
    assert sorted(ended) == ["a", "b"]
    assert capfd.readouterr().err == ""
