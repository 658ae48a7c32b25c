"""Route of hosted replicas that tells what build they run: `GET /penumbra/v1/build`.

The answer is an object of texts: digests of the files that the weights were loaded from, and the
engine's settings as vLLM resolved them. Any of them that changes makes another build, whose
evidence begins anew (docs/shadow.md). `penumbra.router.upstream.build_probe` is the other end.

`engine_client.vllm_config` is vLLM's own business; `cpu` pins its version, and
`tests/e2e/test_hosting.py` reads the route.
"""

import asyncio
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penumbra.monitoring.build_facts import short
from penumbra.router.upstream.build_probe import BUILD_PATH
from penumbra.serve.quantization.manifest import content_digests, file_sha256

_NOT_READY = 503
_LIBRARIES = ("vllm", "torch")


def weight_facts(source: str, *, is_local: bool) -> dict[str, str]:
    """Digests of a model folder: weights, configuration, tokenizer, chat template.

    Reads every weight once; run it beside the engine's start.

    Args:
        source: The folder, or a name on a hub.
        is_local: Whether it is a folder.

    Returns:
        Nothing for a name on a hub: the engine tells its revision.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not JSON.
        QuantizationError: The folder holds no model of this kind.
    """
    return content_digests(Path(source)) if is_local else {}


def engine_facts(config: Any, engine_args: Mapping[str, Any]) -> dict[str, str]:
    """The engine's settings as it resolved them.

    Args:
        config: vLLM's `VllmConfig`.
        engine_args: The arguments that the operator gave.
    """
    facts = dict(_library_facts())
    for name, value in _settings(config):
        facts[name] = short(str(value))
    facts["device"] = short(_device(str(getattr(config.device_config, "device_type", "cpu"))))
    facts["engine_args"] = short(json.dumps(dict(engine_args), sort_keys=True, default=str))
    template = engine_args.get("chat_template")
    if isinstance(template, str) and Path(template).is_file():
        facts["chat_template"] = file_sha256(Path(template))
    return facts


def add_build_route(
    app: Starlette, facts: asyncio.Future[dict[str, str]], engine_args: Mapping[str, Any]
) -> None:
    """Tell of the build that `app` serves; 503 while its weights are still being read.

    Args:
        app: vLLM's application; its state holds the engine.
        facts: Facts of the weights, once they are read.
        engine_args: The engine's arguments.
    """

    async def build(request: Request) -> Response:
        """All facts of this replica's build, name -> text."""
        if not facts.done():
            error = {"message": "the weights are being read", "type": "not_ready"}
            return JSONResponse({"error": error}, status_code=_NOT_READY)
        config = request.app.state.engine_client.vllm_config
        return JSONResponse({**facts.result(), **engine_facts(config, engine_args)})

    app.add_route(BUILD_PATH, build, methods=["GET"])


def _library_facts() -> Iterator[tuple[str, str]]:
    """Versions of the libraries, as the engine's process has imported them.

    Distributions have other names for other devices.
    """
    for name in _LIBRARIES:
        told = getattr(sys.modules.get(name), "__version__", None)
        if told is not None:
            yield name, str(told)


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    yield "source", model.model
    yield "revision", model.revision or getattr(model.hf_config, "_commit_hash", None)
    yield "dtype", str(model.dtype).removeprefix("torch.")
    yield "quantization", model.quantization
    yield "max_model_len", model.max_model_len
    yield "logprobs_mode", model.logprobs_mode
    yield "kv_cache_dtype", cache.cache_dtype
    yield "prefix_caching", cache.enable_prefix_caching
    yield "chunked_prefill", scheduler.enable_chunked_prefill
    yield "batched_tokens", scheduler.max_num_batched_tokens
    yield "attention", config.attention_config.backend
    yield "compilation", _compilation(model, config.compilation_config)
    yield "speculative", _speculative(config.speculative_config)
    yield "parallel", _parallel(config.parallel_config)


def _compilation(model: Any, compilation: Any) -> str:
    if model.enforce_eager:
        return "eager"
    return f"mode {compilation.mode}, graphs {compilation.cudagraph_mode}"


def _speculative(speculative: Any) -> str:
    if speculative is None:
        return "none"
    return (
        f"{speculative.method}, {speculative.num_speculative_tokens} tokens,"
        f" {getattr(speculative, 'model', None)}"
    )


def _parallel(parallel: Any) -> str:
    return (
        f"tensor {parallel.tensor_parallel_size}, pipeline {parallel.pipeline_parallel_size},"
        f" data {parallel.data_parallel_size}"
    )


def _device(kind: str) -> str:
    if kind == "cpu":
        return f"cpu {_processor()}"
    from vllm.platforms import current_platform

    return f"{kind} {current_platform.get_device_name()}"


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in told.splitlines() if "model name" in line)
    return next(names, platform.machine())
