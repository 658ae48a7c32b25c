"""The real gateway as a process of its own, as `penumbra up` starts it: settings in, log out."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.raw_client import RawClient, RawResponse, request_bytes

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
PATIENCE_SECONDS = 30.0
"""How long a test waits for what it knows will come: long, for a busy machine is slow."""
# Below the ports that the kernel gives to outgoing connections, so none is taken in between.
_PORTS = range(20_000, 32_000)


class GatewayProcess:
    """One `python -m penumbra.router`.

    Args:
        settings: `penumbra.router.settings.GatewaySettings` as JSON; ports are chosen here.
        folder: For the settings file and the log.
        environment: More environment variables.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.internal_port = free_port(), free_port()
        self.settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "internal_port": self.internal_port,
            **settings,
        }
        self._file = folder / f"gateway-{self.port}.json"
        self._log = folder / f"gateway-{self.port}.log"
        self._stdout = folder / f"gateway-{self.port}.out"
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Life

    def start(self, *, wait: bool = True) -> None:
        self._file.write_text(json.dumps(self.settings))
        with self._log.open("wb") as log, self._stdout.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penumbra.router", "--settings", str(self._file)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"the gateway ended: {self.log_text()[-2000:]}"
            try:
                return self.get("/ready").status == 200
            except (OSError, AssertionError):
                return False

        eventually(is_ready, timeout=START_SECONDS, what="the gateway to be ready")

    def stop(self) -> int:
        """Ask it to end, and end it if it does not; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(20.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(20.0)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @contextmanager
    def growing_at_most(self, limit_bytes: int) -> Iterator[None]:
        """Assert that what happens inside never takes more memory than this on top."""
        folder = Path(f"/proc/{self.process.pid}")
        (folder / "clear_refs").write_text("5")  # resets the peak, see proc(5)
        before = _peak_bytes(folder)
        yield
        grown = _peak_bytes(folder) - before
        assert grown < limit_bytes, f"the gateway grew by {grown} bytes"

    # Requests

    def connect(self, *, timeout: float = PATIENCE_SECONDS, receive_buffer: int = 0) -> RawClient:
        return RawClient(self.port, timeout=timeout, receive_buffer=receive_buffer)

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> RawResponse:
        """One request on a connection of its own; `body` is JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.connect() as client:
            client.send_request(path, data, headers)
            return client.read_response()

    def get(
        self, path: str, headers: dict[str, str] | None = None, *, is_internal: bool = False
    ) -> RawResponse:
        port = self.internal_port if is_internal else self.port
        with RawClient(port) as client:
            client.send(request_bytes(path, b"", headers, method="GET"))
            return client.read_response()

    # What it tells

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name whose labels include these."""
        text = self.get("/metrics", is_internal=True).body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def log_text(self) -> str:
        return self._log.read_text()

    def stdout_text(self) -> str:
        return self._stdout.read_text()


def _peak_bytes(folder: Path) -> int:
    lines = (folder / "status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


@contextmanager
def counting(gateway: GatewayProcess, name: str, by: float = 1, **labels: str) -> Iterator[None]:
    """Assert that what happens inside raises a counter by exactly so much."""
    before = gateway.metric(name, **labels)
    yield
    wanted = before + by
    eventually(
        lambda: gateway.metric(name, **labels) == wanted,
        what=f"{name}{labels} to be {wanted}",
        found=lambda: gateway.metric(name, **labels),
    )


def eventually(
    condition: Callable[[], bool],
    *,
    timeout: float = PATIENCE_SECONDS,
    what: str = "it",
    found: Callable[[], object] = lambda: None,
) -> None:
    """Wait for what another process does and cannot tell."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}, found {found()}"
        time.sleep(0.005)


def free_port(in_a_row: int = 1) -> int:
    """The first of some loopback ports in a row that nothing listens on.

    No port is returned twice to a pytest process, and the workers of a parallel run choose from
    ranges of their own: a port stays free until the process that it is for has started.
    """
    ports = _worker_ports()
    for _ in range(10_000):
        first = random.SystemRandom().choice(ports[: len(ports) - in_a_row])
        chosen = set(range(first, first + in_a_row))
        if not chosen & _returned and not any(map(_is_listening, chosen)):
            _returned.update(chosen)
            return first
    raise AssertionError(f"found no {in_a_row} free ports of {ports}")


_returned: set[int] = set()


def _worker_ports() -> range:
    """The ports of this pytest-xdist worker: all of them where tests are not run in parallel."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(_PORTS) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return _PORTS[number * size : (number + 1) * size]


def _is_listening(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def key_settings(tenant: str, key: str, **more: Any) -> dict[str, Any]:
    """One entry of `GatewaySettings.keys` for an API key in clear."""
    return {"tenant": tenant, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}
