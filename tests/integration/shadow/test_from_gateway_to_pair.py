"""A request through a real gateway process and a real comparator process, to its pair."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.behaviours import engine
from tests.support.comparator_process import Control, Process, comparator, control, table
from tests.support.engine_probe import probed
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import chat
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.shadow import watch

CHAT = "/v1/chat/completions"


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    found = {name: ScriptedUpstream(name, engine(Engine(name))) for name in ("full", "int8")}
    for upstream in found.values():
        upstream.start()
    yield found
    for upstream in found.values():
        upstream.stop()


@dataclass
class Chain:
    gateway: GatewayProcess
    comparator: Process
    control: Control


@contextlib.asynccontextmanager
async def chained(builds: dict[str, ScriptedUpstream], folder: Path) -> AsyncIterator[Chain]:
    snapshot = table({name: upstream.url for name, upstream in builds.items()}, watch(generate=1.0))
    async with (
        control(snapshot) as (played, url),
        comparator(folder, url) as process,
    ):
        settings = {
            "snapshot": snapshot.model_dump(mode="json"),
            "shadow_socket": str(process.socket_path),
        }
        gateway = GatewayProcess(settings, folder)
        try:
            await asyncio.to_thread(gateway.start)
            await asyncio.to_thread(
                eventually, lambda: "comparator_connected" in gateway.log_text()
            )
            yield Chain(gateway, process, played)
        finally:
            await asyncio.to_thread(gateway.stop)


@pytest.mark.parametrize("is_stream", [False, True], ids=["unary", "stream"])
async def test_what_a_client_asked_becomes_a_pair(
    builds: dict[str, ScriptedUpstream], tmp_path: Path, is_stream: bool
) -> None:
    probed(builds["full"])
    probed(builds["int8"], shift=-0.5)
    async with chained(builds, tmp_path) as chain:
        answer = await asyncio.to_thread(
            chain.gateway.post, CHAT, chat(stream=is_stream), {"x-request-id": "req-77"}
        )
        assert answer.status == 200
        await chain.control.until(lambda told: bool(told.pairs))
    (pair,) = chain.control.pairs
    assert (pair.request_id, pair.answered_by, pair.missing) == ("req-77", "full", None)
    assert pair.tokens > 5
    assert pair.displacement is not None
    assert pair.displacement > 0.0
    # The candidate answers what the baseline answered: no harm, whatever the scores say.
    assert pair.harm == 0


async def test_saturated_engines_are_spared_and_clients_see_nothing_of_it(
    builds: dict[str, ScriptedUpstream], tmp_path: Path
) -> None:
    probed(builds["full"])
    probed(builds["int8"], waiting=3)
    async with chained(builds, tmp_path) as chain:
        await asyncio.sleep(1.0)  # the first look at the gauges has no event that this could see
        for number in range(5):
            message = {"messages": [{"role": "user", "content": f"Question {number}"}]}
            answer = await asyncio.to_thread(chain.gateway.post, CHAT, chat(**message))
            assert answer.status == 200
        await chain.comparator.until_exported("penumbra_shadow_queue_items 5.0")
        scored = [r for r in builds["int8"].requests if r.target == "/v1/completions"]
        assert scored == []
        assert chain.control.pairs == []
