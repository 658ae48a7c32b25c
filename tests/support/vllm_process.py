"""One vLLM server of its own, with or without a planted fault; no Ray, one core."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx

from tests.support.gateway_process import free_port

START_SECONDS = 240.0
STOP_SECONDS = 30.0
FAULT = "PENUMBRA_TEST_FAULT"
"""Environment variable that names the planted fault: `decode:0.05`, `score:0.1`."""
_ENTRY_POINTS = "[vllm.general_plugins]\npenumbra_fault = tests.support.vllm_fault:plant\n"
_ARGUMENTS = (
    "--served-model-name", "demo", "--host", "127.0.0.1", "--dtype", "bfloat16",
    "--max-model-len", "512", "--enforce-eager", "--gpu-memory-utilization", "0.05",
    "--kv-cache-memory-bytes", str(64 * 1024 * 1024), "--no-enable-prefix-caching",
)  # fmt: skip


class VllmProcess:
    """A vLLM server; a context manager that ends with the process and its children gone.

    Args:
        weights: Folder of the weights.
        folder: For its log and its plugin.
        core: The core that its threads are bound to.
        fault: The planted fault; empty for none.
        arguments: More arguments of the server.
    """

    def __init__(
        self,
        weights: Path,
        folder: Path,
        core: int = 0,
        fault: str = "",
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"vllm-{self.port}.log"
        self._command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights),
            "--port", str(self.port), *_ARGUMENTS, *arguments,
        ]  # fmt: skip
        plugins = folder / "plugins"
        info = plugins / "penumbra_fault-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: penumbra-fault\nVersion: 0\n")
        (info / "entry_points.txt").write_text(_ENTRY_POINTS)
        root = Path(__file__).parents[2]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(plugins), str(root)]),
            "VLLM_PLUGINS": "penumbra_fault",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(core),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            FAULT: fault,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_until_ready(self) -> None:
        """Wait until it answers its health check."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()[-4000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise AssertionError(self._log.read_text()[-4000:])
