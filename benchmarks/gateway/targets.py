"""The targets, and how each is started in front of the same two upstreams.

Every peer gets its lightest setting that does the job: round robin or an even split over the two
upstreams, no access log; its own defaults hold for the rest. Penumbra runs with everything on.
"""

import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gateway.build import ROOT, MissingError, ensure_nginx, ensure_venv

KEY = "sk-penumbra-bench"
MODEL = "bench"
EARLIER = "penumbra before"

Kind = Literal["direct", "floor", "ours", "rust", "python"]


@dataclass(frozen=True)
class Site:
    """The folder and the upstreams of one target."""

    work: Path
    """A folder for its configuration and log."""
    upstreams: tuple[int, int]
    """Ports of the two fake upstreams."""

    def urls(self) -> list[str]:
        """Base URLs of the two upstreams."""
        return [f"http://127.0.0.1:{port}" for port in self.upstreams]


@dataclass(frozen=True)
class Launch:
    """The command that starts a target, and its port."""

    command: list[str]
    port: int | None = None
    port_in_log: re.Pattern[str] | None = None
    """The target chooses its own port and prints it."""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One thing to measure."""

    name: str
    kind: Kind
    prepare: Callable[[Site], Launch | None]
    """Installs it and writes its configuration; None needs no process. Raises MissingError."""
    model: str = MODEL
    path: str = "/v1/chat/completions"
    stream_patience: int = 1
    """How many times longer its streams are watched: one that begins within seconds only, under
    this load, would show nothing in the ordinary window."""


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(extra: dict[str, str], home: Path) -> dict[str, str]:
    """The environment of a target: no proxies, no keys, a home of its own."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **extra}


def _direct(_: Site) -> None:
    return None


_NGINX = """daemon off;
# One process, as many cores as it may use: one.
master_process off;
error_log stderr warn;
pid {work}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  keepalive_requests 1000000000;
  upstream engines {{
    server 127.0.0.1:{first};
    server 127.0.0.1:{second};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _nginx(site: Site) -> Launch:
    binary = ensure_nginx()
    port = free_port()
    first, second = site.upstreams
    config = site.work / "nginx.conf"
    config.write_text(_NGINX.format(work=site.work, first=first, second=second, port=port))
    return Launch([binary, "-p", str(site.work), "-c", str(config)], port)


_SLICES: list[dict[str, Any]] = [
    {"name": "json", "match": {"json_mode": True}},
    {"name": "tools", "match": {"tools": True}},
    {"name": "code", "match": {"code": True}},
    {"name": "greek", "match": {"scripts": ["greek"]}},
    {"name": "cyrillic", "match": {"scripts": ["cyrillic"]}},
    {"name": "long", "match": {"prompt_chars_min": 8000}},
]


Without = Literal["", "auth", "slices", "split", "metrics"]


def _penumbra(without: Without = "", checkout: Path = ROOT) -> Callable[[Site], Launch]:
    def prepare(site: Site) -> Launch:
        if not (checkout / "router" / "__main__.py").exists():
            raise MissingError(f"{checkout}/router/__main__.py does not exist")
        full, int8 = site.urls()
        model = {
            "baseline": "full",
            "variants": {"full": {"url": f"{full}/full"}, "int8": {"url": f"{int8}/int8"}},
            "slices": [] if without == "slices" else _SLICES,
            "flag": {"split": {} if without == "split" else {"int8": 50}},
        }
        key = {"tenant": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
        port = free_port()
        settings = {
            "port": port,
            "internal_port": free_port(),
            "keys": [] if without == "auth" else [key],
            "snapshot": {"epoch": 1, "models": {MODEL: model}},
        }
        config = site.work / "gateway.json"
        config.write_text(json.dumps(settings))
        is_packaged = (checkout / "src" / "penumbra").exists()
        module = "penumbra.router" if is_packaged else "router"
        if without == "metrics":
            module = "benchmarks.gateway.bare"
        command = [sys.executable, "-m", module, "--settings", str(config)]
        path = os.pathsep.join((str(checkout / "src"), str(checkout)))
        return Launch(command, port, env={"PYTHONPATH": path})

    return prepare


def _rust_router(name: str, *subcommand: str, log_level: str) -> Callable[[Site], Launch]:
    def prepare(site: Site) -> Launch:
        binary = ensure_venv(name) / "bin" / name
        port = free_port()
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        workers = ["--worker-urls", *site.urls(), "--policy", "round_robin"]
        options = [*listen, *metrics, *workers, "--log-level", log_level]
        return Launch([str(binary), *subcommand, *options], port)

    return prepare


_TENSORZERO = """[gateway]
observability.enabled = false

[functions.bench]
type = "chat"
"""
_TENSORZERO_VARIANT = """
[functions.bench.variants.{name}]
type = "chat_completion"
model = "{name}"
[models.{name}]
routing = ["engine"]
[models.{name}.providers.engine]
type = "openai"
model_name = "bench"
api_base = "{url}/v1/"
api_key_location = "none"
"""


def _tensorzero(site: Site) -> Launch:
    python = ensure_venv("tensorzero") / "bin" / "python"
    config = site.work / "tensorzero.toml"
    pairs = zip(("full", "int8"), site.urls(), strict=True)
    variants = [_TENSORZERO_VARIANT.format(name=name, url=url) for name, url in pairs]
    config.write_text(_TENSORZERO + "".join(variants))
    script = Path(__file__).with_name("tensorzero_gateway.py")
    env = {"RUST_LOG": "error"}
    port = re.compile(r"^http://127\.0\.0\.1:(\d+)", re.MULTILINE)
    return Launch([str(python), str(script), str(config)], port_in_log=port, env=env)


def _litellm(site: Site) -> Launch:
    binary = ensure_venv("litellm") / "bin" / "litellm"
    engines = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": "openai/bench", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in site.urls()
    ]
    settings = {
        "model_list": engines,
        "router_settings": {"routing_strategy": "simple-shuffle"},
        "general_settings": {"master_key": KEY},
    }
    config = site.work / "litellm.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    env = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network
    }
    return Launch([str(binary), "--config", str(config), *options], port, env=env)


TARGETS: tuple[Target, ...] = (
    Target("direct", "direct", _direct),
    Target("nginx", "floor", _nginx),
    Target("penumbra", "ours", _penumbra()),
    Target("vllm-router", "rust", _rust_router("vllm-router", log_level="warning")),
    Target("sglang-router", "rust", _rust_router("sglang-router", "launch", log_level="warn")),
    Target("smg", "rust", _rust_router("smg", "launch", log_level="warn")),
    Target(
        "tensorzero",
        "rust",
        _tensorzero,
        model="tensorzero::function_name::bench",
        path="/openai/v1/chat/completions",
    ),
    Target("litellm", "python", _litellm, stream_patience=4),
)

OVERHEADS: tuple[Target, ...] = (
    Target("penumbra without auth", "ours", _penumbra("auth")),
    Target("penumbra without slices", "ours", _penumbra("slices")),
    Target("penumbra without split", "ours", _penumbra("split")),
    Target("penumbra without metrics", "ours", _penumbra("metrics")),
)
"""Penumbra with single features off."""


def earlier(checkout: Path) -> Target:
    """Penumbra as another checkout of this repository has it, on this interpreter."""
    return Target(EARLIER, "ours", _penumbra(checkout=checkout.resolve()))
