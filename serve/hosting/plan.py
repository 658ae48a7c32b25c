"""Plan for Ray Serve: one application per hosted variant.

The plan is data (JSON): the supervisor makes it from the configuration, the fleet process
(`python -m penumbra.serve.hosting PLAN`) carries it out. Reading order: FleetPlan, HostedVariant,
`host_variant`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.config.hosted_engines import HostedEngine, write_file
from penumbra.deployments.config.hosted_engines import app_name as app_name
from penumbra.deployments.config.spec import EngineSpec

HEALTH_CHECK_PERIOD_SECONDS = 2.0
"""Time within which a dead engine is noticed; `VariantReplica.check_health` then exits at once."""
HEALTH_CHECK_TIMEOUT_SECONDS = 30.0
"""A replica that shares its core with a loading one may be slow to answer: three misses kill it."""
DRAIN_SECONDS = 60.0
"""Time that a replaced replica has to finish its answers."""

_STRICT = ConfigDict(extra="forbid", frozen=True)


class HostedVariant(BaseModel):
    """One Ray Serve application."""

    model_config = _STRICT

    model: str
    variant: str
    app: str
    """Application name; also its route prefix without the slash, and its log file's name."""
    llm_config: dict[str, Any]
    """Keyword arguments of `ray.serve.llm.LLMConfig`."""
    deployment: dict[str, Any]
    """Options of `ray.serve.deployment`."""
    is_local: bool
    """The weights are in a folder on the node, not on a hub."""
    in_core: bool
    """The worker runs inside the engine core's process (see `penumbra.serve.hosting.engine`)."""
    startup_seconds: float
    """Longest time from start to ready."""
    build: str
    """Digest of what each replica is: replicas of the same one stay when their number changes."""
    definition: str
    """Digest of the engine's settings, by which those who asked for it know it."""

    @property
    def route_prefix(self) -> str:
        """The path in front of `/v1/...`."""
        return f"/{self.app}"

    @property
    def replicas(self) -> int:
        """The number that must run before the variant counts as ready."""
        autoscaling = self.deployment.get("autoscaling_config")
        wanted = autoscaling["min_replicas"] if autoscaling else self.deployment["num_replicas"]
        return int(wanted)

    @property
    def cpus(self) -> float:
        """Logical CPUs of all replicas that start at once."""
        bundles = self.deployment["placement_group_bundles"]
        return self.replicas * sum(float(bundle.get("CPU", 0)) for bundle in bundles)


class FleetPlan(BaseModel):
    """The plan of the fleet process."""

    model_config = _STRICT

    variants: tuple[HostedVariant, ...]
    address: str | None = None
    """A Ray cluster to join; None starts one on this machine, and stops it at the end."""
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    """Where HAProxy listens."""
    folder: str
    """For Ray's sessions and HAProxy's files; short, since Unix socket paths are limited."""


class PlanFile:
    """The file of a plan: its writer replaces it whenever other variants are to run.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = b""

    def read(self) -> FleetPlan:
        """The plan as it is now.

        Raises:
            OSError: It cannot be read.
        """
        self._content = self._path.read_bytes()
        return FleetPlan.model_validate_json(self._content)

    def read_changed(self) -> FleetPlan | None:
        """The plan, if it is another one than when it was read last."""
        try:
            if self._path.read_bytes() == self._content:
                return None
            return self.read()
        except OSError:
            return None  # what runs goes on, and the file is looked at again

    def write(self, plan: FleetPlan) -> None:
        """Replace the plan in one step.

        Raises:
            OSError: It cannot be written.
        """
        write_file(self._path, plan)


def host_variant(hosted: HostedEngine, *, log: str | None) -> HostedVariant:
    """The application of one variant.

    Every variant serves the same public model name, so that request bodies pass untouched.

    Args:
        hosted: The variant, with its engine's configuration.
        log: File for the replicas' and engines' output; None leaves it to Ray.
    """
    model, variant, engine = hosted.model, hosted.variant, hosted.engine
    app = app_name(model, variant)
    is_cpu = engine.gpus == 0
    workers = _workers(engine.engine_args)
    bundles = _bundles(engine, workers)
    environment = _environment(engine, log)
    llm_config = {
        "model_loading_config": {"model_id": model, "model_source": engine.model_source},
        "accelerator_config": {"kind": "cpu" if is_cpu else "gpu"},
        "placement_group_config": {"bundles": bundles},
        "runtime_env": {"env_vars": environment},
        # vLLM's own /metrics instead of copies through Ray's metrics agent.
        "log_engine_metrics": False,
        "engine_kwargs": {"dtype": engine.dtype, **engine.engine_args},
    }
    deployment = {
        "name": app,
        # The engine queues by itself, and the gateway limits tenants.
        "max_ongoing_requests": 1_000_000_000,
        "health_check_period_s": HEALTH_CHECK_PERIOD_SECONDS,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_SECONDS,
        "graceful_shutdown_timeout_s": DRAIN_SECONDS,
        # An engine that cannot load will not load the second time either: say so soon.
        "max_constructor_retry_count": 1,
        "placement_group_bundles": bundles,
        "placement_group_strategy": engine.placement.strategy if engine.placement else "PACK",
        "ray_actor_options": {
            "num_cpus": bundles[0].get("CPU", 0.0),
            "runtime_env": {"env_vars": environment},
        },
        **_scale(engine),
    }
    return HostedVariant(
        model=model,
        variant=variant,
        app=app,
        llm_config=llm_config,
        deployment=deployment,
        is_local=not engine.is_from_hub,
        in_core=is_cpu and workers == 1,
        startup_seconds=engine.startup_seconds,
        build=_build_of(llm_config),
        definition=hosted.definition,
    )


def _build_of(llm_config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(llm_config, sort_keys=True).encode()).hexdigest()[:16]


def _workers(engine_args: Mapping[str, Any]) -> int:
    tensor = int(engine_args.get("tensor_parallel_size", 1))
    return tensor * int(engine_args.get("pipeline_parallel_size", 1))


def _bundles(engine: EngineSpec, workers: int) -> list[dict[str, float]]:
    if engine.placement is not None:
        return [dict(bundle) for bundle in engine.placement.bundles]
    if engine.gpus == 0:
        return [{"CPU": engine.cpus}]
    # The replica's own process sits in the first bundle, beside the first worker.
    first = {"CPU": engine.cpus, "GPU": engine.gpus / workers}
    return [first, *({"GPU": engine.gpus / workers} for _ in range(workers - 1))]


def _scale(engine: EngineSpec) -> dict[str, Any]:
    least, most = engine.bounds
    if engine.autoscaling is None:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "initial_replicas": least,
        }
    }


def _environment(engine: EngineSpec, log: str | None) -> dict[str, str]:
    """Environment of a replica and, inherited, of its engine's processes."""
    environment = {
        # Direct streaming: Ray reads these when a replica is imported.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        # Nothing about what is served leaves the machine.
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if not engine.is_from_hub:
        environment["HF_HUB_OFFLINE"] = "1"
    if log is not None:
        environment["PENUMBRA_ENGINE_LOG"] = log
    if engine.gpus == 0:
        if engine.threads is not None:
            # Unbound engines fight over the cores: the same generation took 50 times as long.
            environment["VLLM_CPU_OMP_THREADS_BIND"] = engine.threads
        if engine.engine_args.get("enforce_eager"):
            # vLLM compiles two sampling functions even then: 17 s in the first scoring request,
            # a C++ compiler on the machine, and nothing gained on CPU.
            environment["TORCHDYNAMO_DISABLE"] = "1"
    return {**environment, **engine.env}
