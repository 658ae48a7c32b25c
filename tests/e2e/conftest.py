"""One installation for all end-to-end tests: real Ray and vLLM, the builds of the demo model."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gateway_process import free_port
from tests.support.installation import Installation, still_running

READY_SECONDS = 480.0
STOP_SECONDS = 60.0
VARIANTS = ("full", "int8", "int4")
TWIN = "twin"
"""The baseline's weights in an engine of its own: a candidate that is no worse."""
HOSTED = {name: name for name in (*VARIANTS, "int2")} | {TWIN: "full"}
"""Variant of the installation -> folder of its weights."""
COMMENTING = "int4"
"""The variant whose engine sends a comment for every second without a token."""
HERE = Path(__file__).parent
DEMO = Path(__file__).parents[2] / "deployments" / "examples" / "demo.yaml"
SHADOW = {"limits": {"in_flight": 8}, "budget": {"engine_seconds_per_minute": 480}}

ENGINE_ARGS: dict[str, Any] = {
    "max_model_len": 1024,
    "enforce_eager": True,
    "gpu_memory_utilization": 0.05,
    "kv_cache_memory_bytes": 128 * 1024 * 1024,
}
KEEP_ALIVE = {"sse_keep_alive_interval": 1}
"""vLLM's `--sse-keep-alive-interval`, in seconds; less is not to be had."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is `e2e`, and the first test waits for the engines."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


def engine(folder: Path, index: int = 0, **more: Any) -> dict[str, Any]:
    """The configuration of one hosted variant; engines take turns on the cores.

    Args:
        folder: The weights.
        index: Number of the variant.
        more: Further arguments of the engine.
    """
    cores = os.cpu_count() or 1
    return {
        "engine": {
            "source": str(folder),
            "dtype": "bfloat16",
            "cpus": 0.2,
            "threads": str(index % cores),
            "engine_args": ENGINE_ARGS | more,
        }
    }


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's builds; PENUMBRA_E2E_VARIANTS names a folder that has them already."""
    given = os.environ.get("PENUMBRA_E2E_VARIANTS")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("variants")
    # In a process of its own: importing torch warns, and warnings are errors here.
    subprocess.run(
        [sys.executable, "-m", "penumbra.serve.demo.prepare", "--out", str(folder)], check=True
    )
    return folder


@pytest.fixture(scope="session")
def stack(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with two gateways; at the end nothing of it may be left."""
    models = {
        "demo": {
            "baseline": "full",
            "variants": {
                name: engine(variants / folder, index, **(KEEP_ALIVE if name == COMMENTING else {}))
                for index, (name, folder) in enumerate(HOSTED.items())
            },
            "slices": yaml.safe_load(DEMO.read_text())["models"]["demo"]["slices"],
        }
    }
    settings = {"shadow": SHADOW | {"internal_port": free_port()}}
    folder = tmp_path_factory.mktemp("stack")
    with Installation(models, folder, processes=2, settings=settings) as installation:
        installation.start()
        installation.wait_until_ready(READY_SECONDS)
        yield installation
        processes = installation.processes()
        installation.send(signal.SIGTERM)
        assert installation.wait(STOP_SECONDS) == 0, installation.output.read_text()
        assert still_running(processes, seconds=20) == []
