"""Routing tables as large as a link carries: over real links, with the kill switch on top."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.router.bounds import TABLE_BYTES
from tests.integration.control.test_control_link import Gateway, running
from tests.support.control_process import ADMIN, ControlProcess, external

PREFIX_CHARS = 100_000
ROOM_BYTES = 700
"""Room that is left for small changes."""
PATIENCE_SECONDS = 100.0
"""A change of so large a table may take longer than a change may, and is then refused, on a machine
that has other work; it is asked for again."""
pytestmark = pytest.mark.timeout(500)


def rules_of(size: int) -> list[dict[str, Any]]:
    """Rules of about so many bytes."""
    prefixes = ["x" * PREFIX_CHARS] * (size // PREFIX_CHARS) + ["x" * (size % PREFIX_CHARS)]
    match = {"prompt_prefix": [f"{number}{text}" for number, text in enumerate(prefixes)]}
    return [{"name": "long", "match": match, "variant": "int8"}]


def until_answered(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until the store is not too busy."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (answer := ask()).status_code == 503 and time.monotonic() < deadline:
        assert answer.json()["error"]["code"] in ("store_unavailable", "store_in_doubt")
    return answer


def put(control: ControlProcess, size: int) -> httpx.Response:
    def ask() -> httpx.Response:
        epoch = control.get("/flags/demo")["epoch"]
        return control.client.put(
            "/flags/demo",
            json={"flag": {"rules": rules_of(size)}, "reason": "test"},
            headers={"authorization": f"Bearer {ADMIN}", "if-match": str(epoch)},
        )

    return until_answered(ask)


def pin_until_refused(control: ControlProcess) -> dict[str, Any]:
    for number in range(100):
        subject = f"{number:03}".ljust(256, "u")
        pin = {"kind": "key", "subject": subject, "variant": "int8"}
        answer = until_answered(lambda pin=pin: control.post("/flags/demo/pin", pin))
        if answer.status_code != 200:
            assert answer.status_code == 422
            error: dict[str, Any] = answer.json()["error"]
            return error
    raise AssertionError("no pin was refused")


async def test_a_table_grows_to_the_bound_of_the_link_and_can_be_killed_there(
    control: ControlProcess,
) -> None:
    async with running(Gateway(control.url)) as gateway:
        await gateway.epoch(1)
        # The keys and commas of the prefixes take about 10 bytes each.
        size = TABLE_BYTES - ROOM_BYTES - 10 * (TABLE_BYTES // PREFIX_CHARS)
        answer = await asyncio.to_thread(put, control, size)
        assert answer.status_code == 200, answer.text[:500]
        error = await asyncio.to_thread(pin_until_refused, control)
        assert error["code"] == "change_unfoldable"
        assert f"wanted at most {TABLE_BYTES}" in error["message"]
        epoch = (await asyncio.to_thread(control.get, "/flags/demo"))["epoch"]
        assert len((await gateway.epoch(epoch)).models["demo"].flag.pins) >= 1
        killed = await asyncio.to_thread(
            until_answered, lambda: control.post("/flags/demo/kill", {})
        )
        assert killed.status_code == 200, killed.text
        assert (await gateway.epoch(epoch + 1)).models["demo"].flag.killed
    async with running(Gateway(control.url)) as late:
        assert (await late.epoch(epoch + 1)).models["demo"].flag.killed


def test_a_configuration_that_fits_through_no_link_is_not_started_with(tmp_path: Path) -> None:
    control = ControlProcess(tmp_path)
    half = {**external(), "flag": {"rules": rules_of(TABLE_BYTES // 2)}}
    control.configure({"demo": half, "other": half, "small": external()})
    ended = control.run()
    assert ended.returncode == 2
    assert f"wanted at most {TABLE_BYTES}" in ended.stderr
    assert "Largest: demo (" in ended.stderr
    assert "Traceback" not in ended.stderr
    control.configure({"small": external()})
    with control:  # nothing of it was committed
        assert control.get("/flags")["epoch"] == 1
