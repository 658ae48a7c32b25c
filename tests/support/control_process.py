"""The real control process, started as `penumbra up` starts it."""

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.gateway_process import ROOT, eventually, free_port

START_SECONDS = 60.0
ADMIN, OPERATOR, VIEWER, GATEWAY, ALERT = (f"{role}-token-of-the-tests" for role in "aovgw")
TOKENS = {
    "PENUMBRA_ADMIN_TOKEN": ADMIN,
    "PENUMBRA_OPERATOR_TOKEN": OPERATOR,
    "PENUMBRA_VIEWER_TOKEN": VIEWER,
    "PENUMBRA_GATEWAY_TOKEN": GATEWAY,
    "PENUMBRA_ALERT_TOKEN": ALERT,
}


def external(**variants: str) -> dict[str, Any]:
    """A model of variants that run elsewhere; the baseline is `full`."""
    urls = variants or {"full": "http://127.0.0.1:1", "int8": "http://127.0.0.1:2"}
    return {"baseline": "full", "variants": {name: {"url": url} for name, url in urls.items()}}


class ControlProcess:
    """One `python -m penumbra.deployments` on a store in `folder`.

    Args:
        folder: Holds its configuration, its store and its log.
        models: As in the configuration.
        settings: More settings of the section `control`.
        environment: More environment variables.
        tls: It is asked by https, with these settings.
    """

    def __init__(
        self,
        folder: Path,
        models: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.environment = environment or {}
        self._settings = settings or {}
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._verify = tls or True
        self.config = folder / "penumbra.yaml"
        self.store_file = folder / ".penumbra" / "penumbra.db"
        self.configure(models or {"demo": external()})
        self.replicas = folder / "replicas.json"
        self._log = folder / "control.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(
            base_url=f"{self.url}/admin/v1", timeout=120.0, verify=self._verify
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def configure(self, models: dict[str, Any], **more: Any) -> None:
        """Write the configuration file."""
        config = {"models": models, "control": {"port": self.port, **self._settings}, **more}
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self, *, stands_by: bool = False, adopts: bool = False) -> None:
        """Start it and wait until it leads, or answers where another one leads.

        Args:
            stands_by: Whether it may stand by.
            adopts: Whether its file takes the place of what is in force.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "penumbra.deployments"),
                    *("--config", str(self.config), "--replicas", str(self.replicas)),
                    *(("--adopt",) if adopts else ()),
                ],
                cwd=ROOT,
                env={**os.environ, **TOKENS, **self.environment},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

        def is_ready() -> bool:
            assert self.process.poll() is None, f"it ended: {self.log_text()[-2000:]}"
            try:
                return self.role() == "ready" or (stands_by and self.role() == "standby")
            except httpx.TransportError:
                return False

        try:
            eventually(is_ready, timeout=START_SECONDS, what="the control process to be ready")
        except AssertionError:
            self._process.kill()  # the test has no handle to it yet
            raise

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point until it exits."""
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "penumbra.deployments",
                "--config",
                str(self.config),
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, **TOKENS, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def role(self) -> str:
        """`ready`, `standby` or `behind the store`."""
        return str(httpx.get(f"{self.url}/ready", verify=self._verify).json()["status"])

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the control process was not started"
        return self._process

    def kill(self) -> None:
        """Kill it, as if its machine had failed."""
        self.process.kill()
        self.process.wait(5.0)

    def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30.0)

    def log_text(self) -> str:
        return self._log.read_text()

    def get(self, path: str, token: str = VIEWER) -> Any:
        answer = self.client.get(path, headers={"authorization": f"Bearer {token}"})
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict[str, Any], token: str = ADMIN) -> httpx.Response:
        return self.client.post(
            path, json={"reason": "test"} | body, headers={"authorization": f"Bearer {token}"}
        )

    def propose(self, models: dict[str, Any], **more: Any) -> httpx.Response:
        """Propose a configuration."""
        return self.client.put(
            "/configuration",
            json={"models": models, "reason": "test"} | more,
            headers={"authorization": f"Bearer {ADMIN}"},
        )

    def split(self, share: float, name: str = "demo") -> dict[str, Any]:
        """Give int8 a share; returns the answer."""
        answer = self.post(f"/flags/{name}/split", {"split": {"int8": share}})
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body
