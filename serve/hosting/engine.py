"""Changes to Ray's vLLM engine. It imports vLLM, so only replicas import it.

Both changes touch names that Ray and vLLM do not promise to keep; `cpu` pins their versions, and
`tests/e2e/test_hosting.py` runs them.
"""

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine


class LocalSource(CallbackBase):  # type: ignore[misc]  # ray has no type information
    """Skips Ray's "download the model on every node" step for a folder that is already there.

    The step runs in a worker process of its own that imports vLLM and then stays: 9 s and 450 MB a
    variant.
    """

    async def on_before_node_init(self) -> None:
        """Turn the step off."""
        self.ctx.run_init_node = False


class InCoreEngine(VLLMEngine):  # type: ignore[misc]  # ray has no type information
    """A CPU engine of one worker, run inside the engine core's process.

    vLLM gives every CPU worker a process of its own so that it can set the OpenMP environment
    before the worker starts. With one worker, the core's own environment does as well: a process,
    its imports (9 s on a small machine) and 430 MB fewer for each replica.
    """

    def _start_async_llm_engine(self, engine_args: Any, config: Any, placement_group: Any) -> Any:
        from vllm.utils.ompmultiprocessing import OMPProcessManager

        config.parallel_config.distributed_executor_backend = "uni"
        with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
            return super()._start_async_llm_engine(engine_args, config, placement_group)
