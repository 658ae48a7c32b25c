"""The route by which a replica tells its build, without vLLM."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from penumbra.router.upstream.build_probe import BUILD_PATH
from penumbra.serve.hosting.build_route import add_build_route, weight_facts
from penumbra.serve.quantization.errors import WeightsMissing


def config(**changes: Any) -> Any:
    """vLLM's resolved settings, as far as they are read."""
    model = SimpleNamespace(
        model="/models/demo", revision=None, hf_config=SimpleNamespace(), dtype="torch.bfloat16",
        quantization=None, max_model_len=1024, logprobs_mode="raw_logprobs", enforce_eager=True,
    )  # fmt: skip
    parts = {
        "model_config": model,
        "cache_config": SimpleNamespace(cache_dtype="auto", enable_prefix_caching=True),
        "scheduler_config": SimpleNamespace(
            enable_chunked_prefill=True, max_num_batched_tokens=2048
        ),
        "attention_config": SimpleNamespace(backend=None),
        "compilation_config": SimpleNamespace(mode=0, cudagraph_mode="NONE"),
        "speculative_config": None,
        "parallel_config": SimpleNamespace(
            tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1
        ),
        "device_config": SimpleNamespace(device_type="cpu"),
    }
    return SimpleNamespace(**parts | changes)


async def told(config: Any, **engine_args: Any) -> dict[str, str]:
    app = Starlette()
    app.state.engine_client = SimpleNamespace(vllm_config=config)
    weights: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    weights.set_result({"weights": "w"})
    add_build_route(app, weights, engine_args)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as http:
        facts: dict[str, str] = (await http.get(BUILD_PATH)).json()
    return facts


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one | other if one.get(name) != other.get(name)}


async def test_all_facts_are_texts_and_hold_the_weights() -> None:
    facts = await told(config())
    assert {type(text) for text in facts.values()} == {str}
    assert (facts["weights"], facts["dtype"], facts["compilation"]) == ("w", "bfloat16", "eager")
    assert facts["device"].startswith("cpu ")


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        (
            {"cache_config": SimpleNamespace(cache_dtype="fp8", enable_prefix_caching=True)},
            "kv_cache_dtype",
        ),
        (
            {"cache_config": SimpleNamespace(cache_dtype="auto", enable_prefix_caching=False)},
            "prefix_caching",
        ),
        (
            {
                "speculative_config": SimpleNamespace(
                    method="ngram", num_speculative_tokens=4, model=None
                )
            },
            "speculative",
        ),
        ({"attention_config": SimpleNamespace(backend="FLASHINFER")}, "attention"),
    ],
)
async def test_each_setting_is_a_fact_of_its_own(changes: dict[str, Any], fact: str) -> None:
    assert differing(await told(config()), await told(config(**changes))) == {fact}


async def test_an_argument_that_nothing_else_tells_is_a_fact() -> None:
    other = await told(config(), kv_offload=True)
    assert differing(await told(config()), other) == {"engine_args"}


async def test_the_text_of_a_chat_template_counts_and_not_its_path(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    before = await told(config(), chat_template=str(template))
    template.write_text("{{ messages[0] }}")
    after = await told(config(), chat_template=str(template))
    assert differing(before, after) == {"chat_template"}


def test_other_weights_at_the_same_path_are_another_build(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = weight_facts(str(tmp_path), is_local=True)
    weights.write_bytes(b"two")
    after = weight_facts(str(tmp_path), is_local=True)
    assert set(before) == {"weights", "config", "tokenizer", "chat_template"}
    assert differing(before, after) == {"weights"}


def test_a_folder_without_weights_is_an_error_and_a_hub_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsMissing):
        weight_facts(str(tmp_path), is_local=True)
    assert weight_facts("some/model", is_local=False) == {}


async def test_a_replica_whose_weights_are_still_read_says_so() -> None:
    app = Starlette()
    add_build_route(app, asyncio.get_running_loop().create_future(), {})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as http:
        assert (await http.get(BUILD_PATH)).status_code == 503
