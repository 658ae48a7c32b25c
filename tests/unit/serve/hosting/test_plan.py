"""The plan: the Ray Serve application of a variant."""

from typing import Any

import pytest

from penumbra.deployments.config.hosted_engines import HostedEngine
from penumbra.deployments.config.spec import Autoscaling, EngineSpec, Placement
from penumbra.serve.hosting.plan import FleetPlan, HostedVariant, app_name, host_variant


def hosted(variant: str = "int8", log: str | None = None, **engine: Any) -> HostedVariant:
    found = EngineSpec(**{"source": "/models/x", **engine})
    return host_variant(
        HostedEngine(model="demo", variant=variant, is_baseline=False, engine=found), log=log
    )


def environment(variant: HostedVariant) -> dict[str, str]:
    env: dict[str, str] = variant.deployment["ray_actor_options"]["runtime_env"]["env_vars"]
    return env


def test_every_variant_serves_the_public_model_name() -> None:
    ids = {hosted(name).llm_config["model_loading_config"]["model_id"] for name in ("full", "int8")}
    assert ids == {"demo"}


def test_variants_have_routes_of_their_own() -> None:
    assert hosted("full").route_prefix == "/demo-full"
    assert hosted("int8").route_prefix == "/demo-int8"


@pytest.mark.parametrize(
    ("model", "variant"), [("org/Model", "int8"), ("a.b", "c"), ("x_y", "z"), ("m", "v.1")]
)
def test_app_name_is_safe_in_a_path(model: str, variant: str) -> None:
    name = app_name(model, variant)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_app_names_stay_distinct_when_characters_are_replaced() -> None:
    names = [app_name(*pair) for pair in (("a/b", "c"), ("a.b", "c"), ("A.b", "c"), ("a-b", "c"))]
    assert len(set(names)) == len(names)


def test_cpu_replica_reserves_its_cpus_and_no_gpu() -> None:
    deployment = hosted(cpus=0.5).deployment
    assert deployment["placement_group_bundles"] == [{"CPU": 0.5}]
    assert deployment["ray_actor_options"]["num_cpus"] == 0.5


def test_tensor_parallel_gpu_replica_gets_a_bundle_for_each_worker() -> None:
    variant = hosted(cpus=2.0, gpus=4.0, engine_args={"tensor_parallel_size": 4})
    assert variant.deployment["placement_group_bundles"] == [
        {"CPU": 2.0, "GPU": 1.0},
        {"GPU": 1.0},
        {"GPU": 1.0},
        {"GPU": 1.0},
    ]
    assert variant.llm_config["accelerator_config"] == {"kind": "gpu"}
    assert not variant.in_core


def test_placement_replaces_the_bundles() -> None:
    placement = Placement(bundles=({"CPU": 1.0}, {"CPU": 3.0}), strategy="SPREAD")
    deployment = hosted(placement=placement).deployment
    assert deployment["placement_group_bundles"] == [{"CPU": 1.0}, {"CPU": 3.0}]
    assert deployment["placement_group_strategy"] == "SPREAD"


def test_one_cpu_worker_runs_in_the_engine_core() -> None:
    assert hosted().in_core
    assert not hosted(engine_args={"tensor_parallel_size": 2}).in_core


def test_replicas_are_fixed_or_scaled() -> None:
    assert hosted().deployment["num_replicas"] == 1
    assert hosted(replicas=3).replicas == 3
    scaled = hosted(autoscaling=Autoscaling(min=2, max=5))
    assert scaled.replicas == 2
    assert scaled.deployment["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 5,
        "initial_replicas": 2,
    }
    assert "num_replicas" not in scaled.deployment


def test_replica_streams_directly_and_reports_no_usage() -> None:
    env = environment(hosted())
    assert env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert env["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "1"
    assert env["RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"] == "1"
    assert env["VLLM_NO_USAGE_STATS"] == "1"


def test_threads_are_bound_on_cpu_only() -> None:
    assert environment(hosted(threads="0-3"))["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(hosted())
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(hosted(threads="0", gpus=1.0))


def test_eager_cpu_engine_compiles_nothing() -> None:
    assert environment(hosted(engine_args={"enforce_eager": True}))["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in environment(hosted())
    assert "TORCHDYNAMO_DISABLE" not in environment(
        hosted(engine_args={"enforce_eager": True}, gpus=1.0)
    )


def test_folder_is_never_looked_up_on_a_hub() -> None:
    assert environment(hosted())["HF_HUB_OFFLINE"] == "1"
    hub = hosted(source="hf://org/model")
    assert "HF_HUB_OFFLINE" not in environment(hub)
    assert hub.llm_config["model_loading_config"]["model_source"] == "org/model"
    assert not hub.is_local


def test_operators_environment_wins() -> None:
    assert environment(hosted(env={"VLLM_NO_USAGE_STATS": "0"}))["VLLM_NO_USAGE_STATS"] == "0"


def test_output_goes_to_the_variants_log() -> None:
    assert environment(hosted(log="/logs/x.log"))["PENUMBRA_ENGINE_LOG"] == "/logs/x.log"
    assert "PENUMBRA_ENGINE_LOG" not in environment(hosted())


def test_plan_survives_the_file_between_the_processes() -> None:
    plan = FleetPlan(variants=(hosted(engine_args={"x": [1, None]}),), port=8000, folder="/x")
    assert FleetPlan.model_validate_json(plan.model_dump_json()) == plan
