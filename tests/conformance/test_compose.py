"""deployments/compose mounts existing files, and its parts find each other. Docker is not run."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from penumbra.deployments.config.spec import ControlSpec, GatewaySpec, RaySpec, ShadowSpec
from tests.support.panel_queries import FOLDER as DASHBOARDS

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deployments" / "compose"
CONTENT: dict[str, Any] = yaml.safe_load((COMPOSE / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = CONTENT["services"]
PROMETHEUS = ROOT / "monitoring" / "prometheus" / "prometheus.yaml"
ALERTMANAGER = ROOT / "monitoring" / "alertmanager" / "alertmanager.yaml"
each_service = pytest.mark.parametrize("name", SERVICES)


def _mounts(name: str) -> list[tuple[str, PurePosixPath, str]]:
    """Lists (source, path in the container, mode). `${VAR:?why}` stays in the source."""
    found = []
    for text in SERVICES[name]["volumes"]:
        parts = re.fullmatch(r"(\$\{[^}]*\}|[^:]+):([^:]+)(?::(ro|rw))?", text)
        assert parts, text
        found.append((parts[1], PurePosixPath(parts[2]), parts[3] or "rw"))
    return found


def _in_container(name: str, path: PurePosixPath) -> Path:
    """Finds the file of this repository that is at `path` in the container."""
    for source, target, _ in _mounts(name):
        if source.startswith(".") and path.is_relative_to(target):
            return (COMPOSE / source / path.relative_to(target)).resolve()
    raise AssertionError(f"{path} is not mounted into {name}")


def _options(name: str) -> dict[str, str]:
    options = dict(option.removeprefix("--").split("=", 1) for option in SERVICES[name]["command"])
    assert len(options) == len(SERVICES[name]["command"])
    return options


def _addresses() -> dict[str, str]:
    grafana = SERVICES["grafana"]["environment"]
    return {
        "prometheus": _options("prometheus")["web.listen-address"],
        "alertmanager": _options("alertmanager")["web.listen-address"],
        "grafana": f"{grafana['GF_SERVER_HTTP_ADDR']}:{grafana['GF_SERVER_HTTP_PORT']}",
    }


def _provisioned(kind: str) -> dict[str, Any]:
    path = COMPOSE / "grafana" / kind / "penumbra.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    assert content["apiVersion"] == 1
    return content


def test_only_keys_of_the_compose_specification_are_used() -> None:
    assert set(CONTENT) <= {"name", "services", "volumes", "networks", "configs", "secrets"}
    known = {"image", "network_mode", "restart", "command", "volumes", "environment"}
    for service in SERVICES.values():
        assert set(service) <= known
        # Ports cannot be published from the host's network.
        assert service["network_mode"] == "host"
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())


@each_service
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@each_service
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    for source, _, mode in _mounts(name):
        if source.startswith("."):
            assert (COMPOSE / source).exists(), source
            assert mode == "ro", source
        elif not source.startswith("${"):
            assert source in CONTENT["volumes"], source


@each_service
def test_nothing_is_mounted_over_something_else(name: str) -> None:
    targets = Counter(target for _, target, _ in _mounts(name))
    assert max(targets.values()) == 1
    folders = [target for source, target, _ in _mounts(name) if source.startswith(".")]
    for folder in folders:
        # A read-only folder has no place for another mount.
        assert not any(folder in other.parents for other in targets if other != folder)


def test_ports_do_not_clash_with_each_other_or_with_penumbra() -> None:
    addresses = _addresses()
    assert all(address.startswith("127.0.0.1:") for address in addresses.values())
    taken = [int(address.rpartition(":")[2]) for address in addresses.values()]
    control, gateway, shadow, ray = ControlSpec(), GatewaySpec(), ShadowSpec(), RaySpec()
    taken += [control.port, gateway.port, gateway.internal_port, shadow.internal_port, ray.port]
    assert [port for port, count in Counter(taken).items() if count > 1] == []


def test_secrets_are_asked_for_and_not_written_down() -> None:
    password = SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert re.fullmatch(r"\$\{GRAFANA_PASSWORD:\?.+\}", password)
    assert (
        sum(source.startswith("${ALERTS_TOKEN_FILE:?") for source, _, _ in _mounts("alertmanager"))
        == 1
    )


def test_prometheus_finds_its_configuration_its_rules_and_penumbra() -> None:
    path = PurePosixPath(_options("prometheus")["config.file"])
    assert _in_container("prometheus", path) == PROMETHEUS
    content = yaml.safe_load(PROMETHEUS.read_text())
    for pattern in content["rule_files"]:
        folder = PurePosixPath(*_normal((path.parent / pattern).parent.parts))
        rules = _in_container("prometheus", folder)
        assert sorted(rules.glob(PurePosixPath(pattern).name))
    urls = [
        discovery["url"]
        for job in content["scrape_configs"]
        for discovery in job.get("http_sd_configs", ())
    ]
    assert urls == [f"http://127.0.0.1:{ControlSpec().port}/metrics/targets"]
    (group,) = content["alerting"]["alertmanagers"][0]["static_configs"]
    assert group["targets"] == [_addresses()["alertmanager"]]


def test_alertmanager_finds_its_configuration_and_its_token() -> None:
    path = PurePosixPath(_options("alertmanager")["config.file"])
    assert _in_container("alertmanager", path) == ALERTMANAGER
    content = yaml.safe_load(ALERTMANAGER.read_text())
    files = re.findall(r"credentials_file: (\S+)", ALERTMANAGER.read_text())
    targets = {target for _, target, _ in _mounts("alertmanager")}
    assert files
    assert {path.parent / file for file in files} <= targets
    urls = [
        hook["url"]
        for receiver in content["receivers"]
        for hook in receiver.get("webhook_configs", ())
    ]
    assert f"http://127.0.0.1:{ControlSpec().port}/admin/v1/alerts" in urls


def test_grafanas_data_source_is_this_prometheus() -> None:
    (source,) = _provisioned("datasources")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == f"http://{_addresses()['prometheus']}"
    scrape = yaml.safe_load(PROMETHEUS.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


def test_grafana_reads_the_committed_dashboards() -> None:
    (provider,) = _provisioned("dashboards")["providers"]
    path = PurePosixPath(provider["options"]["path"])
    assert provider["type"] == "file"
    assert _in_container("grafana", path) == DASHBOARDS
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert _in_container("grafana", PurePosixPath(home)).exists()
    for kind in ("datasources", "dashboards"):
        folder = PurePosixPath("/etc/grafana/provisioning") / kind
        assert _in_container("grafana", folder) == COMPOSE / "grafana" / kind


def _normal(parts: tuple[str, ...]) -> list[str]:
    """Resolves `..`."""
    resolved: list[str] = []
    for part in parts:
        if part == "..":
            resolved.pop()
        else:
            resolved.append(part)
    return resolved
