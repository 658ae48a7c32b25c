"""The comparator as it runs: its socket, its link, its engines over HTTP, its end."""

import asyncio
import contextlib
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penumbra.monitoring.observations import Arm
from penumbra.router.flags.routing_table import Watch
from penumbra.router.link.messages import COMPARATOR_PATH
from penumbra.router.mirror.frame import LENGTH_BYTES, frame
from tests.support.comparator_process import Control, Process, comparator, control, start, table
from tests.support.mirrored import answer_bytes, mirrored
from tests.support.script_server import script_server
from tests.support.shadow import HANGING, Build, watch


@dataclass
class Installation:
    """A comparator with two engines and a played control process."""

    control: Control
    control_url: str
    comparator: Process
    builds: dict[str, Build]


@contextlib.asynccontextmanager
async def installed(
    folder: Path, *watches: Watch, **settings: object
) -> AsyncIterator[Installation]:
    builds = {"full": Build(), "int8": Build(shift=-0.5)}
    async with contextlib.AsyncExitStack() as stack:
        urls = {
            name: await stack.enter_async_context(script_server(build))
            for name, build in builds.items()
        }
        played, url = await stack.enter_async_context(control(table(urls, *watches)))
        process = await stack.enter_async_context(comparator(folder, url, **settings))
        yield Installation(played, url, process, builds)


def now() -> float:
    return asyncio.get_running_loop().time()  # CLOCK_MONOTONIC, as gateways stamp


async def test_what_a_gateway_hands_over_becomes_pairs_that_are_acknowledged(
    tmp_path: Path,
) -> None:
    async with installed(tmp_path, watch(generate=1.0, aa=1.0)) as installation:
        requests = [mirrored(f"r{n}", answered_at=now()) for n in range(5)]
        writer = await installation.comparator.hand_over(*requests)
        await installation.control.until(lambda told: len(told.pairs) == 10)
        writer.close()
    played = installation.control
    assert played.paths == [COMPARATOR_PATH]
    candidates = [pair for pair in played.pairs if pair.arm is Arm.CANDIDATE]
    assert [pair.request_id for pair in candidates] == ["r0", "r1", "r2", "r3", "r4"]
    assert all(pair.displacement is not None and pair.displacement > 0 for pair in candidates)
    assert all(pair.harm == 0 for pair in candidates)
    assert all(pair.displacement == 0.0 for pair in played.pairs if pair.arm is Arm.BASELINE)
    assert all(pair.at > 1.6e9 and pair.engine_seconds > 0 for pair in candidates)


async def test_it_tells_fingerprints_and_a_self_test_by_itself(tmp_path: Path) -> None:
    async with installed(tmp_path, watch()) as installation:
        await installation.control.until(
            lambda told: (
                bool(told.of_runs("self_tests"))
                and {"full", "int8"} <= set(told.of_runs("fingerprints"))
            )
        )
    (test,) = installation.control.of_runs("self_tests")
    assert test.is_ok
    assert test.largest_gap == 0.0


async def test_a_malformed_frame_costs_its_sender_the_connection_and_no_other(
    tmp_path: Path,
) -> None:
    async with installed(tmp_path, watch()) as installation:
        process = installation.comparator
        good = await process.hand_over(mirrored("before", answered_at=now()))
        no_text = frame(mirrored("no text")).replace(b"no text", b"no\xfftext")
        short = (3).to_bytes(LENGTH_BYTES, "big") + b"abc"
        for garbage in (b"\xff\xff\xff\xff", short, no_text):
            reader, writer = await asyncio.open_unix_connection(process.socket_path)
            writer.write(garbage)
            assert await reader.read() == b""
            writer.close()
        again = await process.hand_over(mirrored("after", answered_at=now()))
        await installation.control.until(lambda told: len(told.pairs) == 2)
        assert "penumbra_shadow_malformed_frames_total 3.0" in await process.get("/metrics")
        good.close()
        again.close()
    assert "frame_malformed" in process.log


async def test_no_text_of_a_request_or_answer_is_logged_or_exported(tmp_path: Path) -> None:
    secret = "xyzzy"
    body = json.dumps({"messages": [{"role": "user", "content": secret}]}).encode()
    async with installed(tmp_path, watch(generate=1.0)) as installation:
        process = installation.comparator
        writer = await process.hand_over(
            mirrored("good", answered_at=now(), body=body, answer=answer_bytes(secret)),
            mirrored("bad", answered_at=now(), body=body, answer=secret.encode()),
            mirrored("worse", answered_at=now(), body=secret.encode()),
        )
        await installation.control.until(
            lambda told: bool(told.pairs) and len(told.of_runs("sheds")) >= 1
        )
        writer.close()
        assert secret not in await process.get("/metrics")
        assert secret not in await process.get("/health")
    assert secret not in process.log
    assert all(secret not in repr(report) for report in installation.control.reports)


async def test_the_socket_is_private(tmp_path: Path) -> None:
    async with installed(tmp_path, watch()) as installation:
        mode = installation.comparator.socket_path.stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_an_end_by_signal_tells_the_rest_and_takes_the_socket_away(tmp_path: Path) -> None:
    async with installed(tmp_path, watch()) as installation:
        process = installation.comparator
        installation.builds["int8"].score = HANGING
        writer = await process.hand_over(mirrored("r", answered_at=now()))
        async with asyncio.timeout(60):
            while not installation.builds["int8"].scores:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.01)
        process.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.process.wait() == 0
        writer.close()
    assert not process.socket_path.exists()
    assert "comparator_stopped" in process.log
    sheds = [(shed.reason, shed.count) for shed in installation.control.of_runs("sheds")]
    assert sheds == [("stopping", 1)]


async def test_a_killed_comparators_socket_is_taken_over(tmp_path: Path) -> None:
    async with installed(tmp_path, watch()) as installation:
        await installation.control.until(lambda told: bool(told.reports))
        installation.comparator.process.kill()
        await installation.comparator.process.wait()
        assert installation.comparator.socket_path.exists()
        async with comparator(tmp_path, installation.control_url) as second:
            writer = await second.hand_over(mirrored("r", answered_at=now()))
            await installation.control.until(lambda told: len(told.pairs) == 1)
            writer.close()
    assert len({report.process_start_id for report in installation.control.reports}) == 2


async def test_a_second_comparator_on_one_socket_is_refused_by_name(tmp_path: Path) -> None:
    async with installed(tmp_path, watch()) as installation:
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "shadow.sock").symlink_to(installation.comparator.socket_path)
        second = await start(tmp_path / "second", installation.control_url)
        async with asyncio.timeout(60):
            assert await second.process.wait() == 2
        assert "shadow.socket_path" in second.log
        writer = await installation.comparator.hand_over(mirrored("r", answered_at=now()))
        await installation.control.until(lambda told: len(told.pairs) == 1)
        writer.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "shadow.json"),
        ('{"control_url": "http://x", "socket_path": "s", "queue": 3}', "queue"),
    ],
)
async def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "shadow.json"
    file.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penumbra.router.shadow", "--settings", file),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()
    assert process.returncode == 2
    assert expected in complaint.decode()
