"""Runs Debian's Prometheus and Alertmanager on the configuration files that ship."""

import math
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.support.gateway_process import ROOT, eventually, free_port

MONITORING = ROOT / "monitoring"
START_SECONDS = 60.0
MISSING = "found no {}: scripts/system-packages.sh installs it (Debian: {})"


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a query's answer."""

    labels: dict[str, str]
    points: list[tuple[float, float]]
    """(Unix seconds, value); an instant query has one."""

    @property
    def value(self) -> float:
        """The newest value."""
        return self.points[-1][1]

    @property
    def is_finite(self) -> bool:
        """Whether every value is a number."""
        return all(math.isfinite(value) for _, value in self.points)


class _Server:
    """A program that listens on a loopback port."""

    def __init__(self, program: str, package: str, arguments: list[str], folder: Path) -> None:
        found = shutil.which(program)
        assert found is not None, MISSING.format(program, package)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)
        self.log = folder / f"{program}.log"
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        self._command = [found, listen, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._is_ready, timeout=START_SECONDS, what=f"{self._command[0]} to be ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
        self.http.close()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


class Alertmanager(_Server):
    """Alertmanager on `monitoring/alertmanager/alertmanager.yaml`, with the test's webhook.

    Args:
        folder: For its files.
        webhook: URL that rollback alerts go to.
        token: The webhook's bearer token.
    """

    def __init__(self, folder: Path, webhook: str, token: str) -> None:
        config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yaml").read_text())
        (folder / "alert.token").write_text(token)
        for receiver in config["receivers"]:
            for hook in receiver.get("webhook_configs", ()):
                hook["url"] = webhook
                hook["http_config"]["authorization"]["credentials_file"] = str(
                    folder / "alert.token"
                )
        file = folder / "alertmanager.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        arguments = [
            f"--config.file={file}",
            f"--storage.path={folder / 'alertmanager'}",
            "--cluster.listen-address=",
        ]
        super().__init__("prometheus-alertmanager", "prometheus-alertmanager", arguments, folder)


class Prometheus(_Server):
    """Prometheus on `monitoring/prometheus/prometheus.yaml` and the rules that ship, every second.

    Args:
        folder: For its files.
        targets: URL of the service discovery.
        alertmanager: `HOST:PORT` of Alertmanager; None: alerts go nowhere.
    """

    def __init__(self, folder: Path, targets: str, alertmanager: str | None = None) -> None:
        config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yaml").read_text())
        config["global"] |= {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        }
        config["rule_files"] = [str(MONITORING / "rules" / "*.yaml")]
        alerting = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
        config["alerting"] = {"alertmanagers": alerting}
        for job in config["scrape_configs"]:
            for discovery in job["http_sd_configs"]:
                discovery |= {"url": targets, "refresh_interval": "1s"}
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        arguments = [
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            "--enable-feature=exemplar-storage",
        ]
        super().__init__("prometheus", "prometheus", arguments, folder)

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        """An instant query."""
        asked: dict[str, Any] = {"query": expression}
        if at is not None:
            asked["time"] = at
        return [
            Series(row["metric"], [(float(row["value"][0]), float(row["value"][1]))])
            for row in self._vector(self._get("/api/v1/query", asked))
        ]

    def query_range(
        self, expression: str, start: float, end: float, step: float = 1.0
    ) -> list[Series]:
        """A range query; Unix seconds."""
        asked = {"query": expression, "start": start, "end": end, "step": step}
        return [
            Series(row["metric"], [(float(at), float(value)) for at, value in row["values"]])
            for row in self._get("/api/v1/query_range", asked)["result"]
        ]

    def value(self, expression: str, at: float | None = None) -> float:
        """The one value of an instant query."""
        found = self.query(expression, at)
        assert len(found) == 1, f"{expression}: found {len(found)} series, wanted one"
        return found[0].value

    def wait_for(self, expression: str, seconds: float = 60.0) -> list[Series]:
        """Wait until an expression has a value that is not 0."""
        eventually(
            lambda: any(series.value for series in self.query(expression)),
            timeout=seconds,
            what=f"{expression} to hold",
        )
        return self.query(expression)

    def get(self, path: str, **asked: Any) -> Any:
        """The `data` of another call of its API."""
        return self._get(path, asked)

    def _get(self, path: str, asked: dict[str, Any]) -> Any:
        answer = self.http.get(path, params=asked)
        body = answer.json()
        assert body["status"] == "success", f"{asked}: {body}"
        return body["data"]

    @staticmethod
    def _vector(data: Any) -> list[Any]:
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[Any] = data["result"]
        return result


def wait_for_targets(prometheus: Prometheus, count: int, seconds: float = 60.0) -> None:
    """Wait until so many targets are up; the first samples come about six seconds after a start."""
    deadline = time.monotonic() + seconds
    while True:
        up = [target for target in prometheus.query("up") if target.value == 1]
        if len(up) >= count:
            return
        assert time.monotonic() < deadline, f"found {up} up, wanted {count}"
        time.sleep(0.2)
