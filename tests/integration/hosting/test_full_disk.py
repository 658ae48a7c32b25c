"""`penumbra up` on a disk that is full: it serves on, and recovers when there is room."""

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.behaviours import respond
from tests.support.gateway_process import eventually
from tests.support.installation import Installation
from tests.support.scripted_upstream import ScriptedUpstream

if os.geteuid() != 0:
    pytest.skip("only root may mount a disk of its own", allow_module_level=True)

READY_SECONDS = 60.0
BODY = {"model": "demo", "prompt": "hi"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(
        "full", respond(200, b'{"object": "text_completion", "choices": []}')
    )
    upstream.start()
    yield upstream
    upstream.stop()


def fill(folder: Path) -> None:
    """Take all room that there is."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(folder).f_bavail == 0


def test_a_full_disk_ends_nothing_and_all_is_well_when_there_is_room(
    upstream: ScriptedUpstream, disk: Path
) -> None:
    model = {
        "baseline": "full",
        "variants": {"full": {"url": upstream.url}, "int8": {"url": f"{upstream.url}/int8"}},
    }
    with Installation({"demo": model}, disk, processes=2) as installation:
        installation.start()
        before = installation.wait_for(lambda state: state.is_ready, READY_SECONDS)
        url, admin = installation.gateway_url, f"{before.admin_url}/admin/v1/flags/demo/split"
        token = {"authorization": f"Bearer {installation.admin_token}"}
        fill(disk)

        def is_served() -> bool:
            return httpx.post(f"{url}/v1/completions", json=BODY, timeout=30).is_success

        def is_back(name: str) -> bool:
            try:
                return httpx.get(f"{before.process(name).url}/health").status_code == 200
            except httpx.TransportError:
                return False

        def change(share: int) -> httpx.Response:
            body = {"split": {"int8": share}, "reason": "test"}
            return httpx.post(admin, json=body, headers=token, timeout=30)

        for name in ("gateway-0", "comparator"):
            psutil.Process(before.process(name).pid).kill()
        (installation.state_dir / "logs" / "comparator.log").unlink()  # it has to be made anew
        assert installation.process is not None
        fill(disk)  # also the room that a log leaves
        for name in ("gateway-0", "comparator"):
            eventually(functools.partial(is_back, name), timeout=READY_SECONDS, what=name)
        assert all(is_served() for _ in range(20))
        assert change(30).status_code in {200, 503}
        assert installation.process.poll() is None
        assert httpx.get(f"{before.admin_url}/health").status_code == 200

        (disk / "filler").unlink()
        after = installation.wait_for(
            lambda state: (
                state.process("gateway-0").restarts == 1
                and state.process("comparator").restarts == 1
            ),
            READY_SECONDS,
        )
        assert after.process("gateway-0").pid != before.process("gateway-0").pid
        eventually(
            lambda: change(40).status_code == 200, timeout=READY_SECONDS, what="a change to be made"
        )
        assert is_served()
        installation.process.terminate()
        assert installation.wait(60) == 0
